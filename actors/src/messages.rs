//! The messages between actors: facts in the past tense, orders in the imperative.
//!
//! All have the result `()`, so no actor waits for another. A reading is complete and replaces the
//! one before it ([`offer`]); life-cycle events and orders come from bounded producers and go by
//! `do_send`.

use actix::{Message, Recipient};
use membership::documents::CurrentDocuments;
use membership::peer_api::PeerReport;
use os::process::{ChildEvent, EventListener, ProcessReading};
use policies::{
    names::{Prefix, Slot, Transport},
    observation::{BabelTable, Candidate, CandidateRtt, LinkReading, PeerRouteView, ProbeReading},
    orders::{CloseReason, Decision, Order},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use wire::{babel::ExitRoutes, registry::DocumentKind, signed::SignedDocument};

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Hands over a reading, or counts it as dropped where the mailbox is full: the next replaces it.
pub fn offer<M>(to: &Recipient<M>, reading: M)
where
    M: Message<Result = ()> + Send + 'static,
{
    if to.try_send(reading).is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many readings full mailboxes have refused since the start.
pub fn dropped_readings() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// All links with a tunnel were read at `at`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct LinksSampled {
    /// The time of the reading.
    pub at: Uptime,
    /// Every tunnel with its link's counters.
    pub links: Vec<LinkReading>,
    /// Dialling slots that may take a new tunnel now.
    pub free_slots: Vec<Slot>,
    /// Whether any peer ever got through to our servers in this run.
    pub was_reached: bool,
}

/// babeld was asked for its tables.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct RoutesRead {
    /// The time of the reading.
    pub at: Uptime,
    /// `None`: babeld is down or did not answer.
    pub table: Option<BabelTable>,
    /// The default routes for packets from the network's range; empty if `table` is `None`.
    pub exit_routes: ExitRoutes,
}

/// The prober has a new reading of all tunnels.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ProbesRead {
    /// The time of the reading.
    pub at: Uptime,
    /// One entry a tunnel.
    pub probes: Vec<ProbeReading>,
}

/// The source of a report about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerSource {
    /// The registry's bootstrap answer.
    Registry,
    /// That node itself, over the overlay.
    Itself,
    /// Another node's sample.
    Gossip,
}

/// Somebody reported where peers can be dialled. The endpoints are filtered: none is our own,
/// loopback, link-local, in the overlay or (unless configured) private.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PeersReported {
    /// The time of the reading.
    pub at: Uptime,
    /// The source of the report.
    pub source: PeerSource,
    /// Of each peer.
    pub peers: Vec<PeerReport>,
}

/// All peers of the cache that could be dialled.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PeersRead {
    /// The time of the reading.
    pub at: Uptime,
    /// Sorted by prefix.
    pub candidates: Vec<Candidate>,
}

/// Round trips to peers without a tunnel were measured, or route views of peers were fetched.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct CandidatesMeasured {
    /// The time of the reading.
    pub at: Uptime,
    /// Round trips, sorted by peer.
    pub candidate_rtts: Vec<CandidateRtt>,
    /// Views, sorted by peer.
    pub views: Vec<PeerRouteView>,
}

/// One RTT probe of a candidate is complete.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct CandidateProbed {
    /// The time of the reading.
    pub at: Uptime,
    /// The prefix of the probed node.
    pub peer: Prefix,
    /// Whether an answer came in time.
    pub answered: bool,
}

/// An order, from the planner or from the prober.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Ordered {
    /// The order, with its reason.
    pub order: Order,
}

/// A tunnel was dialled, or a peer was let in.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct TunnelOpened {
    /// The time of the event.
    pub at: Uptime,
    /// The slot of the tunnel.
    pub slot: Slot,
    /// The prefix of the node at the other end.
    pub peer: Prefix,
}

/// A tunnel came up: frames pass.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct TunnelCameUp {
    /// The time of the event.
    pub at: Uptime,
    /// The slot of the tunnel.
    pub slot: Slot,
    /// The prefix of the node at the other end.
    pub peer: Prefix,
}

/// A tunnel is closed.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct TunnelClosed {
    /// The time of the event.
    pub at: Uptime,
    /// The slot that the tunnel had.
    pub slot: Slot,
    /// The prefix of the node at the other end.
    pub peer: Prefix,
    /// The reason of the close.
    pub reason: CloseReason,
    /// How long it was up; zero where it never was.
    pub lived: Duration,
}

