//! A consistent snapshot of the node, which the messages of actors update.
//!
//! It contains everything that must survive a restart of the telemetry actor, so that the restarted
//! actor continues from the last published snapshot. Successive snapshots share the parts that have not changed
//! ([`Arc`]).

pub use super::records::{Entry, HostRecord, NodeDescription, ReadTimes, RegistryContact, Served};
use super::{
    children::Children,
    counts::{Counts, DrainOutcome, increment},
    event_log::EventLog,
    route_history::RouteHistory,
    traffic::Rows,
};
use crate::messages::{
    ActorRestarted, CandidateProbed, Decided, EndpointsChecked, HolePunchesRead, LanRead,
    LeasesRead, OwnCertificate, OwnEndpointsRead, PeersRead, PinholesRead, ProbesRead,
    ProcessesRead, RoutesSuspected, WaitOverdue,
};
use membership::{documents::CurrentDocuments, node_names::NamesInForce};
use policies::{
    names::{Prefix, Role, Slot, Transport},
    observation::{BabelTable, INFINITY, ProbeReading},
    orders::Order,
    planner::Verdict,
    probe_history::ProbeTotals,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use wire::{
    babel::{DefaultRoute, ExitRoutes},
    control::DECISIONS_KEPT,
};

/// Age from which babeld's last answer no longer shows that babeld runs.
pub const STALE: Duration = Duration::from_secs(10);

/// Number of restarts of one process whose times are kept.
pub const RESTARTS_KEPT: usize = 8;

/// The snapshot. Times are [`Uptime`]; [`Snapshot::unix`] converts them to the wall clock's time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the snapshot was published.
    pub at: Uptime,
    /// When the machine booted, as the wall clock's time since 1970 UTC.
    pub booted_at: Duration,
    /// The facts that never change.
    pub identity: Arc<NodeDescription>,
    /// All tunnels, including those closed in the last half minute.
    pub rows: Rows,
    /// babeld's table; the last one while babeld does not answer, and `None` before its first answer.
    pub babel: Option<Arc<BabelTable>>,
    /// Whether babeld answered the last request.
    pub is_babel_answering: bool,
    /// The default routes for packets from the network's range.
    pub exit_routes: Arc<ExitRoutes>,
    /// When readings were last taken.
    pub read_times: ReadTimes,
    /// The installed routes as last read, and how they changed.
    pub route_history: Arc<RouteHistory>,
    /// The numbers of nodes and routes that are reached through each slot.
    pub served: Arc<BTreeMap<Slot, Served>>,
    /// Number of nodes to which babeld has a route, installed or not.
    pub nodes_known: u64,
    /// Number of nodes that can be reached: babeld has installed a route to them, and its metric is finite.
    pub nodes_reachable: u64,
    /// Number of routes that babeld has installed and that lead somewhere.
    pub routes_installed: u64,
    /// Number of routes that babeld has installed as unreachable, since it lost all others to the node.
    pub routes_unreachable: u64,
    /// The last reading of the prober.
    pub probes: Arc<BTreeMap<Slot, ProbeReading>>,
    /// The probes of all tunnels since the prober started, by role.
    pub probe_totals: Arc<BTreeMap<Role, ProbeTotals>>,
    /// When the neighbours were last asked whether they still reach this node.
    pub asked_at: Option<Uptime>,
    /// The last reading of the peer cache.
    pub peers: Arc<PeersRead>,
    /// The names of nodes that are in force.
    pub names: Arc<NamesInForce>,
    /// The last reading of the nodes on the LANs of the host.
    pub lan: Arc<LanRead>,
    /// The last reading of the attempts to open paths through NATs.
    pub hole_punches: Arc<HolePunchesRead>,
    /// The nodes that an operator has pinned.
    pub pins: Arc<BTreeSet<Prefix>>,
    /// The last reading of the leases of port mappings.
    pub leases: Arc<LeasesRead>,
    /// The last reading of the ports for which the router's firewall is open.
    pub pinholes: Arc<PinholesRead>,
    /// The last reading of all supervised processes.
    pub processes: Arc<ProcessesRead>,
    /// The sums over all processes that ever ran.
    pub children: Arc<Children>,
    /// The last call to the registry.
    pub registry: Arc<RegistryContact>,
    /// The current signed documents.
    pub documents: Arc<CurrentDocuments>,
    /// The node's certificate; `None` before it was read.
    pub certificate: Option<Arc<OwnCertificate>>,
    /// The endpoints that the node announces.
    pub own_endpoints: Arc<OwnEndpointsRead>,
    /// What other nodes found of them.
    pub endpoint_checks: Arc<EndpointsChecked>,
    /// When a tunnel was last accepted, by transport and by whether the client came from a private address.
    pub reached: BTreeMap<(Transport, bool), Uptime>,
    /// The configuration keys whose new values need a restart.
    pub pending_restart: Arc<Vec<String>>,
    /// When babeld and the OpenVPN servers were last restarted, by name; at most `RESTARTS_KEPT` each.
    pub restarts: Arc<BTreeMap<String, VecDeque<Uptime>>>,
    /// What others did to the node's part of the host.
    pub host: Arc<HostRecord>,
    /// Nodes whose key two machines use, and from where these came.
    pub shared_keys: Arc<BTreeMap<Prefix, (Uptime, [IpAddr; 2])>>,
    /// The counters of events.
    pub counts: Arc<Counts>,
    /// The last entries of the log for `warren why`, oldest first.
    pub log: Arc<VecDeque<Arc<Entry>>>,
    /// Number of entries logged since the start.
    pub entries_logged: u64,
    /// What changed lately.
    pub events: EventLog,
    /// The planner's verdict on each tunnel.
    pub verdicts: Arc<Vec<Verdict>>,
    /// The slots of tunnels that drain.
    pub draining: Arc<BTreeSet<Slot>>,
    /// Number of readings that were dropped because a mailbox was full.
    pub readings_dropped: BTreeMap<&'static str, u64>,
}

