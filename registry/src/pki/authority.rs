//! The certificate authority of a network: composes and signs certificates and documents.
//!
//! Of what a caller sent, only the public key enters a certificate.

use super::{
    BACKDATE_S, PkiError,
    ca_check::{self, CaToCheck},
    certificates::{Parsed, make, params, random_serial},
    credentials::Credentials,
    issuer::CertificateIssuer,
    request::{ProvenKey, sha256},
};
use crate::clock::UnixSeconds;
use policies::{names::Prefix, node_name::NodeName};
use rcgen::{
    ExtendedKeyUsagePurpose, KeyPair, SanType, SerialNumber, SigningKey, SubjectPublicKeyInfo,
};
use std::net::IpAddr;
use wire::{
    chain,
    overlay::Network,
    signed::{OtherSignature, SignedDocument, hex, seal},
};

/// One CA, with the signer of its documents.
struct Ca {
    version: u32,
    issuer: CertificateIssuer,
    pem: String,
    der: Vec<u8>,
    not_after: UnixSeconds,
    /// The certificate that nodes trust: that of the root, or the CA's own if it has no root.
    anchor_pem: String,
    anchor: Parsed,
    has_root: bool,
    signer_key: KeyPair,
    signer_der: Vec<u8>,
    signer_spki: Vec<u8>,
    network: Network,
}

/// The certificate authority of a network: the CA that signs, and another one while the CA is being replaced.
pub struct Authority {
    current: Ca,
    other: Option<Ca>,
}

/// The CAs that the settings name.
pub(crate) struct Authorities {
    /// The files of the CA that signs.
    pub(crate) current: Credentials,
    /// The files of the staged or the retiring CA.
    pub(crate) other: Option<Credentials>,
    /// The authority made of both.
    pub(crate) authority: Authority,
}

/// A new certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The serial number, in lower-case hex without leading zeros.
    pub serial: String,
    /// The certificate in PEM, followed by that of its CA if the CA has a root.
    pub certificate: String,
    /// The version of the CA that signed it.
    pub authority: u32,
    /// The first moment at which the certificate is valid.
    pub not_before: UnixSeconds,
    /// The moment at which the certificate expires.
    pub not_after: UnixSeconds,
}

impl Ca {
    fn load(version: u32, credentials: &Credentials) -> Result<Self, PkiError> {
        let issuer = CertificateIssuer::load(&credentials.ca, &credentials.ca_key)?;
        let signer_key =
            KeyPair::from_pem(&credentials.signer_key).map_err(make("use of the signer's key"))?;
        let ca = Parsed::read(&credentials.ca, "the CA")?;
        let signer = Parsed::read(&credentials.signer, "the signer's certificate")?;
        let anchor = Parsed::read(credentials.anchor(), "the trusted CA")?;
        let network = anchor.network().ok_or(PkiError::Stored {
            what: "the CA's serial number (a 1 followed by the network's bits)",
        })?;
        Ok(Self {
            version,
            issuer,
            pem: credentials.ca.clone(),
            der: ca.der,
            not_after: ca.not_after,
            anchor_pem: credentials.anchor().to_owned(),
            anchor,
            has_root: !credentials.root.is_empty(),
            signer_key,
            signer_der: signer.der,
            signer_spki: signer.spki,
            network,
        })
    }

    /// Checks that certificates of this CA are accepted at `now`.
    fn check(&self, now: UnixSeconds) -> Result<(), PkiError> {
        let to_check = CaToCheck {
            ca: &self.der,
            root: self.has_root.then_some(self.anchor.der.as_slice()),
            issuer: &self.issuer,
        };
        ca_check::check(to_check, now)
    }

    fn sign(&self, payload: &[u8]) -> Result<SignedDocument, PkiError> {
        let signature = self
            .signer_key
            .sign(payload)
            .map_err(make("a document's signature"))?;
        let chain = (
            self.signer_der.as_slice(),
            self.has_root.then_some(self.der.as_slice()),
        );
        Ok(seal(payload, chain, &self.signer_spki, &signature))
    }
}

