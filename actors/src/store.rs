//! The state that actors share on the main thread, and that outlives each of them.
//!
//! A restarted actor reads the current state here. The sampler, `babeld`, the peer cache and others copy
//! what they need from the tunnel table; only the tunnels actor writes it.

use crate::{
    hole_punches::SharedHolePunches, live_settings::SharedLiveSettings, operator::SharedPins,
    restart_lock::SharedRestartLock,
};
use arc_swap::ArcSwap;
use membership::{documents::DocumentStore, node_names::NodeNames, peer_api::SharedNodeDocument};
use os::{clock::Clock, randomness::Randomness};
use policies::{
    names::{Endpoint, Prefix, Slot},
    observation::{Candidate, Phase, PunchedPath, TunnelReading},
    route_checks::{Members, RouteChecks},
    route_view::RouteView,
    shared_keys::SharedKeys,
    units::Uptime,
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use wire::peer::NodeDocument;

/// The last reading of the peer cache, for its readers that receive no messages from it: the peer API's
/// thread and peer discovery.
pub type SharedCandidates = Arc<ArcSwap<Vec<Candidate>>>;

/// This node's view of the network's routes, which the peer API shows to other nodes.
pub type SharedRouteView = Arc<ArcSwap<RouteView>>;

/// The shared state that outlives every actor. Clones share it.
#[derive(Clone)]
pub struct Store {
    /// The clock that all actors read.
    pub clock: Clock,
    /// The source of random numbers.
    pub random: Randomness,
    /// The table of all tunnels; only the tunnels actor writes it.
    pub tunnels: Rc<RefCell<TunnelTable>>,
    /// The current signed documents.
    pub documents: DocumentStore,
    /// The peers that could be dialled, as the peer cache last published them.
    pub candidates: SharedCandidates,
    /// The names of nodes, this one included; the peer cache keeps them on disk.
    pub names: NodeNames,
    /// The node's document about itself, which the peer API shows.
    pub node_document: SharedNodeDocument,
    /// This node's view of the network's routes, which the peer API shows.
    pub route_view: SharedRouteView,
    /// The versions of the network document that the running processes were started with.
    pub applied: AppliedVersions,
    /// The number of nodes in babeld's table, with this one; only the documents actor writes it.
    pub node_count: Rc<Cell<usize>>,
    /// The checks of babeld's routes, and the nodes that failed them; only the policy actor changes them.
    pub route_checks: Rc<RefCell<RouteChecks>>,
    /// The addresses from which nodes have dialled this one, to recognise a key that two machines use; only the tunnels actor changes it.
    pub shared_keys: Rc<RefCell<SharedKeys>>,
    /// The size of the network, as the registry last reported it; only the registry client writes it.
    pub members: Rc<Cell<Option<Members>>>,
    /// The restart lock that this node grants to itself or to its neighbours.
    pub restart_lock: SharedRestartLock,
    /// What is known of paths between this node and others behind NATs.
    pub punches: SharedHolePunches,
    /// The settings that a reload of the configuration changes.
    pub settings: SharedLiveSettings,
    /// Whether the host drops what the node should forward for others; only the host reconciler changes it.
    pub is_transit_blocked: Rc<Cell<bool>>,
    /// Whether the network's IPv4 range overlaps a network of the host, so that the node has no IPv4; only the host reconciler changes it.
    pub has_ipv4_overlap: Rc<Cell<bool>>,
    /// The nodes that an operator has pinned; only the policy actor writes it.
    pub pins: SharedPins,
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
            restart_lock: SharedRestartLock::new(me, clock.clone()),
            punches: SharedHolePunches::new(clock.clone()),
            clock,
            random: Randomness::from_system(),
            tunnels: Rc::default(),
            route_checks: Rc::default(),
            shared_keys: Rc::default(),
            members: Rc::default(),
            documents: DocumentStore::default(),
            candidates: SharedCandidates::default(),
            names: NodeNames::default(),
            node_document: Arc::new(ArcSwap::from_pointee(node_document)),
            route_view: SharedRouteView::default(),
            applied: AppliedVersions::default(),
            settings: SharedLiveSettings::default(),
            pins: SharedPins::default(),
            node_count: Rc::new(Cell::new(1)),
            is_transit_blocked: Rc::default(),
            has_ipv4_overlap: Rc::default(),
        }
    }
}

/// The results of dialling one peer since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialHistory {
    /// Number of failed dials in a row.
    pub failures: u32,
    /// When a dial last failed.
    pub failed: Option<Uptime>,
    /// The endpoint at which the peer was last reached.
    pub good: Option<Endpoint>,
}

/// How a tunnel was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The peer no longer answered.
    Silent,
    /// This end of the tunnel closed without a notice to the peer, for example because OpenVPN's server was killed.
    Unannounced,
}

/// Peers whose tunnel was lost, and how.
pub type Losses = BTreeSet<(Prefix, Loss)>;

/// The peers whose tunnel was lost without a plan. The prober is the one reader.
#[derive(Clone, Debug, Default)]
pub struct LostPeers(Rc<(RefCell<Losses>, Notify)>);

