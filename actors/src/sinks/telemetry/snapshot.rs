//! One consistent snapshot of the node, kept up to date by the messages of actors.
//!
//! Everything that must survive a restart of the telemetry actor is in it, so that the restarted
//! actor goes on from the last one published. Parts are shared ([`Arc`]) between snapshots and
//! copied on change.

pub use super::records::{Entry, Identity, RegistryContact, Served};
use super::{
    counts::{Counts, DrainOutcome, bump},
    traffic::{Row, Rows},
};
use crate::messages::{
    ActorRestarted, CandidateProbed, Decided, LeasesRead, PeersRead, ProbesRead, ProcessesRead,
    RegistryContacted, RoutesRead, TunnelCameUp, TunnelClosed, TunnelOpened,
};
use membership::documents::CurrentDocuments;
use policies::{
    names::{Prefix, Slot},
    observation::{BabelTable, INFINITY, ProbeReading},
    orders::Order,
    planner::Verdict,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use wire::{
    babel::{DefaultRoute, ExitRoutes},
    control::DECISIONS_KEPT,
};

/// A table or answer older than this no longer counts as an answer.
pub const STALE: Duration = Duration::from_secs(10);

/// The snapshot. Moments are [`Uptime`]; [`Snapshot::unix`] converts them to wall time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The time at which it was published.
    pub at: Uptime,
    /// The wall clock's time, since 1970 UTC, when the machine booted.
    pub booted: Duration,
    /// The facts that never change.
    pub identity: Arc<Identity>,
    /// All tunnels, including those closed in the last half minute.
    pub rows: Rows,
    /// babeld's tables; `None` while it is down.
    pub babel: Option<Arc<BabelTable>>,
    /// The default routes for packets from the network's range.
    pub exit_routes: Arc<ExitRoutes>,
    /// The time of babeld's last answer.
    pub babel_answered: Option<Uptime>,
    /// Routes by slot.
    pub served: Arc<BTreeMap<Slot, Served>>,
    /// Nodes that babeld has a route to.
    pub nodes_known: u64,
    /// Routes that babeld installed.
    pub routes_installed: u64,
    /// The last reading of the prober.
    pub probes: Arc<BTreeMap<Slot, ProbeReading>>,
    /// The last reading of the peer cache.
    pub peers: Arc<PeersRead>,
    /// The last reading of the leases.
    pub leases: Arc<LeasesRead>,
    /// All supervised processes.
    pub processes: Arc<ProcessesRead>,
    /// The state of the registry, as last seen.
    pub registry: Arc<RegistryContact>,
    /// The signed documents.
    pub documents: Arc<CurrentDocuments>,
    /// End of the node's certificate, seconds since 1970 UTC.
    pub certificate_not_after: Option<u64>,
    /// The counters of events.
    pub counts: Arc<Counts>,
    /// The last decisions, oldest first.
    pub log: Arc<VecDeque<Arc<Entry>>>,
    /// Decisions and ends logged since the start.
    pub logged: u64,
    /// The planner's opinions.
    pub verdicts: Arc<Vec<Verdict>>,
    /// Slots with a drain that is not over.
    pub draining: Arc<BTreeSet<Slot>>,
    /// Readings that full mailboxes refused.
    pub readings_dropped: u64,
}

impl Snapshot {
    /// The snapshot before any message.
    pub fn new(identity: Identity, booted: Duration) -> Self {
        let at = identity.started;
        Self {
            at,
            booted,
            rows: Rows::default(),
            babel: None,
            exit_routes: Arc::default(),
            babel_answered: None,
            served: Arc::default(),
            nodes_known: 0,
            routes_installed: 0,
            probes: Arc::default(),
            peers: Arc::new(PeersRead {
                at,
                candidates: Vec::new(),
            }),
            leases: Arc::new(LeasesRead {
                at,
                leases: Vec::new(),
            }),
            processes: Arc::new(ProcessesRead {
                at,
                processes: Vec::new(),
            }),
            registry: Arc::default(),
            documents: Arc::default(),
            certificate_not_after: None,
            counts: Arc::new(Counts::new(&identity.actors)),
            log: Arc::default(),
            logged: 0,
            verdicts: Arc::default(),
            draining: Arc::default(),
            readings_dropped: 0,
            identity: Arc::new(identity),
        }
    }

