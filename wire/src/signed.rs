//! Documents that the network's registry signed and anybody may pass on.
//!
//! A mirror can withhold them, but neither change them nor, since each holds a version that only
//! grows, bring back an old one to who saw a newer. The signing key is certified by the CA for
//! this and nothing else: common name [`SIGNER_NAME`], extended key usage code signing alone, so
//! that no node's and no server's certificate will do.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{digest, signature};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Common name of the certificate that signs documents; no node can have it (`P/L`).
pub const SIGNER_NAME: &str = "warren-metadata";

/// Most bytes of a payload.
pub const PAYLOAD_LIMIT: usize = 1024 * 1024;

/// Most bytes of a certificate in DER.
const CERTIFICATE_LIMIT: usize = 4096;

/// A payload with its signature, self-contained: who has the CA can verify it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedDocument {
    /// Version of this envelope, 1. The payload holds its own, which grows.
    pub version: u32,
    /// Base64 of the payload's bytes, which are JSON.
    pub payload: String,
    /// SHA-256 of the signing key's SPKI, in hex.
    pub key_id: String,
    /// Base64 of the signing key's certificate (DER).
    pub certificate: String,
    /// Base64 of the signature: ECDSA P-256 with SHA-256, ASN.1, over the payload's bytes.
    pub signature: String,
    /// The same by the signer of another CA, while the network's CA is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<OtherSignature>,
}

/// A second signature over the same payload; the fields are those of [`SignedDocument`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "said at `SignedDocument`")]
pub struct OtherSignature {
    pub key_id: String,
    pub certificate: String,
    pub signature: String,
}

/// Why a signed document is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// An envelope of another version.
    #[error("signed document has version {version}, not 1")]
    Version {
        /// What it says.
        version: u32,
    },
    /// A field is no base64, or too long.
    #[error("signed document: {field} is no base64 of at most {limit} bytes")]
    Field {
        /// Which.
        field: &'static str,
        /// In bytes.
        limit: usize,
    },
    /// The CA or the signer is no certificate.
    #[error("{which} is no X.509 certificate")]
    NoCertificate {
        /// "the CA" or "the signer".
        which: &'static str,
    },
    /// The signer's certificate is not one for signing documents, or not the CA's.
    #[error("the signer's certificate is not good: {why}")]
    Signer {
        /// In words.
        why: &'static str,
    },
    /// The signature does not fit the payload.
    #[error("the signature does not fit the payload")]
    Signature,
}

/// Encodes an envelope around a payload that was signed elsewhere.
pub fn seal(payload: &[u8], certificate_der: &[u8], spki_der: &[u8], signature: &[u8]) -> SignedDocument {
    SignedDocument {
        version: 1,
        payload: STANDARD.encode(payload),
        key_id: sha256_hex(spki_der),
        certificate: STANDARD.encode(certificate_der),
        signature: STANDARD.encode(signature),
        other: None,
    }
}

/// The payload of a document, once its signature and its signer's certificate are verified against
/// the network's CA (DER).
///
/// Time is not looked at: a document is replaced by a newer version, it does not expire, and a node
/// whose clock is wrong must still read it.
///
/// # Errors
/// Says which part is not to be believed.
pub fn open(document: &SignedDocument, ca_der: &[u8]) -> Result<Vec<u8>, SignedError> {
    open_any(document, &[ca_der])
}

/// As [`open`], against several CAs: one that signed is enough.
///
/// # Errors
/// Says which part is not to be believed, of the first signature against the first CA.
pub fn open_any<T: AsRef<[u8]>>(document: &SignedDocument, cas: &[T]) -> Result<Vec<u8>, SignedError> {
    if document.version != 1 {
        return Err(SignedError::Version { version: document.version });
    }
    let payload = decode("payload", &document.payload, PAYLOAD_LIMIT)?;
    let SignedDocument { key_id, certificate, signature, .. } = document;
    let other = document.other.as_ref();
    let signatures = std::iter::once((key_id, certificate, signature))
        .chain(other.map(|other| (&other.key_id, &other.certificate, &other.signature)));
    let mut first = None;
    for (key_id, certificate, signature) in signatures {
        for ca in cas {
            match verify(&payload, key_id, certificate, signature, ca.as_ref()) {
                Ok(()) => return Ok(payload),
                Err(error) => first = first.or(Some(error)),
            }
        }
    }
    Err(first.unwrap_or(SignedError::NoCertificate { which: "the CA" }))
}

fn verify(
    payload: &[u8],
    key_id: &str,
    certificate: &str,
    signature: &str,
    ca_der: &[u8],
) -> Result<(), SignedError> {
    let certificate = decode("certificate", certificate, CERTIFICATE_LIMIT)?;
    let signature = decode("signature", signature, 128)?;
    let (_, ca) =
        X509Certificate::from_der(ca_der).map_err(|_| SignedError::NoCertificate { which: "the CA" })?;
    let signer = match X509Certificate::from_der(&certificate) {
        Ok(([], signer)) => signer,
        Ok(_) | Err(_) => return Err(SignedError::NoCertificate { which: "the signer" }),
    };
    check_signer(&signer, &ca)?;
    if sha256_hex(signer.public_key().raw) != key_id {
        return Err(SignedError::Signer { why: "it is not the key that key_id names" });
    }
    let point = &signer.public_key().subject_public_key.data;
    signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point)
        .verify(payload, &signature)
        .map_err(|_| SignedError::Signature)
}

fn check_signer(signer: &X509Certificate<'_>, ca: &X509Certificate<'_>) -> Result<(), SignedError> {
    let bad = |why| Err(SignedError::Signer { why });
    if signer.issuer().as_raw() != ca.subject().as_raw() {
        return bad("its issuer is not the network's CA");
    }
    if signer.verify_signature(Some(ca.public_key())).is_err() {
        return bad("the network's CA did not sign it");
    }
    let mut names = signer.subject().iter_common_name().map(|name| name.as_str());
    if !matches!((names.next(), names.next()), (Some(Ok(SIGNER_NAME)), None)) {
        return bad("its common name is not that of a signer");
    }
    match signer.extended_key_usage() {
        Ok(Some(usage)) if usage.value.code_signing && !usage.value.any => {}
        Ok(_) | Err(_) => return bad("it is not for signing documents"),
    }
    match signer.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca => bad("it is a CA"),
        Ok(_) => Ok(()),
        Err(_) => bad("its constraints cannot be read"),
    }
}

fn decode(field: &'static str, text: &str, limit: usize) -> Result<Vec<u8>, SignedError> {
    let bad = SignedError::Field { field, limit };
    // Four characters carry three bytes.
    if text.len() / 4 * 3 > limit + 3 {
        return Err(bad);
    }
    STANDARD.decode(text).map_err(|_| bad)
}

/// Serial number of a certificate in PEM, lower-case hex; `None` where it is none.
pub fn serial_of_pem(pem: &str) -> Option<String> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = block.parse_x509().ok()?;
    Some(hex(certificate.raw_serial()))
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
