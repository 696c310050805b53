//! The messages between actors: facts in the past tense, orders in the imperative.
//! All have the result `()`, so no actor waits for another. A reading is complete and replaces the
//! previous one, so it is sent by [`crate::mailboxes::offer`], which drops it if the mailbox is full. Orders and
//! life-cycle events are few, and are sent by `do_send`, which always delivers.

mod hole_punches;
mod host_facts;
mod lan;
mod leases;
mod membership_facts;
mod route_checks;

pub use hole_punches::HolePunchesRead;
pub use host_facts::*;
pub use lan::{LanOutcome, LanPeer, LanRead};
pub use leases::{Lease, LeasesRead, MissingLease, MissingReason, PinholesRead};
pub use membership_facts::*;
pub use route_checks::{OriginsClaimed, RoutesSuspected};

use actix::{Message, Recipient};
use membership::documents::PrivateEndpointError;
use membership::peer_api::PeerReport;
use os::{
    process::{ChildEvent, EventListener, Exits, ProcessKind, ProcessReading},
    process_usage::ProcessUsage,
};
use policies::{
    names::{Endpoint, Prefix, Role, Slot},
    observation::{
        BabelTable, Candidate, CandidateRtt, LinkReading, PeerRouteView, ProbeReading,
        TunnelIdentity,
    },
    orders::{CloseReason, Decision, Order},
    probe_history::ProbeTotals,
    route_checks::OriginClaim,
    units::Uptime,
    waits::Wait,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use wire::babel::ExitRoutes;

/// The counters of all links with a tunnel were read.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct LinksSampled {
    /// When the reading was taken.
    pub at: Uptime,
    /// Every tunnel with its link's counters.
    pub links: Vec<LinkReading>,
    /// The dialling slots on which a tunnel can be opened now.
    pub free_slots: Vec<Slot>,
    /// Whether any peer has connected to one of our servers since the daemon started.
    pub was_reached: bool,
}

/// babeld was asked for its tables. While babeld does not run, nothing is sent, unless a tunnel drains; by `at`, a receiver sees whether its last table is too old.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct RoutesRead {
    /// When the reading was taken.
    pub at: Uptime,
    /// babeld's neighbours and routes; `None` if babeld did not answer.
    pub table: Option<Arc<BabelTable>>,
    /// The default routes for packets from the network's range; empty if babeld did not answer.
    pub exit_routes: ExitRoutes,
    /// What neighbours say about the origins of nodes' ranges; empty if babeld did not answer.
    pub claims: Arc<[OriginClaim]>,
}

/// The results of the probes of all tunnels were read.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ProbesRead {
    /// When the reading was taken.
    pub at: Uptime,
    /// One entry for each tunnel.
    pub probes: Vec<ProbeReading>,
    /// The probes of all tunnels since the prober started, those of closed tunnels included.
    pub totals: BTreeMap<Role, ProbeTotals>,
    /// When the neighbours were last asked whether they still reach this node; `None` if they never were.
    pub asked_at: Option<Uptime>,
}

/// The source of a report about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerSource {
    /// The registry, in its answer to a node that asks for peers.
    Registry,
    /// The peer itself, over the overlay.
    Itself,
    /// Another node, which reported some of the peers that it knows.
    Gossip,
}

/// The registry or a node reported where peers can be dialled. The endpoints are filtered: none is loopback, link-local or in
/// the overlay. Private ones are among them.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PeersReported {
    /// When the report arrived.
    pub at: Uptime,
    /// The source of the report.
    pub source: PeerSource,
    /// The endpoints of each peer.
    pub peers: Vec<PeerReport>,
}

/// The peer cache was read: all peers that could be dialled.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PeersRead {
    /// When the reading was taken.
    pub at: Uptime,
    /// The peers, sorted by prefix; only with endpoints that this node may dial.
    pub candidates: Vec<Candidate>,
    /// The endpoints that are known and not dialled, sorted by peer.
    pub unused: Vec<UnusedEndpoint>,
    /// The peers that are dialled by TCP first, since UDP carried small packets only.
    pub narrow: Vec<Prefix>,
}

/// An endpoint of a peer that this node does not dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnusedEndpoint {
    /// The prefix of the peer.
    pub peer: Prefix,
    /// The endpoint, whose address is private.
    pub endpoint: Endpoint,
    /// The reason why it is not dialled.
    pub reason: PrivateEndpointError,
}

/// Round-trip times to peers without a tunnel were measured, or route views of peers were fetched.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct CandidatesMeasured {
    /// When the reading was taken.
    pub at: Uptime,
    /// All measured round-trip times, sorted by peer.
    pub candidate_rtts: Vec<CandidateRtt>,
    /// All route views, sorted by peer.
    pub views: Vec<PeerRouteView>,
}

/// One RTT probe of a candidate was answered, or timed out.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct CandidateProbed {
    /// When it happened.
    pub at: Uptime,
    /// The prefix of the probed node.
    pub peer: Prefix,
    /// Whether the answer came in time.
    pub answered: bool,
}

