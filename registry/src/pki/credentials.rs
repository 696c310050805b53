//! Creates the keys and certificates of a CA: its own, those of the signer of documents, and those of the TLS
//! server.

use super::{
    PkiError,
    ca_check::{self, CaToCheck},
    certificates::{
        CA_LIFE_S, Parsed, ca_params, ca_with_path_length, make, new_key, params, random_serial,
        to_pem,
    },
    issuer::CertificateIssuer,
    private_key::{read_key, unusable_key},
};
use crate::clock::UnixSeconds;
use ipnet::Ipv6Net;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SerialNumber};
use std::fmt;
use wire::{chain, signed::SIGNER_NAME};

/// All keys and certificates of one CA, in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The CA's certificate.
    pub ca: String,
    /// The CA's key.
    pub ca_key: String,
    /// The certificate of the signer of documents.
    pub signer: String,
    /// The key of the signer.
    pub signer_key: String,
    /// The TLS certificate of the registry.
    pub tls: String,
    /// The key of the TLS certificate.
    pub tls_key: String,
    /// The certificate of the CA that the previous CA issued; empty for the first CA, and if both have the same
    /// root.
    pub cross: String,
    /// The certificate of the root that certified the CA; empty if the CA is self-signed.
    pub root: String,
}

/// A CA that the operator brings.
#[derive(Clone)]
pub struct OwnCa {
    /// The certificate of the CA and, if a root certified it, that of the root, in PEM.
    pub certificates: String,
    /// The key of the CA in PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: String,
}

impl fmt::Debug for OwnCa {
    /// Leaves out the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnCa")
    }
}

impl OwnCa {
    /// Reads the certificates and the key; whether they can be used is checked by [`Credentials::make`].
    fn read(&self) -> Result<NewCa, PkiError> {
        let unusable = |why: String| PkiError::UnusableCa { why };
        let all = chain::read_pem(self.certificates.as_bytes())
            .map_err(|error| unusable(format!("its certificate: {error}")))?;
        let (ca, root) = match all.as_slice() {
            [ca] => (ca, String::new()),
            [ca, root] => (ca, to_pem(root)),
            more => {
                return Err(unusable(format!(
                    "there are {} certificates: give that of the CA and, if a root certified it, that of the root",
                    more.len()
                )));
            }
        };
        Ok(NewCa {
            certificate: to_pem(ca),
            key: read_key(&self.key).map_err(unusable_key)?,
            root,
        })
    }

    /// Creates the other keys and certificates of the CA, and returns its network too.
    ///
    /// # Errors
    /// The CA cannot be used, or its serial number encodes no network.
    pub(crate) fn credentials(
        &self,
        hosts: &[String],
        now: UnixSeconds,
    ) -> Result<(Credentials, Ipv6Net), PkiError> {
        let made = Credentials::make(self.read()?, hosts, now)?;
        let network = Parsed::read(made.anchor(), "the CA")?.network();
        let network = network.ok_or_else(|| PkiError::UnusableCa {
            why: "its serial number, or that of its root, must be a 1 followed by the bits of the network, such as \
                  0x1fd123456789a for fd12:3456:789a::/48"
                .into(),
        })?;
        Ok((made, network.range()))
    }
}

/// A CA for which no other certificates exist yet.
pub(crate) struct NewCa {
    pub(crate) certificate: String,
    pub(crate) key: KeyPair,
    pub(crate) root: String,
}

impl NewCa {
    /// Creates a self-signed CA.
    pub(crate) fn self_signed_ca(
        network: Ipv6Net,
        version: u32,
        now: UnixSeconds,
    ) -> Result<Self, PkiError> {
        let (ca, key) = (ca_params(network, version, now)?, new_key()?);
        let certificate = ca.self_signed(&key).map_err(make("the CA"))?.pem();
        Ok(Self {
            certificate,
            key,
            root: String::new(),
        })
    }
}

impl Credentials {
    /// Creates the other keys and certificates of a CA; `hosts` are the names and addresses at which nodes reach the
    /// registry.
    ///
    /// # Errors
    /// The system has no random bytes, a host is neither a name nor an address, or the CA cannot be used.
    pub(crate) fn make(ca: NewCa, hosts: &[String], now: UnixSeconds) -> Result<Self, PkiError> {
        let NewCa {
            certificate,
            key,
            root,
        } = ca;
        let issuer = CertificateIssuer::new(&certificate, key)?;
        let ca = Parsed::read(&certificate, "the CA")?;
        let above = match root.as_str() {
            "" => None,
            root => Some(Parsed::read(root, "the root")?),
        };
        let to_check = CaToCheck {
            ca: &ca.der,
            root: above.as_ref().map(|root| root.der.as_slice()),
            issuer: &issuer,
        };
        ca_check::check(to_check, now)?;
        let not_after = now.saturating_add_s(CA_LIFE_S).min(ca.not_after);
        let (signer_key, tls_key) = (new_key()?, new_key()?);

        let mut signer = params(SIGNER_NAME, now, not_after)?;
        signer.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        signer.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let signer = issuer.sign(&signer, &signer_key, "the signer's certificate")?;

        let mut tls = params("warren-registry", now, not_after)?;
        tls.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        tls.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let names = CertificateParams::new(hosts).map_err(make("the registry's names"))?;
        tls.subject_alt_names = names.subject_alt_names;
        let tls = issuer.sign(&tls, &tls_key, "the registry's certificate")?;

        Ok(Self {
            ca: certificate,
            ca_key: issuer.key_pem(),
            signer,
            signer_key: signer_key.serialize_pem(),
            tls,
            tls_key: tls_key.serialize_pem(),
            cross: String::new(),
            root,
        })
    }

    /// Returns the certificate (PEM) that nodes trust: that of the root, or of the CA if it has no root.
    pub(crate) fn anchor(&self) -> &str {
        if self.root.is_empty() {
            &self.ca
        } else {
            &self.root
        }
    }

    /// Lets the CA `before` certify this one, so that nodes that know only `before` can verify our chain.
    ///
    /// # Errors
    /// A key or a certificate cannot be used.
    pub(crate) fn cross_sign(&mut self, before: &Self, now: UnixSeconds) -> Result<(), PkiError> {
        let issuer = CertificateIssuer::load(&before.ca, &before.ca_key)?;
        let key = read_key(&self.ca_key).map_err(unusable_key)?;
        let own = Parsed::read(&self.ca, "the CA")?;
        // The name in the parameters is replaced by the subject of the CA.
        let mut ca = ca_with_path_length("", 0, now, now.saturating_add_s(CA_LIFE_S))?;
        ca.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        let what = "a CA's cross certificate";
        self.cross = issuer.sign_with_subject(&ca, Some(&own.subject), &key, what)?;
        Ok(())
    }
}
