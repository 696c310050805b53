//! Creates the keys and certificates of a CA: its own, those of the signer of documents, and those of the TLS
//! server.

use super::{
    PkiError,
    certificates::{
        CA_LIFE_S, Parsed, ca_params, ca_with_path_length, make, new_key, params, random_serial,
    },
};
use crate::clock::UnixSeconds;
use ipnet::Ipv6Net;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SerialNumber};
use wire::signed::SIGNER_NAME;

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
        let not_after = now
            .saturating_add_s(CA_LIFE_S)
            .min(Parsed::read(&certificate, "the CA")?.not_after);
        let (signer_key, tls_key) = (new_key()?, new_key()?);
        let ca_key = key.serialize_pem();
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(make("use of the CA"))?;

        let mut signer = params(SIGNER_NAME, now, not_after)?;
        signer.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        signer.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let signer = signer
            .signed_by(&signer_key, &issuer)
            .map_err(make("the signer's certificate"))?;

        let mut tls = params("warren-registry", now, not_after)?;
        tls.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        tls.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let names = CertificateParams::new(hosts).map_err(make("the registry's names"))?;
        tls.subject_alt_names = names.subject_alt_names;
        let tls = tls
            .signed_by(&tls_key, &issuer)
            .map_err(make("the registry's certificate"))?;

        Ok(Self {
            ca: certificate,
            ca_key,
            signer: signer.pem(),
            signer_key: signer_key.serialize_pem(),
            tls: tls.pem(),
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
        let key = |pem: &str| KeyPair::from_pem(pem).map_err(make("use of a CA's key"));
        let issuer = Issuer::from_ca_cert_pem(&before.ca, key(&before.ca_key)?);
        let mut ca = ca_with_path_length(
            &Parsed::read(&self.ca, "the CA")?.name,
            0,
            now,
            now.saturating_add_s(CA_LIFE_S),
        )?;
        ca.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        let signed = ca.signed_by(
            &key(&self.ca_key)?,
            &issuer.map_err(make("use of the CA before"))?,
        );
        self.cross = signed.map_err(make("a CA's cross certificate"))?.pem();
        Ok(())
    }
}
