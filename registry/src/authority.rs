//! The network's certificate authority: composes and signs certificates and documents.
//!
//! Nothing of what a stranger sent but a public key ever enters a certificate.

use crate::request::ProvenKey;
use ipnet::Ipv6Net;
use policies::names::Prefix;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, SigningKey, SubjectPublicKeyInfo,
};
use ring::rand::{SecureRandom, SystemRandom};
use std::net::IpAddr;
use time::OffsetDateTime;
use wire::{
    overlay::Network,
    signed::{SIGNER_NAME, SignedDocument, hex, seal},
};

/// Life of the CA, of the registry's own TLS certificate and of the documents' signer: 10 years.
const CA_LIFE_S: i64 = 10 * 365 * 86_400;

/// Certificates begin this long before they are made, for clocks that are behind.
pub const BACKDATE_S: i64 = 3600;

/// What an authority could not do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The library refused.
    #[error("cannot make {what}")]
    Make {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
    /// A moment outside the calendar.
    #[error("{seconds} s since 1970 is outside the calendar")]
    Time {
        /// The moment.
        seconds: i64,
    },
    /// A stored certificate that cannot be read.
    #[error("{what} cannot be read as a certificate")]
    Stored {
        /// Which.
        what: &'static str,
    },
}

/// All keys and certificates of a registry, in PEM; what `init` writes and `run` reads.
pub struct Credentials {
    /// The CA's certificate.
    pub ca: String,
    /// The CA's key.
    pub ca_key: String,
    /// The certificate of the documents' signer.
    pub signer: String,
    /// The signer's key.
    pub signer_key: String,
    /// The registry's own certificate for TLS.
    pub tls: String,
    /// Its key.
    pub tls_key: String,
}

/// The network's certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    ca_der: Vec<u8>,
    ca_spki: Vec<u8>,
    ca_not_after_s: i64,
    signer_key: KeyPair,
    signer_der: Vec<u8>,
    signer_spki: Vec<u8>,
    network: Network,
}

/// A certificate that was just signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Lower-case hex, no leading zeros.
    pub serial: String,
    /// PEM.
    pub certificate: String,
    /// Seconds since 1970.
    pub not_before_s: i64,
    /// Seconds since 1970.
    pub not_after_s: i64,
}

/// `count` random bytes.
///
/// # Errors
/// The system has none.
pub fn random<const N: usize>() -> Result<[u8; N], AuthorityError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AuthorityError::NoRandom)?;
    Ok(bytes)
}

/// A random range of unique local addresses (RFC 4193): `fd` and 40 random bits, /48.
///
/// # Errors
/// The system has no random bytes.
pub fn random_network() -> Result<Ipv6Net, AuthorityError> {
    let [a, b, c, d, e] = random::<5>()?;
    let address = std::net::Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    Ok(Ipv6Net::new_assert(address, 48))
}

/// The serial number of a CA says its network: a 1 followed by the network's bits.
fn serial_of_network(network: Ipv6Net) -> SerialNumber {
    let length = u32::from(network.prefix_len());
    let number = 1u128 << length | network.network().to_bits().checked_shr(128 - length).unwrap_or(0);
    let bytes = number.to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
    SerialNumber::from_slice(bytes.get(first..).unwrap_or(&bytes))
}

/// The network whose bits a CA's serial number holds.
fn network_of_serial(serial: &[u8]) -> Option<Network> {
    let number = serial
        .iter()
        .try_fold(0u128, |number, byte| (number >> 120 == 0).then_some(number << 8 | u128::from(*byte)))?;
    let length = 127u32.checked_sub(number.leading_zeros())?;
    let bits = number ^ 1 << length;
    let address = std::net::Ipv6Addr::from_bits(bits.checked_shl(128 - length)?);
    Network::new(Ipv6Net::new(address, u8::try_from(length).ok()?).ok()?)
}

fn moment(seconds: i64) -> Result<OffsetDateTime, AuthorityError> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| AuthorityError::Time { seconds })
}

/// 127 random bits, the highest set, so that it has neither sign nor leading zeros.
fn random_serial() -> Result<[u8; 16], AuthorityError> {
    let [first, rest @ ..] = random::<16>()?;
    let mut serial = [first & 0x3f | 0x40; 16];
    if let Some(tail) = serial.get_mut(1..) {
        tail.copy_from_slice(&rest);
    }
    Ok(serial)
}

