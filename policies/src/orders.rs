//! The orders that policies give, each with its reason.
//!
//! Each reason becomes a metric label and appears in `warren why`.

use crate::names::{Endpoint, Prefix, Slot};
use std::fmt;

/// Declares an enum of reasons: a closed list with one label each.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them, so that every label can be listed before the program runs.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The metric label: snake case.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

reasons! {
    /// Why a tunnel is opened.
    OpenReason {
        /// We have no tunnel, or babeld's table holds no other node.
        Bootstrap = "bootstrap",
        /// A pinned peer of the configuration has no tunnel.
        Pinned = "pinned",
        /// Fewer dialled tunnels than wanted: a random or distant node is chosen.
        Fill = "fill",
        /// It shortens our ways, and its own, more than any other candidate.
        Gain = "gain",
        /// A peer that is known by the cache but missing in babeld's table: islands merge.
        MissingFromTable = "missing_from_table",
    }
}

reasons! {
    /// Why a tunnel ends.
    CloseReason {
        /// Significantly less used than the others.
        Unused = "unused",
        /// Another peer shortens more ways than this tunnel does.
        Replaced = "replaced",
        /// No traffic anywhere: rotated so that a bad topology does not freeze.
        Rotation = "rotation",
        /// Both nodes dialled each other; the lower prefix closes its own.
        Duplicate = "duplicate",
        /// More dialled tunnels than allowed (limit lowered, or nobody can reach us).
        OverLimit = "over_limit",
        /// The prober gave its verdict, or OpenVPN ended by itself.
        PeerDead = "peer_dead",
        /// Our own OpenVPN process ended unasked.
        ProcessDied = "process_died",
        /// It never connected.
        DialFailed = "dial_failed",
        /// The peer refused us or ended the session.
        PeerClosed = "peer_closed",
        /// The peer's certificate is revoked.
        Revoked = "revoked",
        /// Certificates or keys have changed, and OpenVPN reads them only when it starts.
        Renewed = "renewed",
        /// The daemon stops.
        Shutdown = "shutdown",
    }
}

impl CloseReason {
    /// Whether a drain for this reason may be given up, so that the tunnel stays.
    pub fn can_be_abandoned(self) -> bool {
        match self {
            Self::Revoked | Self::Shutdown => false,
            Self::Unused
            | Self::Replaced
            | Self::Rotation
            | Self::Duplicate
            | Self::OverLimit
            | Self::PeerDead
            | Self::ProcessDied
            | Self::DialFailed
            | Self::PeerClosed
            | Self::Renewed => true,
        }
    }
}

reasons! {
    /// Why a planned closing was given up.
    AbandonReason {
        /// Traffic had not moved by the deadline.
        Deadline = "deadline",
        /// While it drained, it became the only way to some node.
        OnlyRoute = "only_route",
    }
}

/// One order about a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Dial `peer` on the free slot.
    Open {
        /// A free dialling slot.
        slot: Slot,
        /// Whom.
        peer: Prefix,
        /// Where, best first.
        endpoints: Vec<Endpoint>,
        /// Why.
        reason: OpenReason,
    },
    /// Take Babel off the slot, so that traffic moves away.
    Drain {
        /// The tunnel.
        slot: Slot,
        /// Why.
        reason: CloseReason,
    },
    /// Put Babel back on the slot: the closing is given up.
    Undrain {
        /// The tunnel.
        slot: Slot,
        /// Why.
        reason: AbandonReason,
    },
    /// End OpenVPN.
    Close {
        /// The tunnel.
        slot: Slot,
        /// Why.
        reason: CloseReason,
    },
}

impl Order {
    /// The labels of all orders, so that they can be listed before the program runs.
    pub const LABELS: [&'static str; 4] = ["open", "drain", "undrain", "close"];

    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Drain { .. } => "drain",
            Self::Undrain { .. } => "undrain",
            Self::Close { .. } => "close",
        }
    }

    /// The metric label of its reason.
    pub fn reason_label(&self) -> &'static str {
        match self {
            Self::Open { reason, .. } => reason.label(),
            Self::Drain { reason, .. } | Self::Close { reason, .. } => reason.label(),
            Self::Undrain { reason, .. } => reason.label(),
        }
    }

    /// The slot of the tunnel.
    pub fn slot(&self) -> Slot {
        match self {
            Self::Open { slot, .. }
            | Self::Drain { slot, .. }
            | Self::Undrain { slot, .. }
            | Self::Close { slot, .. } => *slot,
        }
    }
}

/// One order together with the terms by which it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What shall be done.
    pub order: Order,
    /// The terms, for people: a sentence where numbers do not suffice, then `name=value unit`.
    pub terms: String,
}
