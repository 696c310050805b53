//! Reads and writes the files of a node and of a registry, so that neither another user nor a damaged disk
//! can steer the process that does it, which often is root.
//!
//! Three rules hold for every call. Nothing is written, renamed, removed or given away in a folder that
//! another user can write; the one exception is a folder with the sticky bit, such as `/tmp`. A symbolic link
//! in the place of a file is never followed. A file is read only up to a stated size.
//!
//! Nothing else in the crates that run as root changes files; `tests/tests/files.rs` compares.
//!
//! | to … | call |
//! | --- | --- |
//! | read a file that must be good | [`read`], [`read_text`] |
//! | read a file that can be created again, and set a bad one aside | [`load`] |
//! | write a file, so that a crash leaves the old or the new one | [`replace`], [`create`], [`put_in_place`] |
//! | write a file that a boot makes void | [`replace_volatile`] |
//! | create a folder, or take one back | [`folder`] |
//! | give a folder with its first files to a child | [`hand_over`], [`give_tree`] |
//! | listen on a socket, or connect to a child's | [`listen`], [`socket_of`] |

mod folders;
mod reading;
mod sockets;
mod writing;

pub use folders::{aside, folder, give_tree, hand_over, remove_tree};
pub use reading::{load, open, read, read_linked, read_text, set_aside};
pub use sockets::{FoundSocket, listen, socket_of};
pub use writing::{
    create, create_from, open_or_create, put_in_place, remove, replace, replace_volatile, sync,
};

/// Mode and owner of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The permission bits, at most 0o777.
    pub mode: u32,
    /// User and group id; `None` for those of this process.
    pub owner: Option<(u32, u32)>,
}

impl Access {
    /// The owner is this process.
    pub const fn ours(mode: u32) -> Self {
        Self { mode, owner: None }
    }

    /// The owner is this user and group.
    pub const fn of(mode: u32, owner: (u32, u32)) -> Self {
        Self {
            mode,
            owner: Some(owner),
        }
    }
}
