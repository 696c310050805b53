//! Readings: complete pictures of the node, each taken at one moment; never differences.

use crate::{
    names::{Endpoint, Prefix, Role, Slot},
    orders::CloseReason,
    units::Uptime,
};
use std::time::Duration;

/// What the kernel counted on one slot since the link was made (`IFLA_STATS64`).
///
/// Received and sent as seen from this node, frame bytes with Ethernet headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
}

impl LinkCounters {
    /// What was counted since the `earlier` reading; `None` where a counter went down, since the kernel has
    /// recreated the link meanwhile.
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            rx_bytes: self.rx_bytes.checked_sub(earlier.rx_bytes)?,
            tx_bytes: self.tx_bytes.checked_sub(earlier.tx_bytes)?,
            rx_packets: self.rx_packets.checked_sub(earlier.rx_packets)?,
            tx_packets: self.tx_packets.checked_sub(earlier.tx_packets)?,
        })
    }
}

/// How far a tunnel's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// OpenVPN runs but has not said CONNECTED (dialled), or CONNECT is answered but not ESTABLISHED.
    Connecting,
    /// Frames pass.
    Up,
    /// Babel's hellos are kept off the slot; payload still flows.
    Draining {
        /// Why the tunnel is to be closed.
        reason: CloseReason,
    },
    /// OpenVPN was told to end.
    Closing,
}

impl Phase {
    /// The labels of all phases, so that they can be listed before the program runs.
    pub const LABELS: [&'static str; 4] = ["connecting", "up", "draining", "closing"];

    /// The name in metrics and documents.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Draining { .. } => "draining",
            Self::Closing => "closing",
        }
    }

    /// Why the tunnel drains; `None` where it does not.
    pub fn drain_reason(self) -> Option<CloseReason> {
        match self {
            Self::Draining { reason } => Some(reason),
            Self::Connecting | Self::Up | Self::Closing => None,
        }
    }

    /// Whether the tunnel drains, for whatever reason.
    pub fn is_draining(self) -> bool {
        self.drain_reason().is_some()
    }

    /// The phase after an order to drain for `reason`: a drain that may be given up takes on the new reason.
    pub fn drained_for(self, reason: CloseReason) -> Self {
        match self {
            Self::Up => Self::Draining { reason },
            Self::Draining { reason: earlier } if earlier.can_be_abandoned() => {
                Self::Draining { reason }
            }
            Self::Connecting | Self::Draining { .. } | Self::Closing => self,
        }
    }

    /// The phase after an order to give a drain up.
    pub fn undrained(self) -> Self {
        match self {
            Self::Draining { reason } if reason.can_be_abandoned() => Self::Up,
            Self::Connecting | Self::Up | Self::Draining { .. } | Self::Closing => self,
        }
    }
}

/// One tunnel, as the store of what outlives the actors holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelReading {
    /// Where it lives.
    pub slot: Slot,
    /// Who is at the other end, proven by certificate.
    pub peer: Prefix,
    /// How far it has come.
    pub phase: Phase,
    /// When it entered `phase`.
    pub since: Uptime,
    /// When it came up; `None` while it connects.
    pub up_since: Option<Uptime>,
    /// Where we dialled, or whence the peer came.
    pub endpoint: Option<Endpoint>,
}

impl TunnelReading {
    /// Which end we are.
    pub fn role(&self) -> Role {
        self.slot.role()
    }
}

/// A tunnel together with its link's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkReading {
    /// The tunnel.
    pub tunnel: TunnelReading,
    /// Its slot's counters at the same moment.
    pub counters: LinkCounters,
}

/// A Babel neighbour (RFC 8966, section 3.2.4) on a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The slot it was heard on.
    pub slot: Slot,
    /// Who it is, by its deterministic link-local address.
    pub peer: Prefix,
    /// Bit vector of received multicast hellos, newest in the highest bit.
    pub reach: u16,
    /// Cost of receiving from it.
    pub rxcost: u16,
    /// Cost that it advertised to us.
    pub txcost: u16,
    /// Round trip as babeld measures it, where it does.
    pub rtt: Option<Duration>,
    /// Cost of the link; 65535 = unreachable.
    pub cost: u16,
}

/// Infinity among Babel's metrics: no route.
pub const INFINITY: u16 = 65535;

/// One route of babeld's table towards a node's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination node.
    pub node: Prefix,
    /// The slot it leaves by.
    pub slot: Slot,
    /// The neighbour it goes through.
    pub via: Prefix,
    /// Whether babeld chose it.
    pub installed: bool,
    /// Total metric; [`INFINITY`] = unreachable.
    pub metric: u16,
    /// The metric that the neighbour announced.
    pub refmetric: u16,
}

/// babeld's tables at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BabelTable {
    /// All neighbours on slots.
    pub neighbours: Vec<Neighbour>,
    /// All routes towards nodes, installed or not.
    pub routes: Vec<Route>,
}

/// Probes counted over a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    /// Sent.
    pub sent: u32,
    /// Of these, unanswered past their time.
    pub lost: u32,
}

