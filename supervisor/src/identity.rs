//! Reads who this node is: certificate, CA, key, and the network's signed parameters.

use crate::errors::StartError;
use config::paths::Paths;
use policies::names::Prefix;
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{fs, path::Path};
use wire::{
    chain,
    overlay::Network,
    registry::NetworkDocument,
    signed::{self, SignedDocument},
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The identity of this node, read from its files.
pub struct Identity {
    /// The prefix of the node, from its certificate.
    pub me: Prefix,
    /// The network's address plan.
    pub network: Network,
    /// The network's parameters and keys.
    pub document: NetworkDocument,
    /// The document as it was signed, to be passed on.
    pub signed: SignedDocument,
    /// The certificates of the network's CA, DER: two while it is exchanged.
    pub cas: Vec<CertificateDer<'static>>,
    /// Serial number of the node's certificate, hex.
    pub serial: String,
    /// The request (PEM) with which the certificate is renewed: the same key.
    pub request: String,
    /// End of the certificate's life, seconds since 1970.
    pub expires_s: i64,
    /// The same for people. It may be past: [`renew_expired`](crate::renew_expired) sees to that.
    pub expires: String,
}

fn wrong(path: &Path, why: impl Into<String>) -> StartError {
    StartError::Identity {
        path: path.to_owned(),
        why: why.into(),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let bad = |error| {
        wrong(
            path,
            format!("no PEM certificates ({error}): run warren join, or put it back"),
        )
    };
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(bad)?
        .collect::<Result<_, _>>()
        .map_err(bad)?;
    if all.is_empty() {
        Err(wrong(path, "no PEM certificate in it"))
    } else {
        Ok(all)
    }
}

impl Identity {
    /// Reads and checks all files below `paths`.
    ///
    /// # Errors
    ///
    /// Names the file and what is wrong with it.
    pub fn read(paths: &Paths) -> Result<Self, StartError> {
        let (ca_path, path) = (paths.ca(), paths.certificate());
        let cas = certificates(&ca_path)?;
        let chain = certificates(&path)?;
        chain::verify(&chain, &cas, None).map_err(|error| {
            let why = format!(
                "{error} ({} names the nodes): join this network",
                ca_path.display()
            );
            wrong(&path, why)
        })?;
        let parsed = chain
            .first()
            .and_then(|der| X509Certificate::from_der(der).ok());
        let (_, parsed) = parsed.ok_or_else(|| wrong(&path, "the certificate is malformed"))?;
        let me = subject(&parsed)
            .ok_or_else(|| wrong(&path, "its subject is not exactly one common name P/L"))?;
        let expires_s = parsed.validity().not_after.timestamp();
        let expires = parsed.validity().not_after.to_string();
        let key = paths.key();
        let pem = fs::read_to_string(&key).map_err(|error| error.to_string());
        let pair = pem.and_then(|pem| KeyPair::from_pem(&pem).map_err(|error| error.to_string()));
        let pair = pair.map_err(|error| {
            wrong(
                &key,
                format!("no PEM private key ({error}): run warren join, or put it back"),
            )
        })?;
        let request = crate::join::csr(&pair).map_err(|error| wrong(&key, error.to_string()))?;
        let (document, signed) = network_document(paths, &cas)?;
        let serial = parsed.raw_serial_as_string().replace(':', "");
        let network = document
            .range()
            .ok_or_else(|| wrong(&paths.network(), "the network's range is none"))?;
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

/// Exactly one common name and nothing else but an optional serialNumber.
fn subject(certificate: &X509Certificate<'_>) -> Option<Prefix> {
    let mut names = certificate.subject().iter_common_name();
    let (name, second) = (names.next()?, names.next());
    if second.is_some() {
        return None;
    }
    name.as_str().ok()?.parse().ok()
}

fn network_document(
    paths: &Paths,
    cas: &[CertificateDer<'_>],
) -> Result<(NetworkDocument, SignedDocument), StartError> {
    let path = paths.network();
    let text = fs::read_to_string(&path)
        .map_err(|error| wrong(&path, format!("cannot be read ({error}): run warren join")))?;
    let signed: SignedDocument = serde_json::from_str(&text)
        .map_err(|error| wrong(&path, format!("no signed document: {error}")))?;
    let opened = signed::open(&signed, cas).map_err(|error| wrong(&path, error.to_string()))?;
    let document =
        NetworkDocument::read(&opened.payload).map_err(|error| wrong(&path, error.to_string()))?;
    Ok((document, signed))
}
