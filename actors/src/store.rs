//! The shared state on the main thread, which outlives every actor.
//!
//! A restarted actor reads the present state here. Readers (the sampler, babeld's poller, the peer
//! cache) take copies; only the tunnels actor writes the tunnel table.

use crate::restart_lock::SharedRestartLock;
use arc_swap::ArcSwap;
use membership::{documents::DocumentStore, peer_api::SharedNodeDocument};
use os::{clock::Clock, randomness::Randomness};
use policies::{
    names::{Endpoint, Prefix, Slot},
    observation::{Candidate, TunnelReading},
    parameters::Parameters,
    route_view::RouteView,
    units::Uptime,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;
use wire::peer::NodeDocument;

/// The last reading of the peer cache, for those that do not receive it: the peer API's thread and
/// peer discovery.
pub type SharedCandidates = Arc<ArcSwap<Vec<Candidate>>>;

/// How we see the network, for the peer API.
pub type SharedRouteView = Arc<ArcSwap<RouteView>>;

/// What the node's configuration and its slots allow of the network's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalLimits {
    /// Most tunnels to dial.
    pub tunnels_to_dial: u16,
    /// Most tunnels to accept.
    pub max_accepted: u16,
    /// Most metrics that other nodes are shown. It is 0 where we would rather not carry their
    /// traffic, so that a tunnel to us is worth the path to us and no more.
    pub distances: usize,
}

impl LocalLimits {
    /// The parameters, lowered.
    pub fn of(self, parameters: Parameters) -> Parameters {
        Parameters {
            tunnels_to_dial: parameters.tunnels_to_dial.min(self.tunnels_to_dial),
            max_accepted: parameters.max_accepted.min(self.max_accepted),
            ..parameters
        }
    }
}

/// The shared state that outlives every actor. Clones share it.
#[derive(Clone)]
pub struct Store {
    /// The one clock.
    pub clock: Clock,
    /// The source of random numbers.
    pub random: Randomness,
    /// All tunnels; only the tunnels actor writes here.
    pub tunnels: Rc<RefCell<TunnelTable>>,
    /// The signed documents that the node currently holds.
    pub documents: DocumentStore,
    /// The peers that could be dialled, as the peer cache last published them.
    pub candidates: SharedCandidates,
    /// The node's description of itself, which the peer API shows.
    pub node_document: SharedNodeDocument,
    /// This node's view of the network's routes, which the peer API shows.
    pub route_view: SharedRouteView,
    /// The versions of the network document with which the processes run.
    pub applied: AppliedVersions,
    /// The restart lock that this node grants to itself or to one neighbour.
    pub restart_lock: SharedRestartLock,
}

impl Store {
    /// The store of node `me` before it knows anything: no documents, tunnels or candidates.
    pub fn new(clock: Clock, me: Prefix) -> Self {
        let node_document = NodeDocument {
            version: wire::peer::VERSION,
            prefix: me,
            endpoints: Vec::new(),
            software: String::new(),
            network_version: 0,
            revocations_version: 0,
            transit_cost: 0,
        };
        Self {
            restart_lock: SharedRestartLock::new(clock.clone()),
            clock,
            random: Randomness::from_system(),
            tunnels: Rc::default(),
            documents: DocumentStore::default(),
            candidates: SharedCandidates::default(),
            node_document: Arc::new(ArcSwap::from_pointee(node_document)),
            route_view: SharedRouteView::default(),
            applied: AppliedVersions::default(),
        }
    }
}

/// How dialling a peer went so far in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialHistory {
    /// Failed dials in a row.
    pub failures: u32,
    /// The time of the last failure.
    pub failed: Option<Uptime>,
    /// The endpoint that last came up.
    pub good: Option<Endpoint>,
}

/// Peers whose tunnel closed without an order of this node. One reader waits for them.
#[derive(Clone, Debug, Default)]
pub struct LostPeers(Rc<(RefCell<BTreeSet<Prefix>>, Notify)>);

impl LostPeers {
    /// A tunnel to that peer was lost.
    pub fn note(&self, peer: Prefix) {
        let (peers, news) = &*self.0;
        peers.borrow_mut().insert(peer);
        news.notify_one();
    }

    /// Waits until some are noted, and takes them.
    pub async fn take(&self) -> BTreeSet<Prefix> {
        let (peers, news) = &*self.0;
        loop {
            let taken = peers.take();
            if !taken.is_empty() {
                return taken;
            }
            news.notified().await;
        }
    }
}

/// Versions of the network document with which the processes run, by who runs them.
#[derive(Clone, Debug, Default)]
pub struct AppliedVersions(Arc<[AtomicU64; 2]>);

impl AppliedVersions {
    /// All OpenVPN processes run with that version.
    pub fn by_tunnels(&self, version: u64) {
        let [tunnels, _] = &*self.0;
        tunnels.store(version, Ordering::Relaxed);
    }

    /// babeld runs with that version.
    pub fn by_babeld(&self, version: u64) {
        let [_, babeld] = &*self.0;
        babeld.store(version, Ordering::Relaxed);
    }

    /// The version with which all run; 0 before all do.
    pub fn by_all(&self) -> u64 {
        let [tunnels, babeld] = &*self.0;
        tunnels
            .load(Ordering::Relaxed)
            .min(babeld.load(Ordering::Relaxed))
    }
}

/// All tunnels, and what is remembered of dials.
#[derive(Debug, Default)]
pub struct TunnelTable {
    /// By slot; a slot without an entry holds no tunnel.
    pub tunnels: BTreeMap<Slot, TunnelReading>,
    /// The history of dials, by peer.
    pub dials: BTreeMap<Prefix, DialHistory>,
    /// All dialling slots that exist.
    pub dialling_slots: Vec<Slot>,
    /// Slots that rest after a tunnel, until that moment.
    pub resting: BTreeMap<Slot, Uptime>,
    /// Whether any peer ever got through to our servers in this run.
    pub was_reached: bool,
    /// Peers whose tunnel was lost; the prober spreads the suspicion.
    pub losses: LostPeers,
}

impl TunnelTable {
    /// Dialling slots that may take a new tunnel now.
    pub fn free_slots(&self, now: Uptime) -> Vec<Slot> {
        let rests = |slot: &Slot| self.resting.get(slot).is_some_and(|until| *until > now);
        let free = |slot: &&Slot| !self.tunnels.contains_key(slot) && !rests(slot);
        self.dialling_slots.iter().filter(free).copied().collect()
    }

    /// Whether some tunnel drains: then babeld is asked more often.
    pub fn draining(&self) -> bool {
        self.tunnels
            .values()
            .any(|tunnel| tunnel.phase.is_draining())
    }
}