impl Authority {
    /// Loads the CAs of a network; the numbers are their versions.
    ///
    /// # Errors
    /// A key or a certificate cannot be read, or the serial number of a trusted CA encodes no network.
    pub fn load(
        current: (u32, &Credentials),
        other: Option<(u32, &Credentials)>,
    ) -> Result<Self, PkiError> {
        let other = other
            .map(|(version, credentials)| Ca::load(version, credentials))
            .transpose()?;
        Ok(Self {
            current: Ca::load(current.0, current.1)?,
            other,
        })
    }

    /// Checks that certificates of the CA that signs are accepted at `now`.
    ///
    /// # Errors
    /// [`PkiError::UnusableCa`] names the property that the CA lacks.
    pub fn check(&self, now: UnixSeconds) -> Result<(), PkiError> {
        self.current.check(now)
    }

    /// Checks the other CA like [`Self::check`], if there is one.
    ///
    /// # Errors
    /// [`PkiError::UnusableCa`] names the property that the CA lacks.
    pub(crate) fn check_other(&self, now: UnixSeconds) -> Result<(), PkiError> {
        self.other.as_ref().map_or(Ok(()), |other| other.check(now))
    }

    /// Returns the network, which the serial number of the trusted CA encodes.
    pub fn network(&self) -> Network {
        self.current.network
    }

    /// Returns the certificate (PEM) that nodes trust: that of the root, or of the CA if it has no root.
    pub fn ca_pem(&self) -> &str {
        &self.current.anchor_pem
    }

    /// Returns the same certificate as [`Self::ca_pem`], in DER.
    pub fn ca_der(&self) -> &[u8] {
        &self.current.anchor.der
    }

    /// Returns whether the CA that signs has a root.
    pub fn has_root(&self) -> bool {
        self.current.has_root
    }

    /// Returns the serial number and the expiry of the other CA, if both CAs have the same root.
    ///
    /// # Errors
    /// The certificate of the other CA has no serial number that can be revoked.
    pub(crate) fn other_below_same_root(&self) -> Result<Option<(String, UnixSeconds)>, PkiError> {
        let other = self
            .other
            .as_ref()
            .filter(|other| self.current.has_root && other.has_root);
        let Some(other) = other.filter(|other| other.anchor.der == self.current.anchor.der) else {
            return Ok(None);
        };
        let number = chain::number_of(&other.der).map_err(|_| PkiError::Stored {
            what: "the other CA",
        })?;
        Ok(Some((number.serial, other.not_after)))
    }

    /// Returns the other CA if nodes must trust it besides the current one, as it has another root or none.
    fn other_trusted(&self) -> Option<&Ca> {
        self.other
            .as_ref()
            .filter(|other| other.anchor.der != self.current.anchor.der)
    }

    /// Returns the role and the expiry of each CA.
    pub fn expiries(&self) -> Vec<(&'static str, UnixSeconds)> {
        let role = if self.is_retiring() {
            "retiring"
        } else {
            "staged"
        };
        let other = self.other.as_ref().map(|ca| (role, ca.not_after));
        let root = self
            .current
            .has_root
            .then_some(("root", self.current.anchor.not_after));
        std::iter::once(("current", self.current.not_after))
            .chain(other)
            .chain(root)
            .collect()
    }

    /// Returns the version of the CA that signs.
    pub fn version(&self) -> u32 {
        self.current.version
    }

    /// Returns whether there is another CA, and it is the one before the current one.
    pub fn is_retiring(&self) -> bool {
        self.other
            .as_ref()
            .is_some_and(|other| other.version < self.current.version)
    }

    /// Returns the certificates (PEM) that nodes trust; the one for the CA that signs is the first.
    pub fn trusted(&self) -> Vec<String> {
        let all = std::iter::once(&self.current).chain(self.other_trusted());
        all.map(|ca| ca.anchor_pem.clone()).collect()
    }

