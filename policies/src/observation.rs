//! Observations of the node: each part is complete and taken at one moment, never a difference.

use crate::{
    names::{Endpoint, Prefix, Role, Slot},
    orders::{CloseReason, Order},
    path_mtu::FullSize,
    units::Uptime,
};
use std::{sync::Arc, time::Duration};

/// The kernel's counters of one slot since its link was made (`IFLA_STATS64`).
///
/// Received and sent are meant as seen from this node; bytes are frame bytes with Ethernet headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Number of bytes received.
    pub rx_bytes: u64,
    /// Number of bytes sent.
    pub tx_bytes: u64,
    /// Number of frames received.
    pub rx_packets: u64,
    /// Number of frames sent.
    pub tx_packets: u64,
    /// Number of received frames that the kernel dropped.
    pub rx_dropped: u64,
    /// Number of frames that were to be sent and that the kernel dropped, such as when OpenVPN did not read its TAP in time.
    pub tx_dropped: u64,
}

impl LinkCounters {
    /// The counts since the `earlier` reading; `None` if a counter went down, since the kernel has recreated the
    /// link in between.
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            rx_bytes: self.rx_bytes.checked_sub(earlier.rx_bytes)?,
            tx_bytes: self.tx_bytes.checked_sub(earlier.tx_bytes)?,
            rx_packets: self.rx_packets.checked_sub(earlier.rx_packets)?,
            tx_packets: self.tx_packets.checked_sub(earlier.tx_packets)?,
            rx_dropped: self.rx_dropped.checked_sub(earlier.rx_dropped)?,
            tx_dropped: self.tx_dropped.checked_sub(earlier.tx_dropped)?,
        })
    }
}

/// The stage of a tunnel's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// OpenVPN runs, but has not reported CONNECTED (dialled), or has not reported ESTABLISHED after the answer to
    /// CONNECT (accepted).
    Connecting,
    /// Frames pass the tunnel.
    Up,
    /// Babel's hellos are kept off the slot; payload still flows.
    Draining {
        /// The reason for which the tunnel is to be closed.
        reason: CloseReason,
    },
    /// OpenVPN has been ordered to end.
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

    /// The reason for which the tunnel drains; `None` if it does not drain.
    pub fn drain_reason(self) -> Option<CloseReason> {
        match self {
            Self::Draining { reason } => Some(reason),
            Self::Connecting | Self::Up | Self::Closing => None,
        }
    }

    /// Returns whether the tunnel drains, for whatever reason.
    pub fn is_draining(self) -> bool {
        self.drain_reason().is_some()
    }

    /// The phase after an order to drain for `reason`. A drain that may be given up takes on the new reason.
    pub fn drained_for(self, reason: CloseReason) -> Self {
        match self {
            Self::Up => Self::Draining { reason },
            Self::Draining { reason: earlier } if earlier.can_be_abandoned() => {
                Self::Draining { reason }
            }
            Self::Connecting | Self::Draining { .. } | Self::Closing => self,
        }
    }

    /// The phase after an order to give the drain up.
    pub fn undrained(self) -> Self {
        match self {
            Self::Draining { reason } if reason.can_be_abandoned() => Self::Up,
            Self::Connecting | Self::Up | Self::Draining { .. } | Self::Closing => self,
        }
    }
}

/// One tunnel, as the store that outlives the actors holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelReading {
    /// The slot that the tunnel has to itself.
    pub slot: Slot,
    /// The node at the other end, proven by its certificate.
    pub peer: Prefix,
    /// The stage of its life.
    pub phase: Phase,
    /// The moment at which it entered `phase`.
    pub since: Uptime,
    /// The moment at which it came up; `None` while it connects.
    pub up_since: Option<Uptime>,
    /// The endpoint that this node dialled, or the address that the peer came from.
    pub endpoint: Option<Endpoint>,
}

