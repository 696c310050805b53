//! The orders that policies give, each with its reason.
//!
//! Each reason becomes a metric label and appears in `warren why`.

use crate::names::{Endpoint, Prefix, Slot};
use std::fmt;

/// Declares an enum of reasons: a closed list, with one label each.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All reasons, so that every label can be listed before the program runs.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The metric label, in snake case.
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
    /// The reason to open a tunnel.
    OpenReason {
        /// This node has no tunnel, or babeld's table holds no other node.
        Bootstrap = "bootstrap",
        /// A peer that the configuration pins has no tunnel.
        Pinned = "pinned",
        /// The peer is on a LAN of this host, and few tunnels lead over it.
        OnLan = "on_lan",
        /// An operator asked for it (`warren dial`).
        Operator = "operator",
        /// Both nodes are behind NATs, and have just sent to each other, so that these let the tunnel pass.
        HolePunched = "hole_punched",
        /// There are fewer dialled tunnels than wanted, and the peer was drawn at random.
        Fill = "fill",
        /// A tunnel to the peer shortens both ends' routes more than one to any other candidate.
        Gain = "gain",
        /// The cache knows the peer, but babeld's table has no route to it; so islands merge.
        MissingFromTable = "missing_from_table",
    }
}

reasons! {
    /// The reason to close a tunnel, or for its end.
    CloseReason {
        /// The tunnel was used significantly less than the others.
        Unused = "unused",
        /// A tunnel to another peer shortens more routes than this one does.
        Replaced = "replaced",
        /// There was no traffic anywhere; a random tunnel is closed so that a bad topology does not freeze.
        Rotation = "rotation",
        /// Both nodes dialled each other; the one with the lower prefix closes its own tunnel.
        Duplicate = "duplicate",
        /// The peer answers on a LAN of this host, and the tunnel leads around it.
        AroundLan = "around_lan",
        /// The tunnel is by TCP, and the peer answers by UDP.
        UdpAnswers = "udp_answers",
        /// There were more dialled tunnels than allowed: the limit was lowered, or no peer can reach this node.
        OverLimit = "over_limit",
        /// The peer answered no probes, or OpenVPN noticed its silence.
        PeerDead = "peer_dead",
        /// This node's own OpenVPN process exited unexpectedly.
        ProcessDied = "process_died",
        /// The dial never connected.
        DialFailed = "dial_failed",
        /// The peer rejected this node, or closed the tunnel.
        PeerClosed = "peer_closed",
        /// The tunnel carried neither large packets nor their fragments, and the peer can be dialled by TCP, too.
        SmallPacketsOnly = "small_packets_only",
        /// The peer's certificate is revoked.
        Revoked = "revoked",
        /// The peer announces routes that cannot be its own, see [`route_checks`](crate::route_checks).
        FalseRoutes = "false_routes",
        /// Certificates or keys have changed, and OpenVPN reads them only when it starts.
        Renewed = "renewed",
        /// An operator asked for it (`warren close`).
        Operator = "operator",
        /// The daemon is stopping.
        Shutdown = "shutdown",
    }
}

impl CloseReason {
    /// Whether a drain for this reason may be given up, so that the tunnel stays.
    pub fn can_be_abandoned(self) -> bool {
        match self {
            Self::Revoked | Self::FalseRoutes | Self::Shutdown => false,
            Self::Unused
            | Self::Replaced
            | Self::Rotation
            | Self::Duplicate
            | Self::AroundLan
            | Self::UdpAnswers
            | Self::OverLimit
            | Self::PeerDead
            | Self::ProcessDied
            | Self::DialFailed
            | Self::PeerClosed
            | Self::SmallPacketsOnly
            | Self::Renewed
            | Self::Operator => true,
        }
    }
}

reasons! {
    /// The reason to give a drain up.
    AbandonReason {
        /// Traffic had not moved away by the deadline.
        Deadline = "deadline",
        /// While the tunnel drained, it became the only route to some node.
        OnlyRoute = "only_route",
    }
}

/// One order about a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Dial a peer on a free slot.
    Open {
        /// The dialling slot, which is free.
        slot: Slot,
        /// The peer to dial.
        peer: Prefix,
        /// The endpoints to try, best first.
        endpoints: Vec<Endpoint>,
        /// The reason for the metric label and `warren why`.
        reason: OpenReason,
    },
    /// Take Babel off the slot, so that traffic moves away.
    Drain {
        /// The slot of the tunnel.
        slot: Slot,
        /// The reason for the metric label and `warren why`.
        reason: CloseReason,
    },
    /// Put Babel back on the slot, since the drain is given up.
    Undrain {
        /// The slot of the tunnel.
        slot: Slot,
        /// The reason for the metric label and `warren why`.
        reason: AbandonReason,
    },
    /// End OpenVPN's process or session.
    Close {
        /// The slot of the tunnel.
        slot: Slot,
        /// The reason for the metric label and `warren why`.
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

    /// The metric label of the order's reason.
    pub fn reason_label(&self) -> &'static str {
        match self {
            Self::Open { reason, .. } => reason.label(),
            Self::Drain { reason, .. } | Self::Close { reason, .. } => reason.label(),
            Self::Undrain { reason, .. } => reason.label(),
        }
    }

    /// The slot that the order is about.
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
    /// The order that is to be carried out.
    pub order: Order,
    /// The terms, for people: a sentence if numbers do not suffice, then `name=value unit`.
    pub terms: String,
}

/// The terms of an order that is given again.
const REPEATED: &str = "ordered again, since the first order had no visible effect";

impl Decision {
    /// The repetition of an order whose effect no reading shows.
    pub fn repeated(order: Order) -> Self {
        Self {
            order,
            terms: REPEATED.to_owned(),
        }
    }

    /// Returns whether the same order was given before.
    pub fn is_repeated(&self) -> bool {
        self.terms == REPEATED
    }
}
