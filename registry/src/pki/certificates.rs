//! The profiles of certificates (RFC 5280) of a root, a CA, a signer and a node.

use super::{PkiError, random};
use crate::clock::UnixSeconds;
use ipnet::Ipv6Net;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use time::OffsetDateTime;
use wire::overlay::Network;

/// Seconds by which the validity of a certificate begins before it is issued, for nodes whose clock is slow.
pub const BACKDATE_S: i64 = 3600;

/// Lifetime of an offline root, in seconds: 30 years.
const ROOT_LIFE_S: i64 = 30 * 365 * 86_400;

/// Lifetime of a CA, of its signer and of its TLS certificate, in seconds: 10 years.
pub(crate) const CA_LIFE_S: i64 = 10 * 365 * 86_400;

/// Creates an ECDSA key on P-256.
pub(crate) fn new_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make("a key"))
}

/// Returns a random /48 of unique local addresses (RFC 4193): `fd`, followed by 40 random bits.
///
/// # Errors
/// The system has no random bytes.
pub fn random_network() -> Result<Ipv6Net, PkiError> {
    let [a, b, c, d, e] = random::<5>()?;
    let address = std::net::Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    Ok(Ipv6Net::new_assert(address, 48))
}

/// Returns the serial number of a CA, which encodes its network: a 1 followed by the network's
/// bits.
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

/// Returns a random serial number of 127 bits. The highest bit is set, so that its DER and hex forms have no leading
/// zeros.
pub(crate) fn random_serial() -> Result<[u8; 16], PkiError> {
    let [first, other @ ..] = random::<16>()?;
    let mut serial = [first & 0x3f | 0x40; 16];
    if let Some(tail) = serial.get_mut(1..) {
        tail.copy_from_slice(&other);
    }
    Ok(serial)
}

/// Returns a function that turns an error of rcgen into the error that `what` could not be created.
pub(crate) fn make(what: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |source| PkiError::Make { what, source }
}

/// Converts a certificate from DER to PEM.
pub(crate) fn to_pem(der: &[u8]) -> String {
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", der), lines)
}

/// Returns the parameters of a certificate that may sign nothing.
pub(crate) fn params(
    name: &str,
    now: UnixSeconds,
    not_after: UnixSeconds,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = calendar_time(now.saturating_sub_s(BACKDATE_S))?;
    params.not_after = calendar_time(not_after)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn calendar_time(moment: UnixSeconds) -> Result<OffsetDateTime, PkiError> {
    moment.to_utc().ok_or(PkiError::Time { moment })
}

/// Returns the parameters of a CA that allows so many CAs below it.
pub(super) fn ca_with_path_length(
    name: &str,
    path_length: u8,
    now: UnixSeconds,
    not_after: UnixSeconds,
) -> Result<CertificateParams, PkiError> {
    let mut ca = params(name, now, not_after)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(ca)
}

/// Returns the parameters of a self-signed CA. Its name contains the version, except for the first one.
pub(super) fn ca_params(
    network: Ipv6Net,
    version: u32,
    now: UnixSeconds,
) -> Result<CertificateParams, PkiError> {
    let name = match version {
        0 | 1 => format!("warren {network}"),
        later => format!("warren {network} {later}"),
    };
    let mut ca = ca_with_path_length(&name, 0, now, now.saturating_add_s(CA_LIFE_S))?;
    ca.serial_number = Some(serial_of_network(network));
    Ok(ca)
}

/// Returns the parameters of an offline root.
pub(crate) fn root_params(
    network: Ipv6Net,
    now: UnixSeconds,
) -> Result<CertificateParams, PkiError> {
    let mut root = ca_with_path_length(
        &format!("warren {network} root"),
        1,
        now,
        now.saturating_add_s(ROOT_LIFE_S),
    )?;
    root.serial_number = Some(serial_of_network(network));
    Ok(root)
}

/// Returns the parameters of a CA below a root.
pub(crate) fn online_ca_params(
    network: Ipv6Net,
    now: UnixSeconds,
    not_after: UnixSeconds,
) -> Result<CertificateParams, PkiError> {
    ca_with_path_length(&format!("warren {network} online"), 0, now, not_after)
}

/// Returns the network that the serial number of a trusted CA encodes.
pub(super) fn network_of_serial(serial: &[u8]) -> Option<Network> {
    let number = serial.iter().try_fold(0u128, |number, byte| {
        (number >> 120 == 0).then_some(number << 8 | u128::from(*byte))
    })?;
    let length = 127u32.checked_sub(number.leading_zeros())?;
    let bits = number ^ 1 << length;
    let address = std::net::Ipv6Addr::from_bits(bits.checked_shl(128 - length)?);
    Network::new(Ipv6Net::new(address, u8::try_from(length).ok()?).ok()?)
}

/// The parts of a CA's or a signer's certificate that are used.
pub(crate) struct Parsed {
    pub(crate) der: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) not_after: UnixSeconds,
    /// The subject in DER.
    pub(crate) subject: Vec<u8>,
    serial: Vec<u8>,
}

impl Parsed {
    pub(crate) fn read(pem: &str, what: &'static str) -> Result<Self, PkiError> {
        let bad = || PkiError::Stored { what };
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| bad())?;
        let certificate = block.parse_x509().map_err(|_| bad())?;
        Ok(Self {
            spki: certificate.public_key().raw.to_vec(),
            serial: certificate.raw_serial().to_vec(),
            subject: certificate.subject().as_raw().to_vec(),
            not_after: UnixSeconds(certificate.validity().not_after.timestamp()),
            der: block.contents.clone(),
        })
    }

    /// Returns the network of a trusted CA.
    pub(crate) fn network(&self) -> Option<Network> {
        network_of_serial(&self.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_number_of_a_ca_encodes_its_network() {
        for network in [
            "fd12:3456:789a::/48",
            "2001:db8::/32",
            "2000::/16",
            "fd00:0:0:1::/64",
            "fd80::/17",
        ] {
            let expected = Network::new(network.parse().unwrap());
            let serial = serial_of_network(network.parse().unwrap());
            assert_eq!(network_of_serial(&serial.to_bytes()), expected, "{network}");
        }
        assert_eq!(
            serial_of_network("2001:db8:42::/48".parse().unwrap()).to_string(),
            "01:20:01:0d:b8:00:42"
        );
        assert_eq!(network_of_serial(&[]), None);
        assert_eq!(network_of_serial(&[0]), None);
        assert_eq!(network_of_serial(&[0xff; 16]), None);
        assert_eq!(network_of_serial(&[0xff; 20]), None);
    }
}