impl Snapshot {
    /// Builds the snapshot of a node whose actors have sent no message yet.
    pub fn new(identity: NodeDescription, booted_at: Duration) -> Self {
        let at = identity.started;
        Self {
            at,
            booted_at,
            rows: Rows::default(),
            babel: None,
            is_babel_answering: false,
            exit_routes: Arc::default(),
            read_times: ReadTimes::default(),
            route_history: Arc::default(),
            served: Arc::default(),
            nodes_known: 0,
            nodes_reachable: 0,
            routes_installed: 0,
            routes_unreachable: 0,
            probes: Arc::default(),
            probe_totals: Arc::default(),
            asked_at: None,
            peers: Arc::new(PeersRead {
                at,
                candidates: Vec::new(),
                unused: Vec::new(),
                narrow: Vec::new(),
            }),
            names: Arc::default(),
            lan: Arc::default(),
            hole_punches: Arc::default(),
            pinholes: Arc::default(),
            pins: Arc::default(),
            leases: Arc::new(LeasesRead {
                at,
                leases: Vec::new(),
                missing: None,
            }),
            processes: Arc::new(ProcessesRead {
                at,
                ..ProcessesRead::default()
            }),
            children: Arc::default(),
            registry: Arc::default(),
            documents: Arc::default(),
            certificate: None,
            own_endpoints: Arc::default(),
            endpoint_checks: Arc::default(),
            reached: BTreeMap::new(),
            pending_restart: Arc::default(),
            restarts: Arc::default(),
            host: Arc::default(),
            shared_keys: Arc::default(),
            counts: Arc::new(Counts::new(&identity.actors)),
            log: Arc::default(),
            entries_logged: 0,
            events: EventLog::default(),
            verdicts: Arc::default(),
            draining: Arc::default(),
            readings_dropped: BTreeMap::new(),
            identity: Arc::new(identity),
        }
    }

    /// Converts a time to the wall clock's time since 1970 UTC.
    pub fn unix(&self, at: Uptime) -> Duration {
        self.booted_at.saturating_add(at.0)
    }

    /// Returns whether babeld answered the last request, within the last [`STALE`].
    pub fn is_babel_up(&self) -> bool {
        let is_recent = |at| self.at.since(at) < STALE;
        self.is_babel_answering && self.read_times.routes.is_some_and(is_recent)
    }

    /// Returns whether the registry answered the last call.
    pub fn is_registry_up(&self) -> bool {
        self.registry.answered_at.is_some() && self.registry.failure.is_none()
    }

    /// Returns the minimum release that the network requires, if it is newer than this one.
    pub fn required_release(&self) -> Option<&str> {
        self.documents
            .network()?
            .required_release_above(self.identity.software)
    }

