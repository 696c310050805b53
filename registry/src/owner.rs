//! The user that a registry's unit runs as. Files that root creates are given to that user, and a registry that root starts
//! continues as the owner of its files.

use crate::{
    files::{FileError, io_error, private_folder},
    settings::RegistryPaths,
};
use nix::unistd::{Gid, Uid, User, geteuid, setgid, setgroups, setuid};
use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// The user of the registry, if the package has created it.
pub const REGISTRY_USER: &str = "warren-registry";

/// Gives the registry's files to [`REGISTRY_USER`], if the caller is root and the user exists; otherwise it changes
/// nothing.
///
/// # Errors
/// The owner of a file cannot be changed.
pub fn give_to_registry_user(paths: &RegistryPaths) -> Result<(), FileError> {
    let user = User::from_name(REGISTRY_USER).ok().flatten();
    let Some(user) = user.filter(|_| geteuid().is_root()) else {
        return Ok(());
    };
    let owner = (user.uid.as_raw(), user.gid.as_raw());
    give(&paths.config_dir, owner)?;
    give(&paths.state_dir, owner)
}

fn give(path: &Path, owner: (u32, u32)) -> Result<(), FileError> {
    ::files::give_tree(path, owner).map_err(io_error("set the owner of", path))
}

/// Gives up root for good, if the registry's files belong to another user. The folder of the socket is created before, as
/// only root can.
///
/// # Errors
/// The folder cannot be created, or the user cannot be changed.
pub fn become_owner(paths: &RegistryPaths) -> Result<(), FileError> {
    let Ok(metadata) = fs::metadata(&paths.config_dir) else {
        // Opening the registry names the fault.
        return Ok(());
    };
    if !geteuid().is_root() || metadata.uid() == 0 {
        return Ok(());
    }
    if let Some(folder) = paths.admin_socket.parent() {
        private_folder(folder)?;
        give(folder, (metadata.uid(), metadata.gid()))?;
    }
    let failed = io_error("continue as the owner of", &paths.config_dir);
    setgroups(&[])
        .and_then(|()| setgid(Gid::from_raw(metadata.gid())))
        .and_then(|()| setuid(Uid::from_raw(metadata.uid())))
        .map_err(|errno| failed(io::Error::from(errno)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_folder_is_given_away_with_its_content_and_links_are_not_followed() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (given, elsewhere) = (folder.path().join("given"), folder.path().join("elsewhere"));
        fs::create_dir_all(given.join("ca-2")).unwrap();
        fs::write(given.join("ca-2/ca.key"), "key").unwrap();
        fs::write(&elsewhere, "root's").unwrap();
        symlink(&elsewhere, given.join("link")).unwrap();
        give(&given, (60_196, 60_195)).unwrap();
        for path in ["", "ca-2", "ca-2/ca.key", "link"] {
            let metadata = given.join(path).symlink_metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (60_196, 60_195), "{path}");
        }
        assert_eq!(fs::metadata(&elsewhere).unwrap().uid(), 0);
    }
}