/// The planner or the prober gave an order.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Ordered {
    /// The order, with its reason.
    pub order: Order,
    /// The tunnel that was judged. The order is dropped if its slot has another tunnel by now, which may have come up while the order was
    /// under way. `None`: the order is carried out whatever tunnel of the peer the slot has.
    pub about: Option<TunnelIdentity>,
}

/// A dial started, or a server accepted a client, and no frame has passed yet; or the daemon took over a tunnel at its start.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct TunnelOpened {
    /// When it happened; of a tunnel that was taken over, when it came up.
    pub at: Uptime,
    /// Whether the tunnel was taken over, and is up.
    pub is_up: bool,
    /// The slot of the tunnel.
    pub slot: Slot,
    /// The prefix of the node at the other end.
    pub peer: Prefix,
}

/// A tunnel came up: frames pass.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct TunnelCameUp {
    /// When it happened.
    pub at: Uptime,
    /// The slot of the tunnel.
    pub slot: Slot,
    /// The prefix of the node at the other end.
    pub peer: Prefix,
}

/// A tunnel closed, whether it had come up or not.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct TunnelClosed {
    /// When it happened.
    pub at: Uptime,
    /// The slot of the tunnel.
    pub slot: Slot,
    /// The prefix of the node at the other end.
    pub peer: Prefix,
    /// When the close was ordered; the time of the close itself if nobody ordered it.
    pub decided_at: Uptime,
    /// The reason of the close.
    pub reason: CloseReason,
    /// How long the tunnel was up; zero if it never came up.
    pub lived: Duration,
}

/// Orders about tunnels were decided: by the planner, a rolling restart or a revocation.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Decided {
    /// When the decisions were made.
    pub at: Uptime,
    /// The orders, each with the values that led to it; empty if the planner changes nothing.
    pub decisions: Vec<Decision>,
    /// The planner's verdict on each tunnel, for `warren why`; `None` if a rolling restart or a revocation decided.
    pub verdicts: Option<Vec<policies::planner::Verdict>>,
}

/// babeld has deleted a route and not added another one for a moment.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct RouteLost;

/// babeld has added a route to a destination that had none.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct RouteGained;

/// Logs a decision in one line. Opens and closes are logged when they have happened, and here for debugging only.
pub(crate) fn log_decision(decision: &Decision) {
    let terms = decision.terms.as_str();
    match &decision.order {
        Order::Open {
            slot,
            peer,
            endpoints: _,
            reason,
        } => tracing::debug!(tunnel = %slot, %peer, %reason, terms, "opening tunnel"),
        Order::Drain { slot, reason } => {
            tracing::info!(tunnel = %slot, %reason, terms, "draining tunnel before closing it");
        }
        Order::Undrain { slot, reason } => {
            tracing::info!(tunnel = %slot, %reason, terms, "keeping tunnel: its drain is given up");
        }
        Order::Close { slot, reason } => {
            tracing::debug!(tunnel = %slot, %reason, terms, "closing tunnel");
        }
    }
}

/// The drains of accepted tunnels were observed, whatever the reason of each drain.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct DrainsRead {
    /// For each draining accepted tunnel, whether it carries nothing any more and can be closed without loss.
    pub tunnels: BTreeMap<Slot, bool>,
}

/// A child process logged, sent or received something, or exited.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ChildReported(pub ChildEvent);

/// The mailbox of an actor, as a listener of its children's events.
pub struct ChildMailbox(pub Recipient<ChildReported>);

impl EventListener for ChildMailbox {
    fn is_connected(&self) -> bool {
        self.0.connected()
    }

    fn deliver(&self, event: ChildEvent) {
        self.0.do_send(ChildReported(event));
    }
}

/// The states of all supervised processes were read, and what they use.
#[derive(Clone, Debug, Default, Message)]
#[rtype(result = "()")]
pub struct ProcessesRead {
    /// When the reading was taken.
    pub at: Uptime,
    /// The processes, sorted by name.
    pub processes: Vec<ProcessReading>,
    /// Number of starts and exits of OpenVPN clients whose tunnel has closed since the daemon started.
    pub closed_clients: (u64, Exits),
    /// CPU time and memory of the processes that run, by pid.
    pub usage: BTreeMap<u32, ProcessUsage>,
    /// The kind of process and the number of dropped datagrams of each of OpenVPN's UDP sockets, by inode; `None` if they
    /// could not be read.
    pub udp_drops: Option<BTreeMap<u64, (ProcessKind, u64)>>,
    /// The number of dropped messages of each netlink socket of the daemon, by inode; `None` if they could not be read.
    pub netlink_drops: Option<BTreeMap<u64, u64>>,
}

/// Something waited for longer than its limit, and was ended.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct WaitOverdue {
    /// The phase that lasted too long.
    pub wait: Wait,
}

/// A guardian restarted an actor.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ActorRestarted {
    /// The name of the actor.
    pub actor: &'static str,
}