fn make(what: &'static str) -> impl Fn(rcgen::Error) -> AuthorityError {
    move |source| AuthorityError::Make { what, source }
}

fn params(name: &str, now_s: i64, until_s: i64) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment(now_s - BACKDATE_S)?;
    params.not_after = moment(until_s)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

impl Credentials {
    /// Makes all keys and certificates of a new network; `hosts` are the names and addresses at
    /// which the registry is reached.
    ///
    /// # Errors
    /// No random bytes, or a host that is neither a name nor an address.
    pub fn make(network: Ipv6Net, hosts: &[String], now_s: i64) -> Result<Self, AuthorityError> {
        let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make("a key"));
        let until_s = now_s + CA_LIFE_S;
        let (ca_key, signer_key, tls_key) = (key()?, key()?, key()?);
        let keys = (ca_key.serialize_pem(), signer_key.serialize_pem(), tls_key.serialize_pem());

        let mut ca = params(&format!("warren {network}"), now_s, until_s)?;
        ca.serial_number = Some(serial_of_network(network));
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_certificate = ca.self_signed(&ca_key).map_err(make("the CA"))?;
        let issuer = Issuer::new(ca, ca_key);

        let mut signer = params(SIGNER_NAME, now_s, until_s)?;
        signer.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        signer.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let signer = signer.signed_by(&signer_key, &issuer).map_err(make("the signer's certificate"))?;

        let mut tls = params("warren-registry", now_s, until_s)?;
        tls.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        tls.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let names = CertificateParams::new(hosts).map_err(make("the registry's names"))?;
        tls.subject_alt_names = names.subject_alt_names;
        let tls = tls.signed_by(&tls_key, &issuer).map_err(make("the registry's certificate"))?;

        let (ca_key, signer_key, tls_key) = keys;
        let (ca, signer, tls) = (ca_certificate.pem(), signer.pem(), tls.pem());
        Ok(Self { ca, ca_key, signer, signer_key, tls, tls_key })
    }
}

impl Authority {
    /// Takes up the work of a network.
    ///
    /// # Errors
    /// A key or certificate cannot be read, or the CA's serial number names no network.
    pub fn load(credentials: &Credentials) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(&credentials.ca_key).map_err(make("use of the CA's key"))?;
        let issuer = Issuer::from_ca_cert_pem(&credentials.ca, key).map_err(make("use of the CA"))?;
        let signer_key =
            KeyPair::from_pem(&credentials.signer_key).map_err(make("use of the signer's key"))?;
        let ca = Parsed::read(&credentials.ca, "the CA")?;
        let signer = Parsed::read(&credentials.signer, "the signer's certificate")?;
        let network = network_of_serial(&ca.serial).ok_or(AuthorityError::Stored {
            what: "the CA's serial number (a 1 followed by the network's bits)",
        })?;
        Ok(Self {
            issuer,
            ca_pem: credentials.ca.clone(),
            ca_der: ca.der,
            ca_spki: ca.spki,
            ca_not_after_s: ca.not_after_s,
            signer_key,
            signer_der: signer.der,
            signer_spki: signer.spki,
            network,
        })
    }

    /// The network's address plan, from the CA's serial number.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The CA's certificate in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The CA's certificate in DER.
    pub fn ca_der(&self) -> &[u8] {
        &self.ca_der
    }

    /// SHA-256 of the CA's SPKI, as invitations pin it.
    pub fn pin(&self) -> [u8; 32] {
        crate::request::sha256(&self.ca_spki)
    }

    /// Signs a certificate for the node `prefix` with this key, from an hour ago until `life_s`
    /// seconds from now, but never beyond the CA's own end.
    ///
    /// # Errors
    /// No random bytes, or the library refused.
    pub fn sign_node(
        &self,
        prefix: Prefix,
        key: &ProvenKey,
        now_s: i64,
        life_s: i64,
    ) -> Result<Issued, AuthorityError> {
        let until_s = now_s.saturating_add(life_s).min(self.ca_not_after_s);
        let serial = random_serial()?;
        let mut node = params(&prefix.to_string(), now_s, until_s)?;
        node.serial_number = Some(SerialNumber::from_slice(&serial));
        node.subject_alt_names = vec![SanType::IpAddress(IpAddr::V6(self.network.node_address(prefix)))];
        node.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = SubjectPublicKeyInfo::from_der(&key.spki).map_err(make("use of the node's key"))?;
        let certificate = node.signed_by(&key, &self.issuer).map_err(make("the node's certificate"))?.pem();
        Ok(Issued {
            serial: hex(&serial),
            certificate,
            not_before_s: now_s - BACKDATE_S,
            not_after_s: until_s,
        })
    }

    /// Signs a document's payload.
    ///
    /// # Errors
    /// The library refused.
    pub fn sign_document(&self, payload: &[u8]) -> Result<SignedDocument, AuthorityError> {
        let signature = self.signer_key.sign(payload).map_err(make("a document's signature"))?;
        Ok(seal(payload, &self.signer_der, &self.signer_spki, &signature))
    }
}

