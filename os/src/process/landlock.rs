//! Puts a child into a Landlock domain of its own (landlock(7)).
//!
//! All OpenVPN processes have the same user, so each could otherwise read and change the memory of the others, with their
//! session keys. The kernel lets a process trace only what is in its own domain or in one below, and each child has its own.
//! Besides, a child cannot create or remove files that it has no use for, wherever it may write.
#![expect(
    unsafe_code,
    reason = "landlock(7) has no safe wrapper that is safe between fork and exec"
)]

use rustix::fd::{FromRawFd, OwnedFd};
use std::{io, os::fd::AsRawFd};

// linux/landlock.h, version 1
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;

/// What no child does.
const NOBODYS: u64 = REMOVE_DIR | MAKE_CHAR | MAKE_DIR | MAKE_FIFO | MAKE_BLOCK | MAKE_SYM;
/// What only a child with a folder of its own does: it creates and removes files and sockets.
const OF_FOLDERS: u64 = REMOVE_FILE | MAKE_REG | MAKE_SOCK;

/// `struct landlock_ruleset_attr` of version 1.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
}

/// Puts the calling process into a new domain. `has_folder` lets it create and remove files and sockets where its user may.
/// It must be called after `no_new_privs` was set, and only makes system calls.
///
/// # Errors
/// The kernel has no Landlock (`ENOSYS`, `EOPNOTSUPP`), or a filter of system calls forbids it.
pub(super) fn enter_own_domain(has_folder: bool) -> io::Result<()> {
    let ruleset = Ruleset {
        handled_access_fs: if has_folder {
            NOBODYS
        } else {
            NOBODYS | OF_FOLDERS
        },
    };
    // SAFETY: the ruleset outlives the call, which only reads it.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size_of::<Ruleset>(),
            0,
        )
    };
    let descriptor = i32::try_from(descriptor).unwrap_or(-1);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: the arguments are numbers.
    let outcome =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, descriptor.as_raw_fd(), 0) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