/// What the prober knows of one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReading {
    /// The slot probed.
    pub slot: Slot,
    /// Smoothed round trip; `None` while no probe was answered.
    pub rtt: Option<Duration>,
    /// Mean deviation of the round trip.
    pub jitter: Duration,
    /// Probes sent in the last minute.
    pub sent: u32,
    /// Of these, unanswered past their time.
    pub lost: u32,
    /// Counted over the last [`LOSS_SPAN`](crate::recent::LOSS_SPAN): enough of an idle tunnel, too, to tell
    /// how much it loses.
    pub lately: ProbeCounts,
    /// Frames received since the tunnel came up that are probing and no payload: replies to ours,
    /// requests of the peer where the prober hears them.
    pub rx_frames: u64,
    /// Frames sent since then that are probing: our requests, the kernel's replies to the peer's.
    pub tx_frames: u64,
}

/// A peer that failed so often in a row counts as dead.
pub const DEAD_FAILURES: u32 = 3;

/// A peer that could be dialled, as the peer cache knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub peer: Prefix,
    /// Where, best first; never empty.
    pub endpoints: Vec<Endpoint>,
    /// When its endpoints were last confirmed, in this run; `None` when only the disk remembers it.
    pub confirmed: Option<Uptime>,
    /// When the last dial failed.
    pub failed: Option<Uptime>,
    /// Failed dials in a row.
    pub failures: u32,
    /// What it says that it adds to the metric of others' routes; [`INFINITY`]: it tells of none.
    pub transit_cost: u16,
}

impl Candidate {
    /// Whether it counts as dead: it is dialled when there is nobody else, and forgotten first.
    pub fn is_dead(&self) -> bool {
        self.failures >= DEAD_FAILURES
    }
}

/// The round trip to a peer that no tunnel leads to, measured from outside the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandidateRtt {
    /// Who was sounded.
    pub peer: Prefix,
    /// When.
    pub at: Uptime,
    /// The least round trip seen; `None` where nothing came back: it may still be dialled.
    pub rtt: Option<Duration>,
}

/// What another node says of itself when it is asked: hearsay, bounded by what we see ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRouteView {
    /// Who says so.
    pub peer: Prefix,
    /// When it was asked.
    pub at: Uptime,
    /// Whether it accepts one more tunnel.
    pub accepts_tunnels: bool,
    /// How many tunnels others dialled to it; `None` where it does not say.
    pub accepted: Option<u16>,
    /// What its own ways would grow by without its tunnel to us, in metric; `None`: there is no such
    /// tunnel, or some node would be out of its reach.
    pub regret: Option<u64>,
    /// Its metric to other nodes: a sample, the same nodes for all who are asked.
    pub distances: Vec<(Prefix, u16)>,
}

/// All that a plan is made from. Each part is a complete reading; parts may differ in age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Now.
    pub at: Uptime,
    /// All tunnels with their counters.
    pub links: Vec<LinkReading>,
    /// babeld's tables; `None` until the first dump, or while babeld is down.
    pub babel: Option<BabelTable>,
    /// The prober's picture.
    pub probes: Vec<ProbeReading>,
    /// The peer cache's picture.
    pub candidates: Vec<Candidate>,
    /// Round trips to peers without a tunnel; one a peer.
    pub candidate_rtts: Vec<CandidateRtt>,
    /// What other nodes say of themselves; one a peer.
    pub views: Vec<PeerRouteView>,
    /// Slots that may take a new dialled tunnel now.
    pub free_slots: Vec<Slot>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNUSED: Phase = Phase::Draining {
        reason: CloseReason::Unused,
    };
    const RENEWED: Phase = Phase::Draining {
        reason: CloseReason::Renewed,
    };
    const REVOKED: Phase = Phase::Draining {
        reason: CloseReason::Revoked,
    };

    #[test]
    fn counters_that_went_down_have_no_difference() {
        let counters = |rx_bytes, tx_packets| LinkCounters {
            rx_bytes,
            tx_bytes: 7,
            rx_packets: 2,
            tx_packets,
        };
        let grown = LinkCounters {
            rx_bytes: 30,
            tx_packets: 1,
            ..LinkCounters::default()
        };
        assert_eq!(counters(130, 6).since(counters(100, 5)), Some(grown));
        assert_eq!(counters(130, 4).since(counters(100, 5)), None);
        assert_eq!(counters(99, 6).since(counters(100, 5)), None);
    }

    #[test]
    fn a_drain_begins_when_up_and_takes_on_a_later_reason_unless_it_is_final() {
        for (before, reason, after) in [
            (Phase::Connecting, CloseReason::Unused, Phase::Connecting),
            (Phase::Up, CloseReason::Unused, UNUSED),
            (UNUSED, CloseReason::Renewed, RENEWED),
            (RENEWED, CloseReason::Revoked, REVOKED),
            (REVOKED, CloseReason::Renewed, REVOKED),
            (Phase::Closing, CloseReason::Revoked, Phase::Closing),
        ] {
            assert_eq!(before.drained_for(reason), after, "{before:?}, {reason}");
        }
    }

    #[test]
    fn a_drain_can_be_given_up_unless_its_reason_is_final() {
        for (before, after) in [
            (UNUSED, Phase::Up),
            (RENEWED, Phase::Up),
            (REVOKED, REVOKED),
            (Phase::Up, Phase::Up),
            (Phase::Connecting, Phase::Connecting),
            (Phase::Closing, Phase::Closing),
        ] {
            assert_eq!(before.undrained(), after, "{before:?}");
        }
    }
}
