//! DocumentFiles of the signed documents: what the node holds survives its end.
//!
//! OpenVPN itself refuses revoked certificates, on either side and at each handshake, by a folder with
//! one empty file a serial number (`--crl-verify FOLDER dir`). It has no end, unlike a list of X.509,
//! whose end would lock everybody out.

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
    /// The list of revocations, 0600.
    pub revocations: PathBuf,
    /// The folder of revoked serial numbers, 0755: OpenVPN reads it.
    pub revoked: PathBuf,
}

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}", path = path.display())]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FileError + 'a {
    move |source| FileError {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Replaces a file atomically: at any moment, also after a crash, it has the old or the new
/// content.
///
/// # Errors
/// The file could not be written; the old content stays.
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
    let mut file = open.map_err(failed("write", &draft))?;
    file.write_all(text)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &draft))?;
    // The mode of a draft that somebody left is not ours.
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(failed("write", &draft))?;
    if let Some((uid, gid)) = owner {
        chown(&draft, Some(uid), Some(gid)).map_err(failed("give away", &draft))?;
    }
    fs::rename(&draft, path).map_err(failed("put in place", path))
}

impl DocumentFiles {
    /// The stored revocations, not verified yet; `None` where there are none or they cannot be read.
    ///
    /// # Errors
    /// There is a file, but no document in it.
    pub fn revocations(&self) -> Result<Option<SignedDocument>, FileError> {
        let text = some_if_found(fs::read(&self.revocations))
            .map_err(failed("read", &self.revocations))?;
        let Some(text) = text else { return Ok(None) };
        let read = serde_json::from_slice(&text).map_err(io::Error::from);
        read.map(Some).map_err(failed("read", &self.revocations))
    }

    /// Writes what has changed. Blocks.
    ///
    /// # Errors
    /// The disk refused; what was there before stands.
    pub fn write(&self, kind: DocumentKind, documents: &CurrentDocuments) -> Result<(), FileError> {
        let path = match kind {
            DocumentKind::Network => &self.network,
            DocumentKind::Revocations => &self.revocations,
        };
        if kind == DocumentKind::Revocations {
            self.bar(documents)?;
        }
        let Some(document) = documents.signed(kind) else {
            return Ok(());
        };
        let text = serde_json::to_vec(&**document).map_err(io::Error::from);
        replace(path, &text.map_err(failed("write", path))?, 0o600, None)
    }

    /// Brings the folder of revoked serial numbers in line with `documents`.
    ///
    /// # Errors
    /// The disk rejected it.
    pub fn bar(&self, documents: &CurrentDocuments) -> Result<(), FileError> {
        let folder = &self.revoked;
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
            .map_err(failed("open", folder))?;
        let wanted: BTreeSet<String> = documents.serials().filter_map(serial::decimal).collect();
        let entries = fs::read_dir(folder).map_err(failed("read", folder))?;
        let there: BTreeSet<String> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        for name in wanted.difference(&there) {
            let path = folder.join(name);
            fs::File::create(&path)
                .and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o644)))
                .map_err(failed("write", &path))?;
        }
        for name in there.difference(&wanted) {
            let path = folder.join(name);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}
