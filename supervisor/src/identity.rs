//! Reads the identity of this node: its certificate, CA and key, and the signed network document.

use crate::errors::StartError;
use config::paths::Paths;
use membership::{
    certificate::MAX_CREDENTIAL_BYTES, credentials::NodeCredentials, documents::MAX_DOCUMENT_BYTES,
};
use policies::names::Prefix;
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::path::{Path, PathBuf};
use wire::{
    chain,
    overlay::Network,
    registry::NetworkDocument,
    signed::{self, SignedDocument},
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The identity of this node, read from its files.
pub struct NodeIdentity {
    /// The prefix of the node, from its certificate.
    pub me: Prefix,
    /// The network, which maps prefixes to addresses.
    pub network: Network,
    /// The network document: parameters and keys.
    pub document: NetworkDocument,
    /// The network document with its signature, in which form it is passed on to other nodes.
    pub signed: SignedDocument,
    /// The certificates of the network's CAs, DER; there are two while the CA is replaced.
    pub cas: Vec<CertificateDer<'static>>,
    /// The serial number of the node's certificate, hexadecimal.
    pub serial: String,
    /// The certificate request (PEM) for renewals; it is for the same key.
    pub request: String,
    /// When the certificate expires, in seconds since 1970. This may have passed;
    /// [`renew_expired`](crate::renew_expired) renews it then.
    pub expires_s: i64,
    /// When the certificate expires, as text.
    pub expires: String,
}

pub(crate) fn identity_error(path: &Path, why: impl Into<String>) -> StartError {
    StartError::Identity {
        path: path.to_owned(),
        why: why.into(),
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let error_for = |error: String| {
        identity_error(
            path,
            format!(
                "no PEM certificates ({error}): put it back, or join again with an invitation: warren join --replace -"
            ),
        )
    };
    let pem =
        files::read(path, MAX_CREDENTIAL_BYTES).map_err(|error| error_for(error.to_string()))?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| error_for(error.to_string()))?;
    if all.is_empty() {
        Err(identity_error(path, "no PEM certificate in it"))
    } else {
        Ok(all)
    }
}

/// Reads certificate and key for TLS.
///
/// # Errors
/// A file is missing or malformed.
pub(crate) fn read_credentials(paths: &Paths) -> Result<NodeCredentials, StartError> {
    let read = |path: PathBuf| {
        files::read(&path, MAX_CREDENTIAL_BYTES).map_err(|source| StartError::Folder {
            path: path.clone(),
            source,
        })
    };
    Ok(NodeCredentials::from_pem(
        &read(paths.ca())?,
        &read(paths.certificate())?,
        &read(paths.key())?,
    )?)
}

/// Reads the certificates of the network's CAs.
///
/// # Errors
/// The file is missing or holds no certificate.
pub(crate) fn read_cas(paths: &Paths) -> Result<Vec<CertificateDer<'static>>, StartError> {
    read_certificates(&paths.ca())
}

/// Reads the node's certificate with its chain.
///
/// # Errors
/// The file is missing or malformed, or none of `cas` signed the certificate.
pub(crate) fn read_chain(
    paths: &Paths,
    cas: &[CertificateDer<'_>],
) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let path = paths.certificate();
    let chain = read_certificates(&path)?;
    chain::verify(&chain, cas, None).map_err(|error| {
        let why = format!(
            "{error} ({} names the nodes): join this network: warren join --replace -",
            paths.ca().display()
        );
        identity_error(&path, why)
    })?;
    Ok(chain)
}

impl NodeIdentity {
    /// Reads and checks all files below `paths`.
    ///
    /// # Errors
    ///
    /// A file is missing or wrong; the error names it and the fault.
    pub fn read(paths: &Paths) -> Result<Self, StartError> {
        let path = paths.certificate();
        let cas = read_cas(paths)?;
        let chain = read_chain(paths, &cas)?;
        let parsed = chain
            .first()
            .and_then(|der| X509Certificate::from_der(der).ok());
        let (_, parsed) =
            parsed.ok_or_else(|| identity_error(&path, "the certificate is malformed"))?;
        let me = subject_prefix(&parsed).ok_or_else(|| {
            identity_error(&path, "its subject is not exactly one common name P/L")
        })?;
        let expires_s = parsed.validity().not_after.timestamp();
        let expires = parsed.validity().not_after.to_string();
        let key = paths.key();
        let pem = files::read_text(&key, MAX_CREDENTIAL_BYTES).map_err(|error| error.to_string());
        let pair = pem.and_then(|pem| KeyPair::from_pem(&pem).map_err(|error| error.to_string()));
        let pair = pair.map_err(|error| {
            identity_error(
                &key,
                format!("no PEM private key ({error}): put it back, or join again with an invitation: warren join --replace -"),
            )
        })?;
        let request =
            crate::join::csr(&pair).map_err(|error| identity_error(&key, error.to_string()))?;
        let (document, signed) = read_network_document(paths, &cas)?;
        let serial = parsed.raw_serial_as_string().replace(':', "");
        let network = document
            .range()
            .ok_or_else(|| identity_error(&paths.network(), "the network's range is none"))?;
        Ok(Self {
            me,
            network,
            document,
            signed,
            cas,
            serial,
            request,
            expires_s,
            expires,
        })
    }
}

/// Returns the prefix in the common name of a certificate; `None` if there is not exactly one common name.
fn subject_prefix(certificate: &X509Certificate<'_>) -> Option<Prefix> {
    let mut names = certificate.subject().iter_common_name();
    let (name, second) = (names.next()?, names.next());
    if second.is_some() {
        return None;
    }
    name.as_str().ok()?.parse().ok()
}

/// Reads the network document, and checks its signature.
///
/// # Errors
/// The file is missing or wrong; the error names the fault.
pub(crate) fn read_network_document(
    paths: &Paths,
    cas: &[CertificateDer<'_>],
) -> Result<(NetworkDocument, SignedDocument), StartError> {
    let path = paths.network();
    let text = files::read_text(&path, MAX_DOCUMENT_BYTES).map_err(|error| {
        identity_error(&path, format!("cannot be read ({error}): put it back, or join again with an invitation: warren join --replace -"))
    })?;
    let signed: SignedDocument = serde_json::from_str(&text)
        .map_err(|error| identity_error(&path, format!("no signed document: {error}")))?;
    let opened =
        signed::open(&signed, cas).map_err(|error| identity_error(&path, error.to_string()))?;
    let document = NetworkDocument::read(&opened.payload)
        .map_err(|error| identity_error(&path, error.to_string()))?;
    Ok((document, signed))
}
