//! Documents that the network's registry signed and anybody may pass on.
//!
//! A mirror can withhold a document, but cannot change it. It cannot replay an old one either, because
//! versions only grow. The signing key is certified by the CA for
//! this and nothing else: common name [`SIGNER_NAME`], extended key usage code signing alone, so
//! that no node's and no server's certificate will do.

use crate::chain::{self, CERTIFICATE_LIMIT, ChainError, Issuer};
pub use crate::hex::hex;
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{digest, signature};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Common name of the certificate that signs documents; no node can have it (`P/L`).
pub const SIGNER_NAME: &str = "warren-metadata";

/// Most bytes of a payload.
pub const PAYLOAD_LIMIT: usize = 1024 * 1024;

/// A payload with its signature. It is self-contained: whoever has the CA can verify it.
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
    /// Base64 of the CA (DER) that certified the signing key, where a root stands above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Base64 of the signature: ECDSA P-256 with SHA-256, ASN.1, over the payload's bytes.
    pub signature: String,
    /// A second signature, by the signer of another CA, while the network's CA is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<OtherSignature>,
}

/// A second signature over the same payload; the fields are those of [`SignedDocument`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented at `SignedDocument`")]
pub struct OtherSignature {
    pub key_id: String,
    pub certificate: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    pub signature: String,
}

/// The reason why a signed document is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// An envelope of another version.
    #[error("signed document has version {version}, not 1")]
    Version {
        /// The version that was found.
        version: u32,
    },
    /// A field is no base64, or too long.
    #[error("signed document: {field} is no base64 of at most {limit} bytes")]
    Field {
        /// The name of the JSON field.
        field: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// No trusted CA certified the signer.
    #[error("the signer's certificate is not good: {0}")]
    Chain(ChainError),
    /// The signer's certificate is not one for signing documents.
    #[error("the signer's certificate is not good: {why}")]
    Signer {
        /// The violated rule, in words.
        why: &'static str,
    },
    /// The signature does not fit the payload.
    #[error("the signature does not fit the payload")]
    Signature,
}

/// Encodes an envelope around a payload that was signed elsewhere; the chain is the signer's certificate
/// and, where a root stands above it, that of its CA.
pub fn seal(
    payload: &[u8],
    chain: (&[u8], Option<&[u8]>),
    spki_der: &[u8],
    signature: &[u8],
) -> SignedDocument {
    SignedDocument {
        version: 1,
        payload: STANDARD.encode(payload),
        key_id: sha256_hex(spki_der),
        certificate: STANDARD.encode(chain.0),
        issuer: chain.1.map(|ca| STANDARD.encode(ca)),
        signature: STANDARD.encode(signature),
        other: None,
    }
}

/// A verified document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The signed payload.
    pub payload: Vec<u8>,
    /// The issuer of the signer's certificate.
    pub by: Issuer,
}

/// Opens a document after its signature and its signer's certificate have been verified against
/// the trusted CAs (DER). One valid signature is enough.
///
/// The time is not checked: a document is replaced by a newer version and does not expire, and a
/// node with a wrong clock must still be able to read it.
///
/// # Errors
/// Names the part of the first signature that is rejected.
pub fn open<T: AsRef<[u8]>>(document: &SignedDocument, cas: &[T]) -> Result<Opened, SignedError> {
    if document.version != 1 {
        return Err(SignedError::Version {
            version: document.version,
        });
    }
    let payload = decode("payload", &document.payload, PAYLOAD_LIMIT)?;
    let SignedDocument {
        key_id,
        certificate,
        issuer,
        signature,
        ..
    } = document;
    let first = verify(
        &payload,
        (key_id, certificate, issuer.as_deref(), signature),
        cas,
    );
    let found = match (first, &document.other) {
        (Ok(by), _) => Ok(by),
        (Err(error), None) => Err(error),
        (
            Err(error),
            Some(OtherSignature {
                key_id,
                certificate,
                issuer,
                signature,
            }),
        ) => verify(
            &payload,
            (key_id, certificate, issuer.as_deref(), signature),
            cas,
        )
        .map_err(|_| error),
    };
    found.map(|by| Opened { payload, by })
}

fn verify<T: AsRef<[u8]>>(
    payload: &[u8],
    (key_id, certificate, issuer, signature): (&str, &str, Option<&str>, &str),
    cas: &[T],
) -> Result<Issuer, SignedError> {
    let mut certificates = vec![decode("certificate", certificate, CERTIFICATE_LIMIT)?];
    if let Some(issuer) = issuer {
        certificates.push(decode("issuer", issuer, CERTIFICATE_LIMIT)?);
    }
    let signature = decode("signature", signature, 128)?;
    let by = chain::verify(&certificates, cas, None).map_err(SignedError::Chain)?;
    let bad = |why| SignedError::Signer { why };
    let signer = certificates
        .first()
        .and_then(|der| X509Certificate::from_der(der).ok());
    let (_, signer) = signer.ok_or(bad("it is none"))?;
    check_signer(&signer).map_err(bad)?;
    if sha256_hex(signer.public_key().raw) != key_id {
        return Err(bad("it is not the key that key_id names"));
    }
    let point = &signer.public_key().subject_public_key.data;
    signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point)
        .verify(payload, &signature)
        .map_err(|_| SignedError::Signature)?;
    Ok(by)
}

/// Whether the certificate is for signing documents, and for nothing else.
fn check_signer(signer: &X509Certificate<'_>) -> Result<(), &'static str> {
    let mut names = signer
        .subject()
        .iter_common_name()
        .map(|name| name.as_str());
    if !matches!((names.next(), names.next()), (Some(Ok(SIGNER_NAME)), None)) {
        return Err("its common name is not that of a signer");
    }
    match signer.extended_key_usage() {
        Ok(Some(usage)) if usage.value.code_signing && !usage.value.any => Ok(()),
        Ok(_) | Err(_) => Err("it is not for signing documents"),
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
