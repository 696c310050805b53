//! Creates Unix sockets, and finds those of children.

use crate::{
    Access,
    folders::{Folder, remove_tree},
};
use fault_points::fault;
use rustix::{
    fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid},
    process::umask,
};
use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
};

/// Listens on a new socket, in place of an earlier one.
///
/// # Errors
/// The socket cannot be created, or its folder can be written by another user.
pub fn listen(path: &Path, access: Access) -> io::Result<UnixListener> {
    let (folder, name) = Folder::of(path)?;
    remove_tree(path)?;
    // At no time can others connect who may not in the end.
    let old_mask = umask(Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path);
    umask(old_mask);
    let listener = bound?;
    fault!("listen on {}", name.display());
    // Nobody else can exchange names in the folder, so this is the socket that was bound.
    // The registry's unit may not even call chown without an owner.
    if let Some((uid, gid)) = access.owner {
        fs::chownat(
            &folder.0,
            name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    fs::chmodat(
        &folder.0,
        name,
        Mode::from_bits_truncate(access.mode),
        AtFlags::empty(),
    )?;
    Ok(listener)
}

/// A socket that was checked; it is connected to by its path while this value exists.
#[derive(Debug)]
pub struct FoundSocket(OwnedFd);

impl FoundSocket {
    /// Returns a path that leads to this very socket, whatever has its name by now.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// Finds the socket of a child in the child's own folder. It must belong to the child, so that the child
/// cannot lead this process to a socket that it could not use itself.
///
/// # Errors
/// There is no such file, or it is no socket of `uid`.
pub fn socket_of(path: &Path, uid: u32) -> io::Result<FoundSocket> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = fs::openat(CWD, path, flags, Mode::empty())?;
    let found = fs::fstat(&socket)?;
    let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
    if is_socket && found.st_uid == uid {
        Ok(FoundSocket(socket))
    } else {
        let why = format!("it is no socket of user {uid}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }
}
