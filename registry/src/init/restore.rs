//! Puts a copy in the database's place.

use crate::{
    files::{io_error, rename_if_exists},
    init::{self, error::RegistryError, keep},
    settings::{RegistryPaths, database},
    store::{Storage, StorageError, sqlite},
};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
};
use wire::{
    registry::{DocumentKind, NetworkDocument, Revocations},
    signed::{SignedDocument, open},
};

/// Nodes have seen documents that the copy does not know, and never go back: the next ones are so
/// many versions later.
const VERSIONS: u64 = 1000;

/// So many prefixes after the last of the copy are not handed out: they may have been, since.
const PREFIXES: usize = 1000;

/// Replaces the database by the copy at `file`; returns the path to which the old one was moved.
///
/// Everything that happened since the copy is lost: nodes that joined must join again, revocations
/// must be repeated.
///
/// # Errors
/// The registry runs, the copy is not sound, or a file could not be written.
pub fn restore(paths: &RegistryPaths, file: &Path) -> Result<PathBuf, RegistryError> {
    if UnixStream::connect(&paths.admin_socket).is_ok() {
        return Err(RegistryError::Running {
            path: paths.admin_socket.clone(),
        });
    }
    sqlite::verify(file)?;
    let settings = init::read_settings(paths)?;
    let path = database(paths);
    let draft = path.with_added_extension("new");
    fs::copy(file, &draft).map_err(io_error("write", &draft))?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))
        .map_err(io_error("write", &draft))?;
    fs::File::open(&draft)
        .and_then(|file| file.sync_all())
        .map_err(io_error("write", &draft))?;
    let aside = path.with_added_extension("before");
    for ending in ["-wal", "-shm", ""] {
        let with = |path: &Path| PathBuf::from(format!("{}{ending}", path.display()));
        rename_if_exists(&with(&path), &with(&aside))?;
    }
    fs::rename(&draft, &path).map_err(io_error("put in place", &path))?;
    let mut opened = init::open(paths)?;
    publish_beyond_known_versions(&mut opened.storage, &opened.authorities.authority)?;
    opened
        .storage
        .leave_gap(PREFIXES, settings.certificate_life_s)?;
    Ok(aside)
}

/// Publishes both documents again, under versions that no node has seen.
fn publish_beyond_known_versions(
    storage: &mut dyn Storage,
    authority: &crate::pki::authority::Authority,
) -> Result<(), RegistryError> {
    let bad = |what| RegistryError::Storage(StorageError::Value { what });
    let payload = |storage: &dyn Storage, kind| {
        let (_, json) = storage
            .document(kind)?
            .ok_or(bad("no signed document, or one"))?;
        let signed: SignedDocument =
            serde_json::from_str(&json).map_err(|_| bad("a signed document"))?;
        let opened = open(&signed, &authority.trusted_der()).map_err(|_| bad("a signature"));
        opened.map(|opened| opened.payload)
    };
    let mut network = NetworkDocument::read(&payload(storage, DocumentKind::Network)?)?;
    network.version += VERSIONS;
    keep(
        storage,
        authority,
        DocumentKind::Network,
        network.version,
        &network,
    )?;
    let mut list = Revocations::read(&payload(storage, DocumentKind::Revocations)?)?;
    list.version += VERSIONS;
    keep(
        storage,
        authority,
        DocumentKind::Revocations,
        list.version,
        &list,
    )?;
    Ok(())
}
