//! Certificates and chains: a node's identity is read in one way, and none is trusted that the CA did not sign.

use membership::credentials::read_identity;
use policies::names::Prefix;
use wire::{chain, serial, signed};

/// The CA that signed the certificates of the corpus (DER).
const CA: &[u8] = include_bytes!("../corpus/certificates/ca.der");
/// A node's certificate that it signed (DER).
const NODE: &[u8] = include_bytes!("../corpus/certificates/node.der");
/// Octets of a signature of ECDSA on P-256, with the headers in DER; the signature is the end of a certificate, and two signatures
/// can fit one certificate.
const SIGNATURE_OCTETS: usize = 76;

/// The input is a certificate in DER, or a chain in PEM.
pub fn check(input: &[u8]) {
    if let Some(identity) = read_identity(input) {
        let spelling = identity.prefix.to_string();
        assert_eq!(spelling.parse::<Prefix>().ok(), Some(identity.prefix));
        let normal = serial::normal(&identity.serial);
        assert_eq!(normal.as_ref(), Some(&identity.serial));
    }
    if chain::verify(&[input], &[CA], None).is_ok() {
        let signed = NODE.get(..NODE.len().saturating_sub(SIGNATURE_OCTETS));
        assert_eq!(
            input.get(..input.len().saturating_sub(SIGNATURE_OCTETS)),
            signed
        );
    }
    if let Ok(ca) = chain::number_of(input) {
        assert!(serial::decimal(&ca.serial).is_some());
    }
    let Ok(certificates) = chain::read_pem(input) else {
        return;
    };
    assert!(!certificates.is_empty());
    drop(chain::verify(&certificates, &[CA], None));
    if let Ok(text) = std::str::from_utf8(input) {
        signed::serial_of_pem(text);
    }
}