    /// The wall clock's time of a moment, since 1970 UTC.
    pub fn unix(&self, at: Uptime) -> Duration {
        self.booted.saturating_add(at.0)
    }

    /// babeld answered lately, and a tunnel is up or the registry answered when last asked.
    pub fn ready(&self) -> bool {
        let reaches = self.rows.live().any(Row::carries) || self.registry_up();
        self.babel_up() && reaches
    }

    /// babeld answered lately.
    pub fn babel_up(&self) -> bool {
        self.babel.is_some()
            && self
                .babel_answered
                .is_some_and(|at| self.at.since(at) < STALE)
    }

    /// The registry answered when last asked.
    pub fn registry_up(&self) -> bool {
        self.registry.answered.is_some() && self.registry.failure.is_none()
    }

    /// The least release that the network asks for, where that is newer than ours.
    pub fn wants_newer(&self) -> Option<&str> {
        self.documents
            .network()?
            .required_release_above(self.identity.software)
    }

    /// The node by which packets leave the network: ourselves, or the gateway of the default route that is used.
    pub fn gateway(&self) -> Option<Prefix> {
        let used = |route: &&DefaultRoute| route.installed && route.metric != INFINITY;
        let others = || {
            self.exit_routes
                .routes
                .iter()
                .find(used)
                .map(|route| route.gateway)
        };
        if self.exit_routes.own {
            Some(self.identity.prefix)
        } else {
            others()
        }
    }

    /// The routes through a slot.
    pub fn served_by(&self, slot: Slot) -> Served {
        self.served.get(&slot).copied().unwrap_or_default()
    }

    /// babeld was read.
    pub fn routes(&mut self, reading: RoutesRead) {
        if *self.exit_routes != reading.exit_routes {
            self.exit_routes = Arc::new(reading.exit_routes);
        }
        let Some(table) = reading.table else {
            self.babel = None;
            self.served = Arc::default();
            (self.nodes_known, self.routes_installed) = (0, 0);
            return;
        };
        let mut served: BTreeMap<Slot, (BTreeSet<Prefix>, u64)> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for route in &table.routes {
            let (nodes, routes) = served.entry(route.slot).or_default();
            *routes += 1;
            if route.installed {
                nodes.insert(route.node);
            }
            if route.metric != INFINITY {
                known.insert(route.node);
            }
        }
        let count = |(slot, (nodes, routes)): (Slot, (BTreeSet<Prefix>, u64))| {
            (
                slot,
                Served {
                    nodes: length(nodes.len()),
                    routes,
                },
            )
        };
        self.served = Arc::new(served.into_iter().map(count).collect());
        self.nodes_known = length(known.len());
        self.routes_installed = length(table.routes.iter().filter(|route| route.installed).count());
        self.babel = Some(Arc::new(table));
        self.babel_answered = Some(reading.at);
    }

    /// Tunnels were probed.
    pub fn probed(&mut self, reading: ProbesRead) {
        self.probes = Arc::new(
            reading
                .probes
                .into_iter()
                .map(|probe| (probe.slot, probe))
                .collect(),
        );
    }

    /// Takes note of an opened tunnel.
    pub fn opened(&mut self, fact: &TunnelOpened) {
        bump(
            &mut Arc::make_mut(&mut self.counts).opened,
            fact.slot.role(),
        );
        self.rows.opened(fact);
    }

    /// A tunnel came up.
    pub fn came_up(&mut self, fact: &TunnelCameUp) {
        bump(
            &mut Arc::make_mut(&mut self.counts).came_up,
            fact.slot.role(),
        );
    }

