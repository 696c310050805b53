//! Errors of requests to the kernel, each with the action that was tried.

use policies::names::Slot;
use std::{io, path::PathBuf};

/// The kernel rejected a request, or the request cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The netlink socket could not be opened.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel rejected a request, for the reason in the source.
    #[error("cannot {doing}")]
    Refused {
        /// The action that was tried, such as "set link wrn0 up".
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
    /// The kernel's answer is not a valid answer to the request.
    #[error("cannot {doing}: the kernel's answer is malformed")]
    Malformed {
        /// The action that was tried.
        doing: String,
    },
    /// This handle did not create the slot.
    #[error("there is no slot {slot}")]
    NoSlot {
        /// The slot that was named.
        slot: Slot,
    },
    /// No slot with this number can be created.
    #[error("{slot} cannot be a slot")]
    BadSlot {
        /// The slot that was named.
        slot: Slot,
    },
    /// The kernel supports neither VLAN links (8021q) nor macvlans with BPF programs, so it has no accepting slots.
    #[error(
        "this kernel supports neither VLAN links nor BPF programs, so tunnels cannot be accepted"
    )]
    CannotAccept,
    /// The server's TAP must be created before its accepting slots.
    #[error("the TAP {name} was not created")]
    NoServer {
        /// The name of the link.
        name: &'static str,
    },
    /// The loopback link is down, so the node's address could not be used.
    #[error("link lo is down")]
    LoopbackDown,
    /// Links of a node with another root exist, so it is not known whose routes and rules these are.
    #[error(
        "links of the node with root {root} exist here: stop that node, or run warren cleanup --root {root}",
        root = root.display()
    )]
    OtherNode {
        /// The root folder of the other node.
        root: PathBuf,
    },
    /// The path of the root does not fit into a link's alias.
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
    /// Returns whether the kernel rejected a request because the caller lacks the permission.
    pub fn is_permission_denied(&self) -> bool {
        match self {
            Self::Open(source) | Self::Refused { source, .. } | Self::Ledger { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            Self::ConnectionClosed { .. }
            | Self::Malformed { .. }
            | Self::NoSlot { .. }
            | Self::BadSlot { .. }
            | Self::CannotAccept
            | Self::NoServer { .. }
            | Self::LoopbackDown
            | Self::OtherNode { .. }
            | Self::LongRoot { .. } => false,
        }
    }

    pub(super) fn refused(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Refused { doing, source }
    }
}
