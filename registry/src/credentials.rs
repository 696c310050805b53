//! Makes the keys and certificates of a registry: a CA, a signer of documents, a server of TLS.

use crate::{
    authority::{AuthorityError, BACKDATE_S, Parsed, random},
    offline_root::OfflineRoot,
    request::ProvenKey,
    settings::SettingsError,
};
use ipnet::Ipv6Net;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use time::OffsetDateTime;
use wire::signed::SIGNER_NAME;

/// Life of a root that is kept offline: 30 years.
const ROOT_LIFE_S: i64 = 30 * 365 * 86_400;

/// Life of the CA, of the registry's own TLS certificate and of the documents' signer: 10 years.
pub(crate) const CA_LIFE_S: i64 = 10 * 365 * 86_400;

/// All keys and certificates of one CA, in PEM; what `init` writes and `run` reads.
#[derive(Clone)]
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
    /// The same CA certified by the one before it; empty for the first, and where both have the same root.
    pub cross: String,
    /// The certificate of the root that certified the CA; empty where the CA stands for itself.
    pub root: String,
}

/// A CA before it has signed anything.
pub(crate) struct NewCa {
    pub(crate) certificate: String,
    pub(crate) key: KeyPair,
    pub(crate) root: String,
}

pub(crate) fn new_key() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make("a key"))
}

impl NewCa {
    /// One that stands for itself.
    pub(crate) fn alone(
        network: Ipv6Net,
        generation: u32,
        now_s: i64,
    ) -> Result<Self, AuthorityError> {
        let (ca, key) = (ca_params(network, generation, now_s)?, new_key()?);
        let certificate = ca.self_signed(&key).map_err(make("the CA"))?.pem();
        Ok(Self {
            certificate,
            key,
            root: String::new(),
        })
    }

    /// One that a root certifies.
    pub(crate) fn below(root: &OfflineRoot, now_s: i64) -> Result<Self, SettingsError> {
        let key = new_key()?;
        let certificate = root.certify(
            &ProvenKey {
                spki: key.subject_public_key_info(),
            },
            now_s,
        )?;
        Ok(Self {
            certificate,
            key,
            root: root.pem().to_owned(),
        })
    }
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
pub(crate) fn serial_of_network(network: Ipv6Net) -> SerialNumber {
    let length = u32::from(network.prefix_len());
    let number = 1u128 << length
        | network
            .network()
            .to_bits()
            .checked_shr(128 - length)
            .unwrap_or(0);
    let bytes = number.to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
    SerialNumber::from_slice(bytes.get(first..).unwrap_or(&bytes))
}

/// 127 random bits, the highest set, so that it has neither sign nor leading zeros.
pub(crate) fn random_serial() -> Result<[u8; 16], AuthorityError> {
    let [first, rest @ ..] = random::<16>()?;
    let mut serial = [first & 0x3f | 0x40; 16];
    if let Some(tail) = serial.get_mut(1..) {
        tail.copy_from_slice(&rest);
    }
    Ok(serial)
}

pub(crate) fn make(what: &'static str) -> impl Fn(rcgen::Error) -> AuthorityError {
    move |source| AuthorityError::Make { what, source }
}

pub(crate) fn params(
    name: &str,
    now_s: i64,
    until_s: i64,
) -> Result<CertificateParams, AuthorityError> {
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

fn moment(seconds: i64) -> Result<OffsetDateTime, AuthorityError> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| AuthorityError::Time { seconds })
}

/// What a CA says of itself, below which there may be so many more.
fn ca_like(
    name: &str,
    below: u8,
    now_s: i64,
    until_s: i64,
) -> Result<CertificateParams, AuthorityError> {
    let mut ca = params(name, now_s, until_s)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(ca)
}

/// What a CA that stands for itself says of itself; only the first has no generation in its name.
fn ca_params(
    network: Ipv6Net,
    generation: u32,
    now_s: i64,
) -> Result<CertificateParams, AuthorityError> {
    let name = match generation {
        0 | 1 => format!("warren {network}"),
        later => format!("warren {network} {later}"),
    };
    let mut ca = ca_like(&name, 0, now_s, now_s + CA_LIFE_S)?;
    ca.serial_number = Some(serial_of_network(network));
    Ok(ca)
}

/// What a root says of itself.
pub(crate) fn root_params(
    network: Ipv6Net,
    now_s: i64,
) -> Result<CertificateParams, AuthorityError> {
    let mut root = ca_like(
        &format!("warren {network} root"),
        1,
        now_s,
        now_s + ROOT_LIFE_S,
    )?;
    root.serial_number = Some(serial_of_network(network));
    Ok(root)
}

/// What a root says of a CA that signs.
pub(crate) fn online_ca_params(
    network: Ipv6Net,
    now_s: i64,
    until_s: i64,
) -> Result<CertificateParams, AuthorityError> {
    ca_like(&format!("warren {network} online"), 0, now_s, until_s)
}

impl Credentials {
    /// Makes what a CA needs to serve a network; `hosts` are the names and addresses at which the
    /// registry is reached.
    ///
    /// # Errors
    /// No random bytes, a host that is neither a name nor an address, or a CA that cannot be used.
    pub(crate) fn make(ca: NewCa, hosts: &[String], now_s: i64) -> Result<Self, AuthorityError> {
        let NewCa {
            certificate,
            key,
            root,
        } = ca;
        let until_s = (now_s + CA_LIFE_S).min(Parsed::read(&certificate, "the CA")?.not_after_s);
        let (signer_key, tls_key) = (new_key()?, new_key()?);
        let ca_key = key.serialize_pem();
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(make("use of the CA"))?;

        let mut signer = params(SIGNER_NAME, now_s, until_s)?;
        signer.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        signer.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let signer = signer
            .signed_by(&signer_key, &issuer)
            .map_err(make("the signer's certificate"))?;

        let mut tls = params("warren-registry", now_s, until_s)?;
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

    /// The certificate (PEM) that who trusts this CA knows: its root's, or its own.
    pub(crate) fn anchor(&self) -> &str {
        if self.root.is_empty() {
            &self.ca
        } else {
            &self.root
        }
    }

    /// Lets the CA `before` certify this one, so that who knows only that one can verify ours.
    ///
    /// # Errors
    /// A key or certificate cannot be used.
    pub(crate) fn cross(&mut self, before: &Self, now_s: i64) -> Result<(), AuthorityError> {
        let key = |pem: &str| KeyPair::from_pem(pem).map_err(make("use of a CA's key"));
        let issuer = Issuer::from_ca_cert_pem(&before.ca, key(&before.ca_key)?);
        let mut ca = ca_like(
            &Parsed::read(&self.ca, "the CA")?.name,
            0,
            now_s,
            now_s + CA_LIFE_S,
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
