//! Renews the node's certificate: requests a new one from the registry, checks it, and replaces the file.
//!
//! The caller decides when a renewal is due, and which processes restart after it.

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
    /// The registry's certificate may not replace the old one.
    #[error("the registry returned a certificate that cannot replace the present one")]
    Bad(#[from] BadCertificate),
    /// The new certificate cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
}

/// Requests a new certificate from the registry; `csr` is a certificate request (PKCS #10, PEM) for the node's key.
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

/// Checks a new certificate against the old one and the trusted CAs, and replaces the file at `path` with it.
///
/// # Errors
/// The new certificate is rejected or cannot be written; the old one stays in place.
pub fn install(
    renewed: &Renewed,
    old: &Certificate,
    cas: &[CertificateDer<'_>],
    path: &Path,
) -> Result<Certificate, RenewalError> {
    let new = old.check_successor(&renewed.certificate, cas)?;
    replace(path, renewed.certificate.as_bytes(), 0o644, None)?;
    Ok(new)
}
