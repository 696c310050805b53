//! Stores the signed documents, so that they survive a restart of the daemon.
//!
//! OpenVPN itself rejects revoked certificates, as client and as server, at each handshake. It reads them from a folder with
//! an empty file for each revoked serial number (`--crl-verify FOLDER dir`). Unlike an X.509 CRL, such a folder has no
//! nextUpdate; once a CRL's has passed, OpenVPN would reject every certificate.

use super::current::CurrentDocuments;
use std::{
    collections::BTreeSet,
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};
use wire::errors::some_if_found;
use wire::{registry::DocumentKind, serial, signed::SignedDocument};

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
    let draft = path.with_added_extension("new");
    let mut options = fs::OpenOptions::new();
    let open = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(mode)
        .open(&draft);
    let mut file = open.map_err(file_error("write", &draft))?;
    file.write_all(text)
        .and_then(|()| file.sync_all())
        .map_err(file_error("write", &draft))?;
    // An interrupted call may have left a draft with another mode, which `open` does not change.
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(file_error("write", &draft))?;
    if let Some((uid, gid)) = owner {
        chown(&draft, Some(uid), Some(gid)).map_err(file_error("change the owner of", &draft))?;
    }
    fs::rename(&draft, path).map_err(file_error("replace", path))
}

impl DocumentFiles {
    /// Reads the stored revocation list; `None` if there is no file. The caller must verify it.
    ///
    /// # Errors
    /// The file cannot be read, or does not contain a signed document.
    pub fn read_revocations(&self) -> Result<Option<SignedDocument>, FileError> {
        let text = some_if_found(fs::read(&self.revocations))
            .map_err(file_error("read", &self.revocations))?;
        let Some(text) = text else { return Ok(None) };
        let document = serde_json::from_slice(&text).map_err(io::Error::from);
        document
            .map(Some)
            .map_err(file_error("read", &self.revocations))
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
        fs::create_dir_all(folder).map_err(file_error("create", folder))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
            .map_err(file_error("set the mode of", folder))?;
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
            fs::File::create(&path)
                .and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o644)))
                .map_err(file_error("write", &path))?;
        }
        for name in existing.difference(&wanted) {
            let path = folder.join(name);
            fs::remove_file(&path).map_err(file_error("remove", &path))?;
        }
        Ok(())
    }
}
