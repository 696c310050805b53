//! What an operator orders over the control socket, and what of it outlives the policy actor.
//!
//! The control socket checks an order and sends it to the supervisor, which passes it to the policy actor.

use actix::Message;
use arc_swap::ArcSwap;
use policies::names::{Prefix, Slot};
use std::{collections::BTreeSet, sync::Arc};

/// The nodes whose tunnels an operator wants to be kept; only the policy actor writes it.
pub type SharedPins = Arc<ArcSwap<BTreeSet<Prefix>>>;

/// Most nodes that can be pinned at a time.
pub const MAX_PINS: usize = 256;

/// An operator ordered something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum OperatorOrdered {
    /// A dial of this node.
    Dial(Prefix),
    /// The close of the tunnel that this node dialled, by a drain.
    Close(Slot, Prefix),
    /// The tunnels to this node are to be kept.
    Pin(Prefix),
    /// The policy may close tunnels to this node again.
    Unpin(Prefix),
}

impl OperatorOrdered {
    /// Returns the name of the order in documents and log lines.
    pub fn label(self) -> &'static str {
        match self {
            Self::Dial(_) => "dial",
            Self::Close(..) => "close",
            Self::Pin(_) => "pin",
            Self::Unpin(_) => "unpin",
        }
    }

    /// Returns the node of the order.
    pub fn node(self) -> Prefix {
        match self {
            Self::Dial(node) | Self::Close(_, node) | Self::Pin(node) | Self::Unpin(node) => node,
        }
    }
}