impl TunnelReading {
    /// The end of the tunnel that this node is.
    pub fn role(&self) -> Role {
        self.slot.role()
    }

    /// What distinguishes the tunnel from an earlier or later one on its slot.
    pub fn identity(&self) -> TunnelIdentity {
        TunnelIdentity {
            peer: self.peer,
            up_since: self.up_since,
        }
    }
}

/// A tunnel together with its link's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkReading {
    /// The tunnel's state.
    pub tunnel: TunnelReading,
    /// Its slot's counters at the same moment.
    pub counters: LinkCounters,
}

/// What distinguishes a tunnel from an earlier or later one on its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelIdentity {
    /// The other end.
    pub peer: Prefix,
    /// When it came up; `None` while it connects.
    pub up_since: Option<Uptime>,
}

/// A Babel neighbour (RFC 8966, section 3.2.4) on a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The slot that its hellos arrive on.
    pub slot: Slot,
    /// The node, by its deterministic link-local address.
    pub peer: Prefix,
    /// Bit vector of received multicast hellos, the newest in the highest bit.
    pub reach: u16,
    /// Cost of receiving from it.
    pub rxcost: u16,
    /// Cost that it advertised to this node.
    pub txcost: u16,
    /// Round trip as babeld measures it, if it does.
    pub rtt: Option<Duration>,
    /// Cost of the link; 65535 means unreachable.
    pub cost: u16,
}

/// Infinity among Babel's metrics: no route.
pub const INFINITY: u16 = 65535;

/// One route of babeld's table towards a node's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination node.
    pub node: Prefix,
    /// The slot that packets leave by.
    pub slot: Slot,
    /// The neighbour that announced the route.
    pub via: Prefix,
    /// Whether babeld has installed the route in the kernel.
    pub installed: bool,
    /// Total metric; [`INFINITY`] means unreachable.
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

/// Counts of probes over a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    /// Number of probes sent.
    pub sent: u32,
    /// Number of these that were not answered in time.
    pub lost: u32,
}

/// The prober's knowledge of one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReading {
    /// The slot that is probed.
    pub slot: Slot,
    /// Smoothed round trip; `None` as long as no probe was answered.
    pub rtt: Option<Duration>,
    /// Mean deviation of the round trip.
    pub jitter: Duration,
    /// Number of probes sent in the last minute.
    pub sent: u32,
    /// Number of these that were not answered in time.
    pub lost: u32,
    /// Counts over the last [`LOSS_SPAN`](crate::probe_history::LOSS_SPAN), which is long enough to judge the loss
    /// of an idle tunnel, too.
    pub recent: ProbeCounts,
    /// Frames received since the tunnel came up that are probing and no payload: replies to our probes, and the
    /// peer's requests if the prober sees them.
    pub rx_frames: u64,
    /// Frames sent since then that are probing: our requests, and the kernel's replies to the peer's.
    pub tx_frames: u64,
    /// Whether full-size packets pass the tunnel.
    pub full_size: FullSize,
}

/// A peer counts as dead after this number of failed dials in a row.
pub const DEAD_FAILURES: u32 = 3;

/// A peer that could be dialled, as the peer cache knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node that can be dialled.
    pub peer: Prefix,
    /// Its endpoints, best first; never empty.
    pub endpoints: Vec<Endpoint>,
    /// Number of the first endpoints at which it answers on a LAN of this host.
    pub on_lan: usize,
    /// The moment at which its endpoints were last confirmed in this run; `None` if only the disk remembers it.
    pub confirmed_at: Option<Uptime>,
    /// The moment at which the last dial failed.
    pub failed_at: Option<Uptime>,
    /// Number of failed dials in a row.
    pub failures: u32,
    /// The metric that it adds to routes of others, by its own account; [`INFINITY`] if it announces none of them.
    pub transit_cost: u16,
}

impl Candidate {
    /// Returns whether it counts as dead: it is then dialled only if nobody else is left, and removed first.
    pub fn is_dead(&self) -> bool {
        self.failures >= DEAD_FAILURES
    }

