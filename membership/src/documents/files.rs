//! Stores the signed documents, so that they survive a restart of the daemon.
//!
//! OpenVPN itself rejects revoked certificates, as client and as server, at each handshake. It reads them from a folder with
//! an empty file for each revoked serial number (`--crl-verify FOLDER dir`). Unlike an X.509 CRL, such a folder has no
//! nextUpdate; once a CRL's has passed, OpenVPN would reject every certificate.

use super::current::CurrentDocuments;
use files::Access;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};
use wire::{registry::DocumentKind, serial, signed::SignedDocument};

/// Maximum size of a signed document that is read, in bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// The paths of the documents.
#[derive(Clone, Debug)]
pub struct DocumentFiles {
    /// The network document, 0600.
    pub network: PathBuf,
    /// The revocation list, 0600.
    pub revocations: PathBuf,
    /// The folder of revoked serial numbers, 0755, since OpenVPN reads it as another user.
    pub revoked: PathBuf,
}

/// An operation on a file failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}", path = path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn file_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FileError + 'a {
    move |source| FileError {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Replaces a file atomically: even after a crash, it has either the old or the new content.
///
/// # Errors
/// The file cannot be written; the old content stays.
pub fn replace(
    path: &Path,
    text: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<(), FileError> {
    files::replace(path, text, Access { mode, owner }).map_err(file_error("replace", path))
}

impl DocumentFiles {
    /// Reads the stored revocation list; `None` if there is no file, or no signed document in it, which is set aside.
    /// The caller must verify it.
    pub fn read_revocations(&self) -> Option<SignedDocument> {
        let consequence = "the revocation list is fetched again from the registry or a neighbour";
        let parse = |text: &[u8]| serde_json::from_slice(text);
        files::load(&self.revocations, MAX_DOCUMENT_BYTES, consequence, parse)
    }

    /// Writes the current document of this kind and, for the revocation list, the folder of revoked serial numbers. Blocks.
    ///
    /// # Errors
    /// A file cannot be written; the stored document is the earlier one.
    pub fn write(&self, kind: DocumentKind, documents: &CurrentDocuments) -> Result<(), FileError> {
        let path = match kind {
            DocumentKind::Network => &self.network,
            DocumentKind::Revocations => &self.revocations,
        };
        if kind == DocumentKind::Revocations {
            self.write_revoked_serials(documents)?;
        }
        let Some(document) = documents.signed_document(kind) else {
            return Ok(());
        };
        let text = serde_json::to_vec(&**document).map_err(io::Error::from);
        replace(path, &text.map_err(file_error("write", path))?, 0o600, None)
    }

    /// Creates and removes files in the folder of revoked serial numbers, so that it agrees with `documents`. Blocks.
    ///
    /// # Errors
    /// A file cannot be created or removed.
    pub fn write_revoked_serials(&self, documents: &CurrentDocuments) -> Result<(), FileError> {
        let folder = &self.revoked;
        files::folder(folder, Access::ours(0o755)).map_err(file_error("create", folder))?;
        let wanted: BTreeSet<String> = documents
            .revoked_serials()
            .filter_map(serial::decimal)
            .collect();
        let entries = fs::read_dir(folder).map_err(file_error("read", folder))?;
        let existing: BTreeSet<String> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        for name in wanted.difference(&existing) {
            let path = folder.join(name);
            files::create(&path, b"", Access::ours(0o644)).map_err(file_error("write", &path))?;
        }
        for name in existing.difference(&wanted) {
            let path = folder.join(name);
            files::remove_tree(&path).map_err(file_error("remove", &path))?;
        }
        Ok(())
    }
}
