//! The key of a machine that has not joined yet.
//!
//! It is on disk before the registry learns of it, and stays there until all files of the node are in place. So an
//! attempt that was interrupted, or whose answer was lost, is repeated with the same key, for which the registry
//! returns the same certificate.

use super::*;
use std::{io::Read, os::unix::fs::PermissionsExt};

/// Largest key file that is read; a key in PEM has about 240 bytes.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// A key that is kept in a file until the machine has joined.
pub(super) struct PendingKey {
    path: PathBuf,
    /// The key in PEM, as the file has it.
    pub(super) pem: String,
    pub(super) key: KeyPair,
    /// Whether an earlier attempt left the key.
    pub(super) is_kept: bool,
}

impl PendingKey {
    /// Returns the key that an earlier attempt left at `path`, or creates one there.
    pub(super) fn read_or_create(path: &Path, owner: (u32, u32)) -> Result<Self, JoinError> {
        match Self::read(path)? {
            Some(kept) => Ok(kept),
            None => Self::create(path, owner),
        }
    }

    /// Creates a key, and writes it to `path` in place of an earlier one.
    pub(super) fn create(path: &Path, owner: (u32, u32)) -> Result<Self, JoinError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(JoinError::Key)?;
        let pem = key.serialize_pem();
        Draft::write(path, &pem, 0o600, Some(owner))?.rename_into_place()?;
        Ok(Self {
            path: path.to_owned(),
            pem,
            key,
            is_kept: false,
        })
    }

    /// Reads the key at `path`; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, JoinError> {
        let Some(pem) = read_private_file(path)? else {
            return Ok(None);
        };
        let bad = |_| unusable(path, "holds no private key in PEM");
        let key = KeyPair::from_pem(&pem).map_err(bad)?;
        Ok(Some(Self {
            path: path.to_owned(),
            pem,
            key,
            is_kept: true,
        }))
    }

    /// Removes the file, once the key is among the files of the node.
    pub(super) fn remove(&self) -> Result<(), JoinError> {
        files::remove(&self.path).map_err(io_error("remove", &self.path))
    }
}

fn unusable(path: &Path, why: &'static str) -> JoinError {
    JoinError::PendingKey {
        path: path.to_owned(),
        why,
    }
}

/// Reads a file that only its owner may read; `None` if it does not exist. A symbolic link is not followed.
fn read_private_file(path: &Path) -> Result<Option<String>, JoinError> {
    let file = match some_if_found(files::open(path)) {
        Ok(None) => return Ok(None),
        Ok(Some(file)) => file,
        Err(_) if path.is_symlink() => return Err(unusable(path, "is a symbolic link")),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(unusable(path, "is no regular file"));
        }
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let metadata = file.metadata().map_err(io_error("read", path))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(unusable(path, "can be read by other users"));
    }
    let mut text = String::new();
    match file.take(MAX_KEY_BYTES).read_to_string(&mut text) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(unusable(path, "holds no private key in PEM"))
        }
        Err(error) => Err(io_error("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn own_ids() -> (u32, u32) {
        (
            nix::unistd::getuid().as_raw(),
            nix::unistd::getgid().as_raw(),
        )
    }

    /// Prepares the file of a key, and compares the complaint about it.
    #[track_caller]
    fn check(prepare: impl FnOnce(&Path), expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key.join");
        prepare(&path);
        let error = PendingKey::read_or_create(&path, own_ids()).err().unwrap();
        let expected = format!(
            "cannot make a key: {} {expected}: remove it, and repeat the command",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_kept_key_is_used_again_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key.join");
        let created = PendingKey::read_or_create(&path, own_ids()).unwrap();
        assert!(!created.is_kept);
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        let kept = PendingKey::read_or_create(&path, own_ids()).unwrap();
        assert!(kept.is_kept && kept.pem == created.pem);
        kept.remove().unwrap();
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
        let next = PendingKey::read_or_create(&path, own_ids()).unwrap();
        assert_ne!(next.pem, created.pem);
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_a_link_is_not_used() {
        let pem = KeyPair::generate().unwrap().serialize_pem();
        let write = |mode| {
            let pem = pem.clone();
            move |path: &Path| {
                fs::write(path, &pem).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
        };
        check(write(0o644), "can be read by other users");
        check(write(0o620), "can be read by other users");
        check(
            |path| {
                let elsewhere = path.with_extension("elsewhere");
                write(0o600)(&elsewhere);
                symlink(elsewhere, path).unwrap();
            },
            "is a symbolic link",
        );
        check(
            |path| symlink("/nowhere", path).unwrap(),
            "is a symbolic link",
        );
        check(
            |path| fs::create_dir_all(path).unwrap(),
            "is no regular file",
        );
    }

    #[test]
    fn a_file_that_holds_no_key_is_named_and_kept() {
        for content in [&b"letters\n"[..], b"", &[0xff; 64]] {
            check(
                |path| {
                    fs::write(path, content).unwrap();
                    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
                },
                "holds no private key in PEM",
            );
        }
    }

    #[test]
    fn a_new_key_replaces_a_link_in_the_place_of_its_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key.join");
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "untouched").unwrap();
        symlink(&elsewhere, path.with_added_extension("new")).unwrap();
        PendingKey::read_or_create(&path, own_ids()).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
        assert!(path.symlink_metadata().unwrap().is_file());
    }
}
