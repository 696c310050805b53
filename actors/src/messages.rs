//! What actors tell each other: facts in the past tense, orders in the imperative.
//!
//! All have result `()`: nobody waits for an answer. A reading is complete and replaces the one
//! before it ([`offer`]); life events and orders come from bounded producers and go by `do_send`.

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
    /// When.
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
    /// When.
    pub at: Uptime,
    /// `None`: babeld is down or did not answer.
    pub table: Option<BabelTable>,
    /// The ways out of the network; none where `table` is.
    pub exit_routes: ExitRoutes,
}

/// The prober's picture of all tunnels.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ProbesRead {
    /// When.
    pub at: Uptime,
    /// One entry a tunnel.
    pub probes: Vec<ProbeReading>,
}

/// Who told us of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerSource {
    /// The registry's bootstrap answer.
    Registry,
    /// That node itself, over the overlay.
    Itself,
    /// Another node's sample.
    Gossip,
}

/// Somebody told us where peers can be dialled. Already filtered: no own, loopback, link-local,
/// overlay or (unless configured) private endpoint.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PeersReported {
    /// When.
    pub at: Uptime,
    /// From whom.
    pub source: PeerSource,
    /// Of each peer.
    pub peers: Vec<PeerReport>,
}

/// All peers of the cache that could be dialled.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PeersRead {
    /// When.
    pub at: Uptime,
    /// Sorted by prefix.
    pub candidates: Vec<Candidate>,
}

/// What was found out about peers without a tunnel, and what others say of themselves.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct CandidatesMeasured {
    /// When.
    pub at: Uptime,
    /// Round trips, sorted by peer.
    pub candidate_rtts: Vec<CandidateRtt>,
    /// Views, sorted by peer.
    pub views: Vec<PeerRouteView>,
}

/// A peer's round trip was sounded, or could not be.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct PeerSounded {
    /// When.
    pub at: Uptime,
    /// Whose.
    pub peer: Prefix,
    /// Whether anything came back in time.
    pub answered: bool,
}

/// An order, from the planner or from the prober.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Ordered {
    /// What shall be done.
    pub order: Order,
}

/// A dialled tunnel was begun or a peer was let in.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct TunnelOpened {
    /// When.
    pub at: Uptime,
    /// Where.
    pub slot: Slot,
    /// With whom.
    pub peer: Prefix,
}

/// Frames pass.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct TunnelCameUp {
    /// When.
    pub at: Uptime,
    /// Where.
    pub slot: Slot,
    /// With whom.
    pub peer: Prefix,
}

/// A tunnel has ended.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct TunnelClosed {
    /// When.
    pub at: Uptime,
    /// Where it was.
    pub slot: Slot,
    /// With whom.
    pub peer: Prefix,
    /// Why.
    pub reason: CloseReason,
    /// How long it was up; zero where it never was.
    pub lived: Duration,
}

/// Orders about tunnels were decided: by the planner, a rolling restart or a revocation.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Decided {
    /// When.
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
    /// Whether each may end without loss.
    pub tunnels: BTreeMap<Slot, bool>,
}

/// Reading of all port leases.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct LeasesRead {
    /// When.
    pub at: Uptime,
    /// All that stand now.
    pub leases: Vec<Lease>,
}

/// A port mapping on a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// UDP or TCP.
    pub transport: Transport,
    /// Our port.
    pub internal_port: u16,
    /// The gateway's address and port.
    pub external: SocketAddr,
    /// When it ends unless renewed.
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
    /// When.
    pub at: Uptime,
    /// Sorted by name.
    pub processes: Vec<ProcessReading>,
}

/// The registry answered, or did not.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct RegistryContacted {
    /// When.
    pub at: Uptime,
    /// One line that says why not.
    pub failure: Option<String>,
}

/// A member gave us a signed document over the overlay; nothing of it is verified yet.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct DocumentOffered {
    /// Who gave it, as its certificate says.
    pub from: Prefix,
    /// What it gave.
    pub document: SignedDocument,
}

/// The registry told which versions of the signed documents it has.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct VersionsReported {
    /// Of the network document.
    pub network: u64,
    /// Of the revocations.
    pub revocations: u64,
}

/// A newer signed document is held from now on.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct DocumentsChanged {
    /// Which; `None`: this is what was held from the start.
    pub kind: Option<DocumentKind>,
    /// All that is held now.
    pub held: Arc<CurrentDocuments>,
    /// The nodes of which a certificate is newly revoked.
    pub revoked: BTreeSet<Prefix>,
}

/// Certificate, CAs or keys on disk are others now, or (neither servers nor dials) were looked at.
///
/// OpenVPN reads them at its start only, so that its processes must be started anew in time.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct CredentialsChanged {
    /// When: processes that were started before have the old ones.
    pub at: Uptime,
    /// Version of the network document that the disk agrees with.
    pub network_version: u64,
    /// Servers must be started anew.
    pub servers: bool,
    /// Dialled tunnels must be made anew.
    pub dials: bool,
    /// Not to be begun before this long: so nodes take turns.
    pub after: Duration,
    /// From then on whatever cannot be drained is ended all the same.
    pub at_the_latest: Duration,
    /// End of the certificate's life, seconds since 1970.
    pub not_after_s: Option<u64>,
}

/// A guardian made an actor anew.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ActorRestarted {
    /// Which.
    pub actor: &'static str,
}