    /// Returns the same certificates as [`Self::trusted`], in DER.
    pub fn trusted_der(&self) -> Vec<Vec<u8>> {
        std::iter::once(&self.current)
            .chain(self.other_trusted())
            .map(|ca| ca.anchor.der.clone())
            .collect()
    }

    /// Returns the CA before the current one, as long as documents carry its signature too.
    fn retiring_ca(&self) -> Option<&Ca> {
        self.other_trusted().filter(|_| self.is_retiring())
    }

    /// Returns whether a document has the signatures that [`Self::sign_document`] would give it now.
    pub fn has_current_signatures(&self, document: &SignedDocument) -> bool {
        let id = |ca: &Ca| wire::signed::sha256_hex(&ca.signer_spki);
        let retiring_ca = self.retiring_ca().map(id);
        document.key_id == id(&self.current)
            && document.other.as_ref().map(|other| &other.key_id) == retiring_ca.as_ref()
    }

    /// Returns SHA-256 of the SPKI of the trusted CA, as invitations pin it.
    pub fn pin(&self) -> [u8; 32] {
        sha256(&self.current.anchor.spki)
    }

    /// Signs a certificate for a node with this key; the name is a DNS name among its subject alternative names. It is valid from an hour ago until `life_s` seconds
    /// from now, but expires no later than the CA.
    ///
    /// # Errors
    /// The system has no random bytes, or the certificate cannot be created.
    pub fn sign_node(
        &self,
        (prefix, name): (Prefix, Option<&NodeName>),
        key: &ProvenKey,
        now: UnixSeconds,
        life_s: i64,
    ) -> Result<IssuedCertificate, PkiError> {
        let ca = &self.current;
        let not_after = now.saturating_add_s(life_s).min(ca.not_after);
        let serial = random_serial()?;
        let mut node = params(&prefix.to_string(), now, not_after)?;
        node.serial_number = Some(SerialNumber::from_slice(&serial));
        node.subject_alt_names = vec![SanType::IpAddress(IpAddr::V6(
            ca.network.node_address(prefix),
        ))];
        if let Some(name) = name {
            let name = name.as_str().try_into().map_err(make("use of the name"))?;
            node.subject_alt_names.push(SanType::DnsName(name));
        }
        node.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key =
            SubjectPublicKeyInfo::from_der(&key.spki).map_err(make("use of the node's key"))?;
        let certificate = ca.issuer.sign(&node, &key, "the node's certificate")?;
        let chain = if ca.has_root { ca.pem.as_str() } else { "" };
        let certificate = certificate + chain;
        Ok(IssuedCertificate {
            serial: hex(&serial),
            certificate,
            authority: ca.version,
            not_before: now.saturating_sub_s(BACKDATE_S),
            not_after,
        })
    }

    /// Signs the payload of a document. As long as nodes trust the previous CA, its signer signs too, so that nodes
    /// that know only one of the CAs can verify the document.
    ///
    /// # Errors
    /// The payload cannot be signed.
    pub fn sign_document(&self, payload: &[u8]) -> Result<SignedDocument, PkiError> {
        let mut document = self.current.sign(payload)?;
        if let Some(retiring_ca) = self.retiring_ca() {
            let SignedDocument {
                key_id,
                certificate,
                issuer,
                signature,
                ..
            } = retiring_ca.sign(payload)?;
            document.other = Some(OtherSignature {
                key_id,
                certificate,
                issuer,
                signature,
            });
        }
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::credentials::NewCa;
    use rcgen::CertificateParams;
    use wire::{
        chain::ChainError,
        signed::{SignedError, open},
    };

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn authority(network: &str) -> Authority {
        let credentials = credentials(network, 1);
        Authority::load((1, &credentials), None).unwrap()
    }

    fn credentials(network: &str, version: u32) -> Credentials {
        let ca = NewCa::self_signed_ca(network.parse().unwrap(), version, NOW).unwrap();
        Credentials::make(ca, &["45.67.0.1".into()], NOW).unwrap()
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut SignedDocument), expected: Result<&[u8], SignedError>) {
        let authority = authority("fd12:3456:789a::/48");
        let mut document = authority.sign_document(b"{}").unwrap();
        change(&mut document);
        let opened = open(&document, &[authority.ca_der()]).map(|opened| opened.payload);
        assert_eq!(opened.as_deref(), expected.as_ref().map(|good| *good));
    }

