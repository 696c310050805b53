//! Reads private keys of CAs in the forms that other programs write: PKCS #8 (RFC 5208), PKCS #1 (RFC 8017) and SEC 1
//! (RFC 5915).

use super::{
    PkiError,
    der::{CONTEXT_0, OCTET_STRING, SEQUENCE, elements, encode, sequence},
};
use rcgen::KeyPair;

/// The algorithm identifier of an RSA key: `rsaEncryption`, and NULL.
const RSA: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// The object identifier `id-ecPublicKey`.
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// The object identifier of the curve P-256, and the length of its private keys in octets.
const P_256: (&[u8], usize) = (
    &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
    32,
);

/// The object identifier of the curve P-384, and the length of its private keys in octets.
const P_384: (&[u8], usize) = (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], 48);

/// The number 0, which is the version of PKCS #8.
const VERSION_0: &[u8] = &[0x02, 0x01, 0x00];

/// The fault of a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// There is no such block of PEM.
    #[error("it holds no private key in PEM")]
    NoPem,
    /// The key has a passphrase.
    #[error("its key is encrypted: decrypt it, for example with `openssl pkey`")]
    Encrypted,
    /// The key cannot be read, or no signer of ours supports it.
    #[error(
        "its key is none of ECDSA on P-256 or P-384, RSA of 2048 to 4096 bits, and Ed25519 that can be read"
    )]
    Unsupported,
}

/// Returns the error about a CA whose key has this fault.
pub(crate) fn unusable_key(fault: BadKey) -> PkiError {
    PkiError::UnusableCa {
        why: fault.to_string(),
    }
}

/// Reads the first private key of a text in PEM; other blocks, such as the parameters of a curve, are skipped.
pub(crate) fn read_key(text: &str) -> Result<KeyPair, BadKey> {
    let blocks = pem::parse_many(text).map_err(|_| BadKey::NoPem)?;
    let block = blocks
        .iter()
        .find(|block| block.tag().ends_with("PRIVATE KEY"));
    let block = block.ok_or(BadKey::NoPem)?;
    if block.tag() == "ENCRYPTED PRIVATE KEY" || block.headers().get("Proc-Type").is_some() {
        return Err(BadKey::Encrypted);
    }
    let pkcs8 = match block.tag() {
        "RSA PRIVATE KEY" => Some(wrap(RSA, block.contents())),
        "EC PRIVATE KEY" => wrap_ec(block.contents()),
        _ => Some(block.contents().to_vec()),
    };
    KeyPair::try_from(pkcs8.ok_or(BadKey::Unsupported)?).map_err(|_| BadKey::Unsupported)
}

/// Wraps a key of this algorithm in PKCS #8.
fn wrap(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let key = encode(OCTET_STRING, &[key]);
    encode(SEQUENCE, &[VERSION_0, algorithm, &key])
}

/// Wraps a key of SEC 1 in PKCS #8. The curve moves from the key to the algorithm.
fn wrap_ec(key: &[u8]) -> Option<Vec<u8>> {
    let fields = sequence(key)?;
    let named = fields.iter().find(|field| field.tag == CONTEXT_0);
    let curve = match named {
        Some(named) => elements(named.content)?.first()?.encoded,
        None => {
            let length = fields.get(1)?.content.len();
            let curve = [P_256, P_384]
                .into_iter()
                .find(|(_, octets)| *octets == length);
            curve?.0
        }
    };
    let algorithm = encode(SEQUENCE, &[EC_PUBLIC_KEY, curve]);
    let rest: Vec<&[u8]> = fields
        .iter()
        .filter(|field| field.tag != CONTEXT_0)
        .map(|field| field.encoded)
        .collect();
    Some(wrap(&algorithm, &encode(SEQUENCE, &rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "nothing else here makes keys of these forms"
    )]
    fn openssl(arguments: &str) -> String {
        let made = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .output()
            .unwrap();
        assert!(made.status.success(), "openssl {arguments}");
        String::from_utf8(made.stdout).unwrap()
    }

    #[track_caller]
    fn check(arguments: &str, label: &str, expected: Result<&rcgen::SignatureAlgorithm, BadKey>) {
        let text = openssl(arguments);
        assert!(text.contains(&format!("BEGIN {label}-----")), "{text}");
        let algorithm = read_key(&text).map(|key| {
            // The key is stored in the form that all other code reads.
            assert!(KeyPair::from_pem(&key.serialize_pem()).is_ok());
            rcgen::PublicKeyData::algorithm(&key)
        });
        assert_eq!(algorithm, expected, "openssl {arguments}");
    }

    #[test]
    fn keys_are_read_in_each_form_that_openssl_writes() {
        let (p256, p384) = (
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
        );
        check(
            "genrsa -traditional 2048",
            "RSA PRIVATE KEY",
            Ok(&rcgen::PKCS_RSA_SHA256),
        );
        check(
            "genrsa -traditional 4096",
            "RSA PRIVATE KEY",
            Ok(&rcgen::PKCS_RSA_SHA256),
        );
        check("genrsa 2048", "PRIVATE KEY", Ok(&rcgen::PKCS_RSA_SHA256));
        check(
            "ecparam -name prime256v1 -genkey",
            "EC PRIVATE KEY",
            Ok(p256),
        );
        check(
            "ecparam -name prime256v1 -genkey -noout",
            "EC PRIVATE KEY",
            Ok(p256),
        );
        check(
            "ecparam -name secp384r1 -genkey -noout",
            "EC PRIVATE KEY",
            Ok(p384),
        );
        check(
            "genpkey -algorithm ed25519",
            "PRIVATE KEY",
            Ok(&rcgen::PKCS_ED25519),
        );
    }

    #[test]
    fn a_key_that_is_encrypted_or_of_another_kind_is_named() {
        check(
            "genrsa -traditional -aes128 -passout pass:secret 2048",
            "RSA PRIVATE KEY",
            Err(BadKey::Encrypted),
        );
        check(
            "genpkey -algorithm ed25519 -aes128 -pass pass:secret",
            "ENCRYPTED PRIVATE KEY",
            Err(BadKey::Encrypted),
        );
        check(
            "genrsa -traditional 1024",
            "RSA PRIVATE KEY",
            Err(BadKey::Unsupported),
        );
        check(
            "ecparam -name secp521r1 -genkey -noout",
            "EC PRIVATE KEY",
            Err(BadKey::Unsupported),
        );
        assert_eq!(read_key("").err(), Some(BadKey::NoPem));
        assert_eq!(read_key("letters\n").err(), Some(BadKey::NoPem));
        let cut = "-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(read_key(cut).err(), Some(BadKey::Unsupported));
    }
}