impl LostPeers {
    /// Records that the tunnel to this peer was lost.
    pub fn note(&self, peer: Prefix, loss: Loss) {
        let (peers, added) = &*self.0;
        peers.borrow_mut().insert((peer, loss));
        added.notify_one();
    }

    /// Waits until there are lost peers, and removes and returns them.
    pub async fn take(&self) -> Losses {
        let (peers, added) = &*self.0;
        loop {
            let lost = peers.take();
            if !lost.is_empty() {
                return lost;
            }
            added.notified().await;
        }
    }
}

/// The versions of the network document that OpenVPN and babeld were started with.
#[derive(Clone, Debug, Default)]
pub struct AppliedVersions(Arc<[AtomicU64; 2]>);

impl AppliedVersions {
    /// Records that all OpenVPN processes run with this version.
    pub fn set_for_tunnels(&self, version: u64) {
        let [tunnels, _] = &*self.0;
        tunnels.store(version, Ordering::Relaxed);
    }

    /// Records that babeld runs with this version.
    pub fn set_for_babeld(&self, version: u64) {
        let [_, babeld] = &*self.0;
        babeld.store(version, Ordering::Relaxed);
    }

    /// Returns the older of the two versions; 0 until both are recorded.
    pub fn oldest(&self) -> u64 {
        let [tunnels, babeld] = &*self.0;
        tunnels
            .load(Ordering::Relaxed)
            .min(babeld.load(Ordering::Relaxed))
    }
}

/// All tunnels, and the history of dials.
#[derive(Debug, Default)]
pub struct TunnelTable {
    /// The tunnel on each slot; a slot without an entry has no tunnel.
    pub tunnels: BTreeMap<Slot, TunnelReading>,
    /// The results of dialling each peer. The peer cache drops those of peers that it does not know, so there are at most
    /// [`MAX_PEERS`](crate::sources::peer_cache::directory::MAX_PEERS) of them, and one more for each dial of the last second.
    pub dials: BTreeMap<Prefix, DialHistory>,
    /// The peers to which UDP carried small packets only, and when that was noticed. The prober adds them; entries are at most one
    /// for each peer of [`Self::dials`], and expire after [`NARROW_SPAN`].
    pub narrow_since: BTreeMap<Prefix, Uptime>,
    /// The paths to peers behind NATs that are open; the hole punching actor adds and removes them.
    pub punched: BTreeMap<Prefix, PunchedPath>,
    /// Slots whose tunnel came by hole punching.
    pub punched_slots: BTreeSet<Slot>,
    /// All dialling slots that exist, sorted. Their numbers have no gap.
    pub dialling_slots: Vec<Slot>,
    /// Slots whose tunnel has closed, and until when no new tunnel is opened on each; at most one entry per slot.
    pub cooldown_until: BTreeMap<Slot, Uptime>,
    /// When a tunnel last closed; babeld's tables are read more often for a while after that.
    pub closed_at: Option<Uptime>,
    /// Whether any peer has connected to one of our servers since the daemon started.
    pub was_reached: bool,
    /// The peers whose tunnel was lost; the prober notifies them or their other neighbours.
    pub lost_peers: LostPeers,
}

/// Time for which a peer is dialled by TCP first after UDP carried small packets only.
pub const NARROW_SPAN: Duration = Duration::from_secs(3600);

impl TunnelTable {
    /// Returns the peers that are dialled by TCP first, sorted.
    pub fn narrow_peers(&self, now: Uptime) -> Vec<Prefix> {
        let peers = self.narrow_since.keys().copied();
        peers.filter(|peer| self.prefers_tcp(*peer, now)).collect()
    }

    /// Returns whether this peer is dialled by TCP first, since UDP carried small packets only.
    pub fn prefers_tcp(&self, peer: Prefix, now: Uptime) -> bool {
        let since = self.narrow_since.get(&peer);
        since.is_some_and(|since| now.since(*since) < NARROW_SPAN)
    }

    /// Returns the dialling slots on which a tunnel can be opened now.
    pub fn free_slots(&self, now: Uptime) -> Vec<Slot> {
        let is_free =
            |slot: &&Slot| !self.tunnels.contains_key(slot) && !self.is_cooling_down(**slot, now);
        self.dialling_slots
            .iter()
            .filter(is_free)
            .copied()
            .collect()
    }

    /// Returns whether no new tunnel can be opened on `slot` yet, because its last one closed a short while ago.
    pub fn is_cooling_down(&self, slot: Slot, now: Uptime) -> bool {
        self.cooldown_until
            .get(&slot)
            .is_some_and(|until| *until > now)
    }

    /// Returns whether a tunnel closed within this span.
    pub fn has_closed_within(&self, span: Duration, now: Uptime) -> bool {
        self.closed_at.is_some_and(|at| now.since(at) < span)
    }

    /// Returns whether any tunnel drains or closes; babeld's tables are then read more often.
    pub fn has_draining_or_closing_tunnel(&self) -> bool {
        self.tunnels
            .values()
            .any(|tunnel| tunnel.phase.is_draining() || tunnel.phase == Phase::Closing)
    }
}