struct Parsed {
    der: Vec<u8>,
    spki: Vec<u8>,
    serial: Vec<u8>,
    not_after_s: i64,
}

impl Parsed {
    fn read(pem: &str, what: &'static str) -> Result<Self, AuthorityError> {
        let bad = || AuthorityError::Stored { what };
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| bad())?;
        let certificate = block.parse_x509().map_err(|_| bad())?;
        Ok(Self {
            spki: certificate.public_key().raw.to_vec(),
            serial: certificate.raw_serial().to_vec(),
            not_after_s: certificate.validity().not_after.timestamp(),
            der: block.contents.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::signed::{SignedError, open};

    const NOW_S: i64 = 1_800_000_000;

    fn authority(network: &str) -> Authority {
        let credentials = Credentials::make(network.parse().unwrap(), &["45.67.0.1".into()], NOW_S).unwrap();
        Authority::load(&credentials).unwrap()
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut SignedDocument), expected: Result<&[u8], SignedError>) {
        let authority = authority("fd12:3456:789a::/48");
        let mut document = authority.sign_document(b"{}").unwrap();
        change(&mut document);
        assert_eq!(open(&document, authority.ca_der()).as_deref(), expected.as_ref().map(|good| *good));
    }

    #[test]
    fn the_serial_number_of_a_ca_says_its_network() {
        for network in ["fd12:3456:789a::/48", "2001:db8::/32", "2000::/16", "fd00:0:0:1::/64", "fd80::/17"] {
            let expected = Network::new(network.parse().unwrap());
            let serial = serial_of_network(network.parse().unwrap());
            assert_eq!(network_of_serial(&serial.to_bytes()), expected, "{network}");
        }
        assert_eq!(authority("fd12:3456:789a::/48").network().range().to_string(), "fd12:3456:789a::/48");
        assert_eq!(
            serial_of_network("2001:db8:42::/48".parse().unwrap()).to_string(),
            "01:20:01:0d:b8:00:42"
        );
        assert_eq!(network_of_serial(&[]), None);
        assert_eq!(network_of_serial(&[0]), None);
        assert_eq!(network_of_serial(&[0xff; 16]), None);
        assert_eq!(network_of_serial(&[0xff; 20]), None);
    }

    #[test]
    fn a_signed_document_opens_with_the_network_s_ca() {
        check(|_| (), Ok(b"{}"));
    }

    #[test]
    fn a_changed_document_is_not_believed() {
        check(|document| document.payload = "e30K".into(), Err(SignedError::Signature));
        check(|document| document.version = 2, Err(SignedError::Version { version: 2 }));
        check(
            |document| document.key_id = "00".repeat(32),
            Err(SignedError::Signer { why: "it is not the key that key_id names" }),
        );
        check(
            |document| document.payload = "=".into(),
            Err(SignedError::Field { field: "payload", limit: wire::signed::PAYLOAD_LIMIT }),
        );
    }

    #[test]
    fn a_document_of_another_network_is_not_believed() {
        let (ours, theirs) = (authority("fd00:1::/48"), authority("fd00:1::/48"));
        let document = theirs.sign_document(b"{}").unwrap();
        let said = open(&document, ours.ca_der());
        assert_eq!(said, Err(SignedError::Signer { why: "the network's CA did not sign it" }));
    }

    #[test]
    fn a_node_s_certificate_cannot_sign_documents() {
        let authority = authority("fd00:1::/48");
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let proven = crate::request::read(&request).unwrap();
        let node = authority.sign_node(Prefix::new(7, 16).unwrap(), &proven, NOW_S, 86_400).unwrap();
        let der = Parsed::read(&node.certificate, "node").unwrap().der;
        let document = seal(b"{}", &der, &proven.spki, &key.sign(b"{}").unwrap());
        let said = open(&document, authority.ca_der());
        assert_eq!(said, Err(SignedError::Signer { why: "its common name is not that of a signer" }));
    }
}
