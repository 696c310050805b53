//! Reads a certificate request and believes its public key alone.
//!
//! Order of checks: size, PEM, DER, class of the key, signature; the cheap ones first, so that
//! nobody makes us work. Subject, extensions and attributes are never looked at.

use ring::digest;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    pem::Pem,
    prelude::FromDer,
};

/// Most bytes of a request in PEM.
const PEM_LIMIT: usize = 4096;

/// A public key of P-256 whose owner proved to have the private one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenKey {
    /// `SubjectPublicKeyInfo` in DER.
    pub spki: Vec<u8>,
}

impl ProvenKey {
    /// SHA-256 of the SPKI: by this a key is known and barred.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.spki)
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Why a certificate request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// More than 4 KiB.
    #[error("a certificate request has at most {PEM_LIMIT} bytes")]
    TooLong,
    /// Not one PEM block `CERTIFICATE REQUEST`.
    #[error("not a certificate request in PEM")]
    NoPem,
    /// Not PKCS #10.
    #[error("not a certificate request of PKCS #10")]
    NoDer,
    /// Another kind of key.
    #[error("the key is not an ECDSA key on P-256")]
    KeyClass,
    /// Not signed with ECDSA and SHA-256 by that very key.
    #[error("the request is not signed with its own key by ECDSA with SHA-256")]
    Signature,
}

/// The public key of a request in PEM.
///
/// # Errors
/// The first check that failed.
pub fn read(pem: &str) -> Result<ProvenKey, BadRequest> {
    if pem.len() > PEM_LIMIT {
        return Err(BadRequest::TooLong);
    }
    let mut blocks = Pem::iter_from_buffer(pem.as_bytes());
    let der = match (blocks.next(), blocks.next()) {
        (Some(Ok(block)), None) if block.label == "CERTIFICATE REQUEST" => block.contents,
        (_, _) => return Err(BadRequest::NoPem),
    };
    let request = match X509CertificationRequest::from_der(&der) {
        Ok(([], request)) => request,
        Ok(_) | Err(_) => return Err(BadRequest::NoDer),
    };
    let key = &request.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let point = &key.subject_public_key.data;
    let uncompressed = point.len() == 65 && point.first() == Some(&4);
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) || !uncompressed {
        return Err(BadRequest::KeyClass);
    }
    if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
        || request.verify_signature().is_err()
    {
        return Err(BadRequest::Signature);
    }
    Ok(ProvenKey { spki: key.raw.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn request(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
    }

    #[track_caller]
    fn check(pem: &str, expected: Result<(), BadRequest>) {
        assert_eq!(read(pem).map(|_| ()), expected);
    }

    #[test]
    fn a_request_with_a_key_on_p_256_is_taken() {
        check(&request(&rcgen::PKCS_ECDSA_P256_SHA256), Ok(()));
    }

    #[test]
    fn other_keys_are_refused_by_their_class() {
        check(&request(&rcgen::PKCS_ECDSA_P384_SHA384), Err(BadRequest::KeyClass));
        check(&request(&rcgen::PKCS_ED25519), Err(BadRequest::KeyClass));
    }

    #[test]
    fn odd_bytes_are_refused_by_the_first_check_they_fail() {
        let good = request(&rcgen::PKCS_ECDSA_P256_SHA256);
        check("", Err(BadRequest::NoPem));
        check(&format!("{good}{good}"), Err(BadRequest::NoPem));
        check(&good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), Err(BadRequest::NoPem));
        check(&"x".repeat(PEM_LIMIT + 1), Err(BadRequest::TooLong));
        check(
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            Err(BadRequest::NoDer),
        );
    }

    #[test]
    fn no_changed_byte_gets_through_with_another_key() {
        let good = request(&rcgen::PKCS_ECDSA_P256_SHA256);
        let key = read(&good).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2_000 {
            let mut bytes = good.clone().into_bytes();
            let at = random.usize(37..bytes.len() - 40);
            bytes[at] = b"ABCDEFGHabcdefgh0123+/="[random.usize(..23)];
            if let Ok(read) = read(&String::from_utf8(bytes).unwrap()) {
                assert_eq!(read, key);
            }
        }
    }
}
