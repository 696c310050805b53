//! Renews the node's certificate: asks the registry, checks the answer, and replaces the file.
//!
//! When a renewal is due, and what follows from it, is decided above.

use crate::{
    certificate::{BadCertificate, Certificate},
    documents::{FileError, replace},
    registry_api::{RegistryApiClient, RegistryApiError},
};
use reqwest::Method;
use rustls::pki_types::CertificateDer;
use std::path::Path;
use wire::registry::{Renewal, Renewed, VERSION};

/// The reason why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The registry did not answer, or rejected the request.
    #[error(transparent)]
    Call(#[from] RegistryApiError),
    /// The fresh certificate is not good.
    #[error("the registry gave a certificate that is not good")]
    Bad(#[from] BadCertificate),
    /// The fresh certificate cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
}

/// Asks the registry for a fresh certificate; `csr` is a request (PKCS #10, PEM) with the node's key.
///
/// # Errors
/// The registry did not answer, or rejected the request.
pub async fn request(
    registry: &RegistryApiClient,
    csr: String,
) -> Result<Renewed, RegistryApiError> {
    let renewal = Renewal {
        version: VERSION,
        csr,
    };
    registry
        .send::<Renewed>(Method::POST, "/v1/renewals", &renewal)
        .await
}

/// Checks a fresh certificate against the old one and the trusted CAs, and puts it in the place of
/// the file at `path`.
///
/// # Errors
/// The certificate is not good, or cannot be written; then the old one stays.
pub fn install(
    renewed: &Renewed,
    old: &Certificate,
    cas: &[CertificateDer<'_>],
    path: &Path,
) -> Result<Certificate, RenewalError> {
    let fresh = old.follows(&renewed.certificate, cas)?;
    replace(path, renewed.certificate.as_bytes(), 0o644, None)?;
    Ok(fresh)
}
