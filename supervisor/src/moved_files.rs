//! Moves the identity of a node from `/etc/warren`, where it lay until release 0.1, to `/var/lib/warren`.

use crate::errors::StartError;
use config::paths::Paths;
use files::Access;
use membership::certificate::MAX_CREDENTIAL_BYTES;
use std::{io, os::unix::fs::MetadataExt, path::Path};
use wire::errors::some_if_found;

/// Moves the files of an older release to their present place, with owner and mode. Where a file exists already, it is
/// kept. A former file that cannot be removed, because the file system is read-only, is named in the log.
///
/// # Errors
///
/// A file cannot be read or written; the error names it. A later call goes on where this one stopped.
pub fn move_files(paths: &Paths) -> Result<(), StartError> {
    // All are in their new place before the first one is removed.
    for (former, path) in paths.moved_files() {
        if path.symlink_metadata().is_err() {
            copy(&former, &path).map_err(|source| StartError::Move {
                path: former.clone(),
                source,
            })?;
        }
    }
    for (former, path) in paths.moved_files() {
        // On a read-only file system the removal of a missing file fails, too.
        if former.symlink_metadata().is_err() {
            continue;
        }
        match files::remove(&former) {
            Ok(()) => tracing::info!(
                from = %former.display(),
                to = %path.display(),
                "file of the node moved"
            ),
            Err(error) => tracing::warn!(
                file = %former.display(),
                %error,
                "file is no longer used, and cannot be removed: remove it"
            ),
        }
    }
    // babeld's state file lay there; it is in the folder of the process now.
    let former = paths.state().join("babeld");
    files::remove_tree(&former).map_err(|source| StartError::Move {
        path: former,
        source,
    })
}

/// Copies a file, if it exists, with its owner and mode.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let Some(metadata) = some_if_found(from.symlink_metadata())? else {
        return Ok(());
    };
    let content = files::read(from, MAX_CREDENTIAL_BYTES)?;
    let owner = (metadata.uid(), metadata.gid());
    files::replace(to, &content, Access::of(metadata.mode() & 0o777, owner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

    /// Writes files as an older release has them, and `present` ones in the present place; moves them, and compares the
    /// contents and modes that are then in the present place.
    #[track_caller]
    fn check(former: &[(&str, u32)], present: &[&str], expected: &[(&str, &str, u32)]) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        fs::create_dir_all(paths.etc()).unwrap();
        fs::create_dir_all(paths.state()).unwrap();
        for (name, mode) in former {
            let path = paths.etc().join(name);
            fs::write(&path, "former").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        for name in present {
            fs::write(paths.state().join(name), "present").unwrap();
        }
        move_files(&paths).unwrap();
        let left: Vec<_> = fs::read_dir(paths.etc()).unwrap().collect();
        assert_eq!(left.len(), 0, "{left:?}");
        let found: BTreeMap<_, _> = fs::read_dir(paths.state())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let text = fs::read_to_string(entry.path()).unwrap();
                let mode = entry.metadata().unwrap().mode() & 0o777;
                (entry.file_name().into_string().unwrap(), (text, mode))
            })
            .collect();
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, text, mode)| ((*name).to_owned(), ((*text).to_owned(), *mode)))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn files_of_an_older_release_are_moved_with_their_modes() {
        check(&[], &[], &[]);
        check(
            &[
                ("node.key", 0o600),
                ("node.crt", 0o644),
                ("network.json", 0o600),
            ],
            &[],
            &[
                ("node.key", "former", 0o600),
                ("node.crt", "former", 0o644),
                ("network.json", "former", 0o600),
            ],
        );
    }

    #[test]
    fn a_file_that_is_in_its_place_already_is_kept() {
        check(
            &[("node.key", 0o600), ("node.crt", 0o644)],
            &["node.crt"],
            &[
                ("node.key", "former", 0o600),
                ("node.crt", "present", 0o644),
            ],
        );
    }
}