    /// Returns whether it answers on a LAN of this host.
    pub fn is_on_lan(&self) -> bool {
        self.on_lan > 0
    }

    /// The endpoints at which it answers on a LAN of this host.
    pub fn lan_endpoints(&self) -> &[Endpoint] {
        self.endpoints.get(..self.on_lan).unwrap_or_default()
    }

    /// Removes the endpoints for which `keep` returns false.
    pub fn retain_endpoints(&mut self, keep: impl Fn(Endpoint) -> bool) {
        let lan = self.lan_endpoints().iter();
        self.on_lan = lan.filter(|endpoint| keep(**endpoint)).count();
        self.endpoints.retain(|endpoint| keep(*endpoint));
    }
}

impl ProbeReading {
    /// Share of the probes of the last minute without an answer, 0 to 1; `None` if none was sent.
    pub fn loss_ratio(&self) -> Option<f64> {
        (self.sent > 0).then(|| f64::from(self.lost) / f64::from(self.sent))
    }
}

/// The round trip to a peer that no tunnel leads to, measured from outside the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandidateRtt {
    /// The node that was probed.
    pub peer: Prefix,
    /// The moment of the probe.
    pub at: Uptime,
    /// The shortest round trip seen; `None` if nothing came back, which does not exclude a dial.
    pub rtt: Option<Duration>,
}

/// A path that both sides have just opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PunchedPath {
    /// The node at the other end.
    pub peer: Prefix,
    /// The address and port to which its NAT maps its server.
    pub endpoint: Endpoint,
    /// The port of this host from which it is to be dialled.
    pub local_port: u16,
    /// The end of the time in which it is worth a dial.
    pub until: Uptime,
}

/// A peer's route view: its own account, bounded by what this node sees itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRouteView {
    /// The node that gave the account.
    pub peer: Prefix,
    /// The moment at which it was asked.
    pub at: Uptime,
    /// It accepts one more tunnel.
    pub accepts_tunnels: bool,
    /// Number of tunnels that others dialled to it; `None` if it does not report that.
    pub accepted: Option<u16>,
    /// The metric by which its own routes would grow without its tunnel to this node; `None` if there is no such
    /// tunnel, or some node would be out of its reach.
    pub regret: Option<u64>,
    /// Its metric to other nodes: a sample, the same nodes for all who ask.
    pub distances: Vec<(Prefix, u16)>,
}

/// All that a plan is made from. Each part is complete; parts may differ in age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The present moment.
    pub at: Uptime,
    /// All tunnels with their counters.
    pub links: Vec<LinkReading>,
    /// babeld's tables; `None` until the first dump, and while babeld is down.
    pub babel: Option<Arc<BabelTable>>,
    /// The prober's readings, one per tunnel.
    pub probes: Vec<ProbeReading>,
    /// The peer cache's candidates.
    pub candidates: Vec<Candidate>,
    /// Round trips to peers without a tunnel, one per peer.
    pub candidate_rtts: Vec<CandidateRtt>,
    /// The route views of other nodes, one per peer.
    pub views: Vec<PeerRouteView>,
    /// Slots that may take a new dialled tunnel now.
    pub free_slots: Vec<Slot>,
    /// The paths that this node and a peer behind NAT have just opened, at most one per peer.
    pub punched: Vec<PunchedPath>,
}

impl Observation {
    /// The tunnel that an order is about, as it was when the links were read; `None` for a dial, and if the slot had no tunnel.
    pub fn judged_by(&self, order: &Order) -> Option<TunnelIdentity> {
        if matches!(order, Order::Open { .. }) {
            return None;
        }
        let mut tunnels = self.links.iter().map(|link| &link.tunnel);
        let found = tunnels.find(|tunnel| tunnel.slot == order.slot());
        found.map(TunnelReading::identity)
    }
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
            ..LinkCounters::default()
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