    #[test]
    fn a_signed_document_opens_with_the_network_s_ca() {
        check(|_| (), Ok(b"{}"));
    }

    #[test]
    fn a_changed_document_is_rejected() {
        check(
            |document| document.payload = "e30K".into(),
            Err(SignedError::Signature),
        );
        check(
            |document| document.version = 2,
            Err(SignedError::Version { version: 2 }),
        );
        check(
            |document| document.key_id = "00".repeat(32),
            Err(SignedError::Signer {
                why: "it is not the key that key_id names",
            }),
        );
        check(
            |document| document.payload = "=".into(),
            Err(SignedError::Field {
                field: "payload",
                limit: wire::signed::PAYLOAD_LIMIT,
            }),
        );
    }

    #[test]
    fn a_document_of_another_network_is_rejected() {
        let (ours, theirs) = (authority("fd00:1::/48"), authority("fd00:1::/48"));
        let document = theirs.sign_document(b"{}").unwrap();
        let result = open(&document, &[ours.ca_der()]);
        assert_eq!(result, Err(SignedError::Chain(ChainError::Untrusted)));
    }

    #[test]
    fn during_a_replacement_documents_can_be_verified_with_either_ca_and_with_no_other() {
        let (one, two) = (credentials("fd00:1::/48", 1), credentials("fd00:1::/48", 2));
        let load =
            |current, other: Option<(u32, &Credentials)>| Authority::load(current, other).unwrap();
        let (self_signed_ca, staged) = (load((1, &one), None), load((1, &one), Some((2, &two))));
        let (active, retired) = (load((2, &two), Some((1, &one))), load((2, &two), None));
        let reads = |signer: &Authority, reader: &Authority| {
            open(&signer.sign_document(b"{}").unwrap(), &[reader.ca_der()]).is_ok()
        };
        assert!(
            reads(&staged, &self_signed_ca) && !reads(&staged, &retired),
            "a staged CA must not sign documents"
        );
        assert!(reads(&active, &self_signed_ca) && reads(&active, &retired));
        assert!(!reads(&retired, &self_signed_ca) && reads(&retired, &retired));
        assert!(!reads(&active, &authority("fd00:1::/48")));
        let document = retired.sign_document(b"{}").unwrap();
        assert!(open(&document, &[self_signed_ca.ca_der(), retired.ca_der()]).is_ok());
        let mut mixed = active.sign_document(b"{}").unwrap();
        mixed.payload = "e30K".into();
        assert!(open(&mixed, &[self_signed_ca.ca_der(), retired.ca_der()]).is_err());
    }

    #[test]
    fn a_node_s_certificate_cannot_sign_documents() {
        let authority = authority("fd00:1::/48");
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap();
        let proven = crate::pki::request::read(&request).unwrap();
        let node = authority
            .sign_node((Prefix::new(7, 16).unwrap(), None), &proven, NOW, 86_400)
            .unwrap();
        let der = Parsed::read(&node.certificate, "node").unwrap().der;
        let document = seal(b"{}", (&der, None), &proven.spki, &key.sign(b"{}").unwrap());
        let result = open(&document, &[authority.ca_der()]);
        assert_eq!(
            result,
            Err(SignedError::Signer {
                why: "its common name is not that of a signer"
            })
        );
    }
}