    /// Returns the exit gateway by which this node's packets leave the network: this node itself, or the gateway of
    /// the installed default route.
    pub fn gateway(&self) -> Option<Prefix> {
        let is_used = |route: &&DefaultRoute| route.installed && route.metric != INFINITY;
        let other_gateway = || {
            self.exit_routes
                .routes
                .iter()
                .find(is_used)
                .map(|route| route.gateway)
        };
        if self.exit_routes.own {
            Some(self.identity.prefix)
        } else {
            other_gateway()
        }
    }

    /// Returns the numbers of nodes and routes that are reached through a slot.
    pub fn served_by(&self, slot: Slot) -> Served {
        self.served.get(&slot).copied().unwrap_or_default()
    }

    /// Records a reading of the probes of all tunnels.
    pub fn on_probes_read(&mut self, reading: ProbesRead) {
        self.read_times.probes = Some(reading.at);
        self.probe_totals = Arc::new(reading.totals);
        self.asked_at = reading.asked_at;
        self.probes = Arc::new(
            reading
                .probes
                .into_iter()
                .map(|probe| (probe.slot, probe))
                .collect(),
        );
    }

    /// Counts a phase that lasted longer than its limit.
    pub fn on_wait_overdue(&mut self, fact: WaitOverdue) {
        increment(&mut Arc::make_mut(&mut self.counts).overdue, fact.wait);
    }

    /// Counts a neighbour that announced false routes.
    pub fn on_routes_suspected(&mut self, fact: RoutesSuspected) {
        increment(
            &mut Arc::make_mut(&mut self.counts).suspicious_routes,
            fact.kind,
        );
    }

    /// Counts and logs decisions, and records the planner's verdicts.
    pub fn on_decided(&mut self, fact: Decided) {
        for decision in fact.decisions {
            let (order, reason) = (decision.order.label(), decision.order.reason_label());
            let slot = decision.order.slot();
            increment(
                &mut Arc::make_mut(&mut self.counts).decisions,
                (order, reason),
            );
            if let Some(outcome) = self.update_draining(&decision.order) {
                increment(&mut Arc::make_mut(&mut self.counts).drains, outcome);
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

    /// Records which tunnels drain; returns the outcome of a drain that this order ends.
    fn update_draining(&mut self, order: &Order) -> Option<DrainOutcome> {
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

    pub(super) fn log(
        &mut self,
        at: Uptime,
        order: &'static str,
        slot: Slot,
        peer: Option<Prefix>,
        reason: &'static str,
        terms: String,
    ) {
        self.entries_logged = self.entries_logged.saturating_add(1);
        let log = Arc::make_mut(&mut self.log);
        log.push_back(Arc::new(Entry {
            number: self.entries_logged,
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
    pub fn on_candidate_probed(&mut self, fact: CandidateProbed) {
        let counts = Arc::make_mut(&mut self.counts);
        let count = if fact.answered {
            &mut counts.candidate_probes_answered
        } else {
            &mut counts.candidate_probes_unanswered
        };
        *count = count.saturating_add(1);
    }

    /// Counts the restart of an actor.
    pub fn on_actor_restarted(&mut self, fact: &ActorRestarted) {
        increment(
            &mut Arc::make_mut(&mut self.counts).actor_restarts,
            fact.actor,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::orders::{CloseReason, Decision};
    use wire::overlay::Network;

    #[test]
    fn only_the_last_decisions_are_kept() {
        let identity = NodeDescription {
            prefix: Prefix::new(7, 16).unwrap(),
            network: Network::new("fd12:3456:789a::/48".parse().unwrap()).unwrap(),
            software: "1.2.3",
            revision: "unknown",
            actors: Vec::new(),
            dry_run: false,
            unused_ports: Vec::new(),
            started: Uptime::default(),
        };
        let mut snapshot = Snapshot::new(identity, Duration::ZERO);
        let made = 3 * DECISIONS_KEPT;
        for _ in 0..made {
            let slot = Slot::Dialling(0);
            let reason = CloseReason::Unused;
            snapshot.on_decided(Decided {
                at: Uptime::default(),
                decisions: vec![Decision {
                    order: Order::Close { slot, reason },
                    terms: String::new(),
                }],
                verdicts: None,
            });
        }
        assert_eq!(snapshot.log.len(), DECISIONS_KEPT);
        let last = snapshot.log.back().unwrap();
        assert_eq!(last.number, u64::try_from(made).unwrap());
    }
}
