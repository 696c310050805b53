//! A CA with its key: signs certificates whose issuer is the subject of the CA, octet by octet.
//!
//! rcgen rebuilds a name from its attributes: it keeps one attribute of a type and reads no multi-valued ones, so that a
//! verifier would not recognise the CA by the name that results. So rcgen composes a certificate with a name of its own;
//! here the name is replaced by that of the CA, and the certificate is signed.

use super::{
    PkiError,
    certificates::{make, to_pem},
    der::{BIT_STRING, SEQUENCE, encode, sequence},
    private_key::{read_key, unusable_key},
};
use rcgen::{
    CertificateParams, Error, Issuer, KeyIdMethod, KeyPair, PublicKeyData, SignatureAlgorithm,
    SigningKey,
};
use wire::chain::CERTIFICATE_LIMIT;
use x509_parser::{
    extensions::ParsedExtension,
    prelude::{FromDer, X509Certificate},
};

/// The position of the issuer among the fields of a certificate (RFC 5280, section 4.1).
const ISSUER_FIELD: usize = 3;

/// The position of the subject.
const SUBJECT_FIELD: usize = 5;

/// A public key of rcgen that signs with an empty signature, which is replaced later.
struct UnsignedBy {
    public_key: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for UnsignedBy {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for UnsignedBy {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }
}

/// Parses the certificate of a CA.
///
/// # Errors
/// It is none, or too long; the text completes "the CA cannot be used: ".
pub(super) fn parse_ca(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if der.len() <= CERTIFICATE_LIMIT => Ok(certificate),
        Ok(_) | Err(_) => Err(format!(
            "its certificate is no X.509 certificate of at most {CERTIFICATE_LIMIT} bytes"
        )),
    }
}

/// A CA that signs certificates.
pub(crate) struct CertificateIssuer {
    key: KeyPair,
    composer: Issuer<'static, UnsignedBy>,
    /// The subject of the CA's certificate, in DER.
    subject: Vec<u8>,
}

impl CertificateIssuer {
    /// Reads the certificate (PEM) and the key (PEM) of a CA.
    ///
    /// # Errors
    /// The certificate or the key cannot be read.
    pub(crate) fn load(certificate: &str, key: &str) -> Result<Self, PkiError> {
        Self::new(certificate, read_key(key).map_err(unusable_key)?)
    }

    /// Reads the certificate (PEM) of the CA that has this key.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub(crate) fn new(certificate: &str, key: KeyPair) -> Result<Self, PkiError> {
        let unusable = |why| PkiError::UnusableCa { why };
        let block = x509_parser::pem::parse_x509_pem(certificate.as_bytes());
        let (_, block) = block.map_err(|_| unusable("its certificate is not in PEM".to_owned()))?;
        let ca = parse_ca(&block.contents).map_err(unusable)?;
        let key_identifier = ca.extensions().iter().find_map(|extension| {
            if let ParsedExtension::SubjectKeyIdentifier(identifier) = extension.parsed_extension()
            {
                Some(identifier.0.to_vec())
            } else {
                None
            }
        });
        let mut params = CertificateParams::default();
        if let Some(identifier) = key_identifier {
            params.key_identifier_method = KeyIdMethod::PreSpecified(identifier);
        }
        let composer = Issuer::new(
            params,
            UnsignedBy {
                public_key: key.der_bytes().to_vec(),
                algorithm: key.algorithm(),
            },
        );
        let subject = ca.subject().as_raw().to_vec();
        Ok(Self {
            key,
            composer,
            subject,
        })
    }

    /// Returns the key of the CA in PKCS #8, in PEM.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Returns the `SubjectPublicKeyInfo` of the CA's key in DER.
    pub(crate) fn spki(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// Signs a certificate for a public key; returns it in PEM.
    ///
    /// # Errors
    /// The certificate cannot be created; `what` names it.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        public_key: &impl PublicKeyData,
        what: &'static str,
    ) -> Result<String, PkiError> {
        self.sign_with_subject(params, None, public_key, what)
    }

    /// Signs a certificate like [`Self::sign`], with this subject (DER) in place of the one in the parameters.
    ///
    /// # Errors
    /// The certificate cannot be created; `what` names it.
    pub(crate) fn sign_with_subject(
        &self,
        params: &CertificateParams,
        subject: Option<&[u8]>,
        public_key: &impl PublicKeyData,
        what: &'static str,
    ) -> Result<String, PkiError> {
        let composed = params
            .signed_by(public_key, &self.composer)
            .map_err(make(what))?;
        let signed = self.replace_names_and_sign(composed.der(), subject);
        let der = signed
            .ok_or(Error::CouldNotParseCertificate)
            .flatten()
            .map_err(make(what))?;
        Ok(to_pem(&der))
    }

    /// Replaces the names in a certificate (DER), and signs it; `None` if it cannot be parsed.
    fn replace_names_and_sign(
        &self,
        composed: &[u8],
        subject: Option<&[u8]>,
    ) -> Option<Result<Vec<u8>, Error>> {
        let certificate = sequence(composed)?;
        let [content, algorithm, _] = certificate.as_slice() else {
            return None;
        };
        let fields = sequence(content.encoded)?;
        let replaced: Vec<&[u8]> = fields
            .iter()
            .enumerate()
            .map(|(place, field)| match place {
                ISSUER_FIELD => &self.subject,
                SUBJECT_FIELD => subject.unwrap_or(field.encoded),
                _ => field.encoded,
            })
            .collect();
        let content = encode(SEQUENCE, &replaced);
        let signed = self.key.sign(&content).map(|signature| {
            let signature = encode(BIT_STRING, &[&[0], &signature]);
            encode(SEQUENCE, &[&content, algorithm.encoded, &signature])
        });
        Some(signed)
    }
}
