//! Reads a certificate request, of which nothing but the public key is used.
//!
//! The checks are: size, PEM, DER, type of the key, signature. The cheap ones come first, so that bad requests cost
//! little. Subject, extensions and attributes are ignored.

use ring::digest;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA256WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256, Oid,
    },
    pem::Pem,
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

/// Largest size of a request in PEM, in bytes.
const PEM_LIMIT: usize = 4096;

/// A public key (ECDSA on P-256, or RSA) whose owner has proved possession of the private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenKey {
    /// The `SubjectPublicKeyInfo` in DER.
    pub spki: Vec<u8>,
}

impl ProvenKey {
    /// Returns SHA-256 of the SPKI, by which keys are compared and blocked.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.spki)
    }
}

/// Returns SHA-256 of the bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The reason why a certificate request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// The request has more than 4 KiB.
    #[error("a certificate request has at most {PEM_LIMIT} bytes")]
    TooLong,
    /// The text is not one PEM block `CERTIFICATE REQUEST`.
    #[error("not a certificate request in PEM")]
    NoPem,
    /// The block is not PKCS #10.
    #[error("not a certificate request of PKCS #10")]
    NoDer,
    /// The key has an unsupported type, size or exponent.
    #[error(
        "the key is neither an ECDSA key on P-256 nor an RSA key of 2048 to 4096 bits with e = 65537"
    )]
    KeyClass,
    /// The request is not signed with SHA-256 by its own key.
    #[error("the request is not signed with its own key and SHA-256")]
    Signature,
}

/// Checks a request in PEM, and returns its public key.
///
/// # Errors
/// The first check that fails.
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
    let signature = signature_algorithm_for(key).ok_or(BadRequest::KeyClass)?;
    if request.signature_algorithm.algorithm != signature || request.verify_signature().is_err() {
        return Err(BadRequest::Signature);
    }
    Ok(ProvenKey {
        spki: key.raw.to_vec(),
    })
}

/// Returns the signature algorithm that belongs to a key; `None` if the key is not supported.
fn signature_algorithm_for(key: &SubjectPublicKeyInfo<'_>) -> Option<Oid<'static>> {
    match key.parsed().ok()? {
        PublicKey::EC(_) if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            let point = &key.subject_public_key.data;
            let uncompressed = point.len() == 65 && point.first() == Some(&4);
            (curve == OID_EC_P256 && uncompressed).then_some(OID_SIG_ECDSA_WITH_SHA256)
        }
        // For nodes whose key comes from an older network.
        PublicKey::RSA(rsa) if key.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION => {
            let zeros = rsa.modulus.iter().take_while(|byte| **byte == 0).count();
            let modulus = rsa.modulus.get(zeros..)?;
            let bits =
                modulus.len() * 8 - usize::try_from(modulus.first()?.leading_zeros()).ok()?;
            let good =
                zeros <= 1 && (2048..=4096).contains(&bits) && rsa.try_exponent().ok()? == 65_537;
            good.then_some(OID_PKCS1_SHA256WITHRSA)
        }
        PublicKey::EC(_)
        | PublicKey::RSA(_)
        | PublicKey::DSA(_)
        | PublicKey::GostR3410(_)
        | PublicKey::GostR3410_2012(_)
        | PublicKey::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn request(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap()
    }

    #[track_caller]
    fn check(pem: &str, expected: Result<(), BadRequest>) {
        assert_eq!(read(pem).map(|_| ()), expected);
    }

    #[test]
    fn a_request_with_a_key_on_p_256_is_accepted() {
        check(&request(&rcgen::PKCS_ECDSA_P256_SHA256), Ok(()));
    }

    #[test]
    fn keys_of_other_types_are_rejected() {
        check(
            &request(&rcgen::PKCS_ECDSA_P384_SHA384),
            Err(BadRequest::KeyClass),
        );
        check(&request(&rcgen::PKCS_ED25519), Err(BadRequest::KeyClass));
    }

    #[test]
    fn rsa_keys_are_accepted_by_size_and_exponent() {
        for (bits, exponent, expected) in [
            (1024, 65_537, Err(BadRequest::KeyClass)),
            (2048, 65_537, Ok(())),
            (2048, 3, Err(BadRequest::KeyClass)),
            (4096, 65_537, Ok(())),
            (4104, 65_537, Err(BadRequest::KeyClass)),
        ] {
            #[expect(
                clippy::disallowed_methods,
                reason = "nothing else here makes keys of RSA"
            )]
            let made = std::process::Command::new("openssl")
                .args([
                    "req",
                    "-new",
                    "-newkey",
                    &format!("rsa:{bits}"),
                    "-nodes",
                    "-keyout",
                    "/dev/null",
                ])
                .args([
                    "-pkeyopt",
                    &format!("rsa_keygen_pubexp:{exponent}"),
                    "-subj",
                    "/CN=x",
                    "-sha256",
                ])
                .output()
                .unwrap();
            assert!(
                made.status.success(),
                "{}",
                String::from_utf8_lossy(&made.stderr)
            );
            check(&String::from_utf8(made.stdout).unwrap(), expected);
        }
    }

    #[test]
    fn a_malformed_request_is_rejected_by_the_first_check_that_it_fails() {
        let good = request(&rcgen::PKCS_ECDSA_P256_SHA256);
        check("", Err(BadRequest::NoPem));
        check(&format!("{good}{good}"), Err(BadRequest::NoPem));
        check(
            &good.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
            Err(BadRequest::NoPem),
        );
        check(&"x".repeat(PEM_LIMIT + 1), Err(BadRequest::TooLong));
        check(
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            Err(BadRequest::NoDer),
        );
    }

    #[test]
    fn a_request_with_a_changed_byte_is_rejected_or_has_the_same_key() {
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