/// Orders about tunnels were decided: by the planner, a rolling restart or a revocation.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Decided {
    /// The time of the reading.
    pub at: Uptime,
    /// The orders with the terms by which they were decided; none where the planner leaves things as they are.
    pub decisions: Vec<Decision>,
    /// What the planner thinks of each tunnel now, for `warren why`; `None` where another policy decided.
    pub verdicts: Option<Vec<policies::planner::Verdict>>,
}

/// Writes the one log line of a decision.
pub(crate) fn log_decision(decision: &Decision) {
    let terms = decision.terms.as_str();
    match &decision.order {
        Order::Open {
            slot,
            peer,
            endpoints: _,
            reason,
        } => tracing::info!(tunnel = %slot, %peer, %reason, terms, "opening tunnel"),
        Order::Drain { slot, reason } => {
            tracing::info!(tunnel = %slot, %reason, terms, "draining tunnel before closing it");
        }
        Order::Undrain { slot, reason } => {
            tracing::info!(tunnel = %slot, %reason, terms, "keeping tunnel: its drain is given up");
        }
        Order::Close { slot, reason } => {
            tracing::info!(tunnel = %slot, %reason, terms, "closing tunnel");
        }
    }
}

/// How far the drains of accepted tunnels are, by whatever reason they drain.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct DrainsRead {
    /// Whether each draining tunnel may be closed without loss.
    pub tunnels: BTreeMap<Slot, bool>,
}

/// Reading of all port leases.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct LeasesRead {
    /// The time of the reading.
    pub at: Uptime,
    /// All that stand now.
    pub leases: Vec<Lease>,
}

/// A port mapping on a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// UDP or TCP.
    pub transport: Transport,
    /// The port on this host.
    pub internal_port: u16,
    /// The gateway's address and port.
    pub external: SocketAddr,
    /// The time at which the lease expires unless it is renewed.
    pub until: Uptime,
}

/// Something happened to a child process.
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

/// All supervised processes.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ProcessesRead {
    /// The time of the reading.
    pub at: Uptime,
    /// Sorted by name.
    pub processes: Vec<ProcessReading>,
}

/// The registry answered, or did not.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct RegistryContacted {
    /// The time of the reading.
    pub at: Uptime,
    /// The error in one line, if the call failed.
    pub failure: Option<String>,
}

/// A member gave us a signed document over the overlay; nothing of it is verified yet.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct DocumentOffered {
    /// The sender, as its certificate states.
    pub from: Prefix,
    /// The document that was posted.
    pub document: SignedDocument,
}

/// The registry reported the versions of its signed documents.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct VersionsReported {
    /// The version of the network document.
    pub network: u64,
    /// The version of the revocation list.
    pub revocations: u64,
}

/// A newer signed document has become current.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct DocumentsChanged {
    /// The kind of the new document; `None` for the first message, about the documents loaded at the start.
    pub kind: Option<DocumentKind>,
    /// All current documents.
    pub documents: Arc<CurrentDocuments>,
    /// The nodes of which a certificate is newly revoked.
    pub revoked: BTreeSet<Prefix>,
}

/// Certificates, CAs or keys on disk were replaced; or, if neither `servers` nor `dials` is set, were checked and are current.
///
/// OpenVPN reads them at its start only, so its processes must be restarted in time.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct CredentialsChanged {
    /// The time of the replacement: processes started earlier use the old files.
    pub at: Uptime,
    /// Version of the network document that the disk agrees with.
    pub network_version: u64,
    /// Whether the servers must be restarted.
    pub servers: bool,
    /// Whether dialled tunnels must be restarted.
    pub dials: bool,
    /// Delay before the first restart, so that not all nodes restart at the same time.
    pub after: Duration,
    /// Delay after which a tunnel that cannot be drained is closed undrained.
    pub at_the_latest: Duration,
    /// The certificate's notAfter, in seconds since 1970; `None` if it cannot be read.
    pub not_after_s: Option<u64>,
}

/// A guardian restarted an actor.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ActorRestarted {
    /// The name of the actor.
    pub actor: &'static str,
}
