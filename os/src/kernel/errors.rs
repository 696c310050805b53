//! What can go wrong with the kernel, and what was tried.

use policies::names::Slot;
use std::{io, path::PathBuf};

/// The kernel refused, or was not asked because it could not work.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The netlink socket could not be opened.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// A request was refused; the source is the kernel's reason.
    #[error("cannot {doing}")]
    Refused {
        /// What was tried, such as "set link wrn0 up".
        doing: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The task that owns the netlink socket has exited, and with it the runtime.
    #[error("cannot {doing}: the netlink connection is closed")]
    ConnectionClosed {
        /// The action that was tried.
        doing: String,
    },
    /// An answer that does not fit the question.
    #[error("cannot {doing}: the kernel's answer is malformed")]
    Malformed {
        /// The action that was tried.
        doing: String,
    },
    /// The slot was not made by this handle.
    #[error("there is no slot {slot}")]
    NoSlot {
        /// The slot that was named.
        slot: Slot,
    },
    /// The number does not name a slot that can be made.
    #[error("{slot} cannot be a slot")]
    BadSlot {
        /// The slot that was named.
        slot: Slot,
    },
    /// Accepting slots can be had neither from 8021q nor from macvlan and BPF.
    #[error("this kernel gives neither VLAN links nor BPF programs, so tunnels cannot be accepted")]
    CannotAccept,
    /// The server's TAP must be made before its accepting slots.
    #[error("the TAP {name} was not made")]
    NoServer {
        /// The name of the link.
        name: &'static str,
    },
    /// The loopback link is down, so the node's address would not work.
    #[error("link lo is down")]
    LoopbackDown,
    /// The root's path does not fit into a link's alias.
    #[error("the path {} is too long for a link's alias", root.display())]
    LongRoot {
        /// The root folder.
        root: PathBuf,
    },
    /// The ledger of changed settings could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    Ledger {
        /// "read", "write" …
        doing: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl KernelError {
    pub(super) fn refused(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Refused { doing, source }
    }
}