    /// A tunnel was closed.
    pub fn closed(&mut self, fact: &TunnelClosed) {
        let counts = Arc::make_mut(&mut self.counts);
        bump(&mut counts.closed, (fact.slot.role(), fact.reason));
        if Arc::make_mut(&mut self.draining).remove(&fact.slot) {
            bump(&mut counts.drains, DrainOutcome::Interrupted);
        }
        let carried = self.rows.closed(fact).unwrap_or_default();
        let terms = format!(
            "lived={} s received={} B sent={} B",
            fact.lived.as_secs(),
            carried.rx_bytes,
            carried.tx_bytes
        );
        self.log(
            fact.at,
            "closed",
            fact.slot,
            Some(fact.peer),
            fact.reason.label(),
            terms,
        );
    }

    /// Orders were decided, or verdicts reached.
    pub fn decided(&mut self, fact: Decided) {
        for decision in fact.decisions {
            let (order, reason) = (decision.order.label(), decision.order.reason_label());
            let slot = decision.order.slot();
            bump(
                &mut Arc::make_mut(&mut self.counts).decisions,
                (order, reason),
            );
            if let Some(outcome) = self.drain(&decision.order) {
                bump(&mut Arc::make_mut(&mut self.counts).drains, outcome);
            }
            let peer = match decision.order {
                Order::Open { peer, .. } => Some(peer),
                Order::Drain { .. } | Order::Undrain { .. } | Order::Close { .. } => {
                    self.rows.peer(slot)
                }
            };
            self.log(fact.at, order, slot, peer, reason, decision.terms);
        }
        if let Some(verdicts) = fact.verdicts
            && *self.verdicts != verdicts
        {
            self.verdicts = Arc::new(verdicts);
        }
    }

    /// Follows planned closes; returns the outcome of one that is complete.
    fn drain(&mut self, order: &Order) -> Option<DrainOutcome> {
        let draining = Arc::make_mut(&mut self.draining);
        match order {
            Order::Open { .. } => None,
            Order::Drain { slot, .. } => {
                draining.insert(*slot);
                None
            }
            Order::Undrain { slot, .. } => draining.remove(slot).then_some(DrainOutcome::Abandoned),
            Order::Close { slot, .. } => draining.remove(slot).then_some(DrainOutcome::Completed),
        }
    }

    fn log(
        &mut self,
        at: Uptime,
        order: &'static str,
        slot: Slot,
        peer: Option<Prefix>,
        reason: &'static str,
        terms: String,
    ) {
        self.logged = self.logged.saturating_add(1);
        let log = Arc::make_mut(&mut self.log);
        log.push_back(Arc::new(Entry {
            number: self.logged,
            at,
            order,
            slot,
            peer,
            reason,
            terms,
        }));
        while log.len() > DECISIONS_KEPT {
            log.pop_front();
        }
    }

    /// Counts an RTT probe of a candidate.
    pub fn candidate_probed(&mut self, fact: CandidateProbed) {
        let counts = Arc::make_mut(&mut self.counts);
        let count = if fact.answered {
            &mut counts.candidate_probes_answered
        } else {
            &mut counts.candidate_probes_unanswered
        };
        *count = count.saturating_add(1);
    }

    /// The registry answered or did not.
    pub fn registry_contacted(&mut self, fact: RegistryContacted) {
        let counts = Arc::make_mut(&mut self.counts);
        let registry = Arc::make_mut(&mut self.registry);
        registry.asked = Some(fact.at);
        if fact.failure.is_none() {
            registry.answered = Some(fact.at);
            counts.registry_answered = counts.registry_answered.saturating_add(1);
        } else {
            counts.registry_failed = counts.registry_failed.saturating_add(1);
        }
        registry.failure = fact.failure;
    }

    /// Counts the restart of an actor.
    pub fn actor_restarted(&mut self, fact: &ActorRestarted) {
        bump(&mut Arc::make_mut(&mut self.counts).remade, fact.actor);
    }
}

fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
