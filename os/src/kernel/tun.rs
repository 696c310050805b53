//! Creates TAP links by `ioctl`, since netlink cannot create them, and tun device nodes for children.
#![expect(unsafe_code, reason = "ioctl(2) of /dev/net/tun has no safe wrapper")]

use super::KernelError;
use fault_points::fault;
use files::Access;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown},
    },
    path::{Path, PathBuf},
};

/// The system's tun device node.
pub const TUN: &str = "/dev/net/tun";

/// Major and minor number of tun (Documentation/admin-guide/devices.txt).
const TUN_DEVICE: (u64, u64) = (10, 200);

// linux/if_tun.h
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
/// Fails if a link of that name exists, instead of opening it (bit 15).
const IFF_TUN_EXCL: i16 = i16::MIN;

mod ioctls {
    use super::InterfaceRequest;
    use std::ffi::c_int;

    nix::ioctl_write_ptr_bad!(
        set_interface,
        nix::request_code_write!(b'T', 202, size_of::<c_int>()),
        InterfaceRequest
    );
    nix::ioctl_write_int_bad!(
        set_persist,
        nix::request_code_write!(b'T', 203, size_of::<c_int>())
    );
    nix::ioctl_write_int_bad!(
        set_owner,
        nix::request_code_write!(b'T', 204, size_of::<c_int>())
    );
}

/// `struct ifreq` of linux/if.h; its union holds the flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    padding: [u8; 22],
}

/// A TAP link. It is deleted when this value is dropped, unless it was made persistent.
pub(super) struct Tap(OwnedFd);

impl Tap {
    /// Creates a TAP of this name, which must not exist.
    pub(super) fn create(name: &str) -> Result<Self, KernelError> {
        let doing = || KernelError::refused(format!("create TAP {name}"));
        let mut request = InterfaceRequest {
            name: [0; 16],
            flags: IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL,
            padding: [0; 22],
        };
        // The last byte stays NUL.
        match request.name.get_mut(..name.len()) {
            Some(room) if name.len() < 16 => room.copy_from_slice(name.as_bytes()),
            Some(_) | None => return Err(doing()(io::ErrorKind::InvalidInput.into())),
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(TUN)
            .map_err(KernelError::refused(format!("open {TUN}")))?;
        // SAFETY: the descriptor is open, and `request` is a complete ifreq that outlives the call.
        unsafe { ioctls::set_interface(file.as_raw_fd(), &raw const request) }
            .map_err(|errno| doing()(errno.into()))?;
        Ok(Self(file.into()))
    }

    /// Lets only this user and root open the TAP.
    pub(super) fn set_owner(&self, uid: u32) -> Result<(), KernelError> {
        let doing = KernelError::refused(format!("set the owner of a TAP to user {uid}"));
        let Ok(uid) = i32::try_from(uid) else {
            return Err(doing(io::ErrorKind::InvalidInput.into()));
        };
        // SAFETY: the descriptor is open; the argument is a number.
        unsafe { ioctls::set_owner(self.0.as_raw_fd(), uid) }
            .map_err(|errno| doing(errno.into()))?;
        Ok(())
    }

    /// Makes the TAP persistent, and closes its descriptor.
    pub(super) fn persist(self) -> Result<(), KernelError> {
        // SAFETY: the descriptor is open; the argument is a number.
        unsafe { ioctls::set_persist(self.0.as_raw_fd(), 1) }
            .map_err(|errno| KernelError::refused("make a TAP persistent")(errno.into()))?;
        Ok(())
    }
}

impl From<Tap> for OwnedFd {
    /// Returns the descriptor, by which frames are read and written; the link disappears with it.
    fn from(tap: Tap) -> Self {
        tap.0
    }
}

/// Returns a tun device node that a child with this user and group id can open. That is `/dev/net/tun` if
/// its mode allows it; otherwise a node is created at `path`, with mode 0660 and group `gid`, in a directory with
/// mode 0711.
///
/// # Errors
///
/// The node cannot be created, or its file system is mounted with `nodev`.
pub fn make_tun_node(path: &Path, uid: u32, gid: u32) -> Result<PathBuf, KernelError> {
    if fs::metadata(TUN).is_ok_and(|found| may_open(&found, uid, gid)) {
        return Ok(TUN.into());
    }
    create_node(path, gid).map_err(KernelError::refused(format!(
        "create a tun device node at {}",
        path.display()
    )))?;
    Ok(path.to_owned())
}

fn may_open(node: &fs::Metadata, uid: u32, gid: u32) -> bool {
    let bits = match () {
        () if node.uid() == uid => node.mode() >> 6,
        () if node.gid() == gid => node.mode() >> 3,
        () => node.mode(),
    };
    bits & 0o6 == 0o6
}

fn create_node(path: &Path, gid: u32) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        files::folder(directory, Access::ours(0o711))?;
    }
    files::remove(path)?;
    let (major, minor) = TUN_DEVICE;
    mknod(
        path,
        SFlag::S_IFCHR,
        Mode::S_IRUSR | Mode::S_IWUSR,
        makedev(major, minor),
    )?;
    fault!("create a tun device node");
    lchown(path, Some(0), Some(gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    // On a file system mounted with nodev, mknod succeeds, but the node cannot be opened.
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map(drop)
}
