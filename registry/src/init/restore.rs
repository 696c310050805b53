//! Replaces the database of a registry by a copy.

use crate::{
    clock::UnixSeconds,
    files::{io_error, remove_if_exists, rename_if_exists},
    init::{
        self,
        ca_versions::authorities,
        documents::{read_stored, sign_and_store},
        error::RegistryError,
    },
    owner::become_owner,
    pki::authority::Authority,
    settings::{RegistryPaths, database},
    store::{self, Storage},
};
use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};
use wire::registry::{DocumentKind, NetworkDocument, Revocations};

/// Number of versions that are skipped after those of the copy. Nodes may have received documents that were
/// published after the copy was made, and never go back to a lower version.
const SKIPPED_VERSIONS: u64 = 1000;

/// Number of prefixes that are reserved after those of the copy, since they may have been allocated after it
/// was made.
const RESERVED_PREFIXES: usize = 1000;

/// Replaces the database by the copy at `file`; returns the path to which the old one was moved.
///
/// The caller gives up root for the owner of the registry's files, who then owns the new ones, too.
///
/// Everything that happened after the copy was made is lost: nodes that joined must join again, and
/// revocations must be repeated.
///
/// # Errors
/// The registry runs, the copy is corrupt, the CA cannot be used at `now`, or a file could not be written.
pub fn restore(
    paths: &RegistryPaths,
    file: &Path,
    now: UnixSeconds,
) -> Result<PathBuf, RegistryError> {
    if UnixStream::connect(&paths.admin_socket).is_ok() {
        return Err(RegistryError::Running {
            path: paths.admin_socket.clone(),
        });
    }
    store::verify(file)?;
    // The copy may lie where only root can read.
    let copy = fs::File::open(file).map_err(io_error("read", file))?;
    become_owner(paths)?;
    let settings = init::read_settings(paths)?;
    authorities(paths, &settings)?.authority.check(now)?;
    let path = database(paths);
    let draft = path.with_added_extension("new");
    remove_if_exists(&draft)?;
    ::files::create_from(&draft, copy, ::files::Access::ours(0o600))
        .map_err(io_error("write", &draft))?;
    let old = path.with_added_extension("before");
    for suffix in ["-wal", "-shm", ""] {
        let with_suffix = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        rename_if_exists(&with_suffix(&path), &with_suffix(&old))?;
    }
    ::files::put_in_place(&draft, &path).map_err(io_error("put in place", &path))?;
    let mut opened = init::open(paths)?;
    publish_with_higher_versions(opened.storage.as_mut(), &opened.authorities.authority)?;
    opened.storage.reserve_prefixes(
        RESERVED_PREFIXES,
        now.saturating_add_s(settings.certificate_life_s),
    )?;
    Ok(old)
}

/// Publishes both documents under versions that no node has received.
fn publish_with_higher_versions(
    storage: &mut dyn Storage,
    authority: &Authority,
) -> Result<(), RegistryError> {
    let cas = authority.trusted_der();
    let (payload, _) = read_stored(storage, DocumentKind::Network, &cas)?;
    let mut network = NetworkDocument::read(&payload)?;
    network.version += SKIPPED_VERSIONS;
    sign_and_store(
        storage,
        authority,
        DocumentKind::Network,
        network.version,
        &network,
    )?;
    let (payload, _) = read_stored(storage, DocumentKind::Revocations, &cas)?;
    let mut list = Revocations::read(&payload)?;
    list.version += SKIPPED_VERSIONS;
    sign_and_store(
        storage,
        authority,
        DocumentKind::Revocations,
        list.version,
        &list,
    )?;
    Ok(())
}
