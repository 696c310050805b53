//! Signs documents and stores them; reads stored documents back and verifies them.

use crate::{
    init::error::RegistryError, pki::authority::Authority, settings::json, store::Storage,
};
use serde::Serialize;
use wire::{
    registry::{DocumentError, DocumentKind},
    signed::{SignedDocument, open},
};

/// Signs a document and stores it under its version.
pub(crate) fn sign_and_store<T: Serialize>(
    storage: &mut dyn Storage,
    authority: &Authority,
    kind: DocumentKind,
    version: u64,
    document: &T,
) -> Result<SignedDocument, RegistryError> {
    let payload = serde_json::to_vec(document).map_err(shape_error)?;
    let signed = authority.sign_document(&payload)?;
    storage.store_document(kind, version, &json(&signed).map_err(shape_error)?)?;
    Ok(signed)
}

/// Reads a stored document and its payload; `cas` are the certificates (DER) of which one must vouch for it.
pub(crate) fn read_stored<C: AsRef<[u8]>>(
    storage: &dyn Storage,
    kind: DocumentKind,
    cas: &[C],
) -> Result<(Vec<u8>, SignedDocument), RegistryError> {
    let signed: SignedDocument = serde_json::from_str(&storage.document(kind)?)
        .map_err(|error| storage.corrupt(&format!("a signed document cannot be read: {error}")))?;
    let opened = open(&signed, cas)
        .map_err(|error| storage.corrupt(&format!("a signed document is not trusted: {error}")))?;
    Ok((opened.payload, signed))
}

pub(super) fn shape_error(error: serde_json::Error) -> DocumentError {
    DocumentError::Shape {
        what: "signed",
        why: error.to_string(),
    }
}
