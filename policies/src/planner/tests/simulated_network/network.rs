//! A network of planners whose orders are carried out at once, in steps of half a second.

use crate::{
    gain::Rule,
    names::{Prefix, Slot, Transport},
    observation::{
        BabelTable, Candidate, LinkCounters, LinkReading, Observation, Phase, TunnelReading,
    },
    orders::{CloseReason, Order},
    parameters::Parameters,
    planner::{Planner, PlannerSettings},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const STEP: Duration = Duration::from_millis(500);

/// One tunnel, and the counters of its two ends; end 0 dialled it.
#[derive(Clone, Debug)]
pub(super) struct Tunnel {
    pub(super) ends: [usize; 2],
    pub(super) slots: [Slot; 2],
    phase: Phase,
    since: Uptime,
    up_since: Option<Uptime>,
    pub(super) counters: [LinkCounters; 2],
}

impl Tunnel {
    pub(super) fn carries_frames(&self) -> bool {
        matches!(self.phase, Phase::Up | Phase::Draining { .. })
    }

    /// The cost of a hop, 96; it doubles each second that the tunnel drains.
    pub(super) fn cost(&self, now: Uptime) -> u32 {
        let seconds = u32::try_from(now.since(self.since).as_secs()).unwrap();
        if self.phase.is_draining() {
            96 << seconds.min(8)
        } else {
            96
        }
    }
}

/// A network of planners.
pub(super) struct Network {
    pub(super) planners: Vec<Planner>,
    pub(super) tunnels: Vec<Tunnel>,
    pub(super) now: Uptime,
    /// Frames of 100 bytes per second from each node to each other node.
    pub(super) rate: u64,
    reached: BTreeSet<usize>,
    pub(super) closed: BTreeMap<CloseReason, usize>,
    pub(super) abandoned: usize,
    pub(super) opened: usize,
    /// Closings while one end still used the tunnel.
    pub(super) closed_in_use: usize,
    pub(super) max_dialled: usize,
    /// The router's work, which is repeated only when the cost or phase of a tunnel has changed.
    routed: Routed,
}

/// What the router made: the ends and costs of all tunnels that it was made from, all paths, each node's table.
type Routed = (Vec<([usize; 2], Option<u32>)>, Paths, Vec<BabelTable>);

/// By destination: for each node, its distance, and the tunnel that its packets leave by.
pub(super) type Paths = Vec<Vec<(u32, Option<usize>)>>;

pub(super) fn prefix(node: usize) -> Prefix {
    Prefix::new(u32::try_from(node).unwrap(), 16).unwrap()
}

impl Network {
    pub(super) fn new(nodes: usize, dial: u16, refresh_s: u64, rate: u64, seed: u64) -> Self {
        let refresh = Duration::from_secs(refresh_s);
        let parameters = Parameters {
            tunnels_to_dial: dial,
            refresh,
            min_age: refresh * 2,
            ..Parameters::default()
        };
        let planner = |node: usize| {
            let settings = PlannerSettings {
                parameters,
                pinned: BTreeSet::new(),
                rule: Rule::Gain,
                seed: seed * 1000 + u64::try_from(node).unwrap(),
            };
            Planner::new(prefix(node), settings)
        };
        Self {
            planners: (0..nodes).map(planner).collect(),
            tunnels: Vec::new(),
            now: Uptime::from_secs(1),
            rate,
            reached: BTreeSet::new(),
            closed: BTreeMap::new(),
            abandoned: 0,
            opened: 0,
            closed_in_use: 0,
            max_dialled: 0,
            routed: Routed::default(),
        }
    }

    /// The tunnels of a node: index, which end the node is, the node at the other end.
    pub(super) fn links(&self, node: usize) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let tunnels = self.tunnels.iter().enumerate();
        tunnels.flat_map(move |(index, tunnel)| {
            (0..2)
                .filter(move |end| tunnel.ends[*end] == node)
                .map(move |end| (index, end, tunnel.ends[1 - end]))
        })
    }

    fn observation(&self, node: usize, table: BabelTable) -> Observation {
        let link = |(index, end, other): (usize, usize, usize)| {
            let tunnel = &self.tunnels[index];
            let reading = TunnelReading {
                slot: tunnel.slots[end],
                peer: prefix(other),
                // The accepting end does not see that the tunnel drains.
                phase: match (tunnel.phase, end) {
                    (Phase::Draining { .. }, 1) => Phase::Up,
                    (phase, _) => phase,
                },
                since: tunnel.since,
                up_since: tunnel.up_since,
                endpoint: None,
            };
            LinkReading {
                tunnel: reading,
                counters: tunnel.counters[end],
            }
        };
        let links: Vec<_> = self.links(node).map(link).collect();
        let taken: BTreeSet<_> = links.iter().map(|link| link.tunnel.slot).collect();
        let candidate = |peer: usize| Candidate {
            peer: prefix(peer),
            endpoints: vec!["udp:192.0.2.1:1194".parse().unwrap()],
            on_lan: 0,
            confirmed_at: Some(self.now),
            failed_at: None,
            failures: 0,
            transit_cost: 0,
        };
        let slots = (0..12).map(Slot::Dialling);
        Observation {
            at: self.now,
            links,
            babel: Some(table.into()),
            candidates: (0..self.planners.len()).map(candidate).collect(),
            free_slots: slots.filter(|slot| !taken.contains(slot)).collect(),
            ..Observation::default()
        }
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        self.finish_dials_and_closings();
        let cost = |tunnel: &Tunnel| {
            (
                tunnel.ends,
                tunnel.carries_frames().then(|| tunnel.cost(self.now)),
            )
        };
        let costs: Vec<_> = self.tunnels.iter().map(cost).collect();
        if costs != self.routed.0 || self.now < Uptime::from_secs(3) {
            let paths = self.paths();
            self.routed = (costs, paths.clone(), self.tables(&paths));
        }
        let (_, paths, tables) = self.routed.clone();
        if self.rate > 0 {
            self.carry(&paths);
        }
        for (node, table) in tables.into_iter().enumerate() {
            let observation = self.observation(node, table);
            let was_reached = self.reached.contains(&node);
            let plan = self.planners[node].plan(&observation, was_reached);
            for decision in plan.decisions {
                self.carry_out(node, &decision.order, &paths);
            }
            let is_dialled =
                |tunnel: &&Tunnel| tunnel.ends[0] == node && tunnel.phase != Phase::Closing;
            let dialled = self.tunnels.iter().filter(is_dialled).count();
            self.max_dialled = self.max_dialled.max(dialled);
        }
    }

    /// A dial and a closing take two steps each.
    fn finish_dials_and_closings(&mut self) {
        let now = self.now;
        for tunnel in &mut self.tunnels {
            if tunnel.phase == Phase::Connecting && now.since(tunnel.since) >= STEP * 2 {
                tunnel.phase = Phase::Up;
                tunnel.since = now;
                tunnel.up_since = Some(now);
                self.reached.insert(tunnel.ends[1]);
            }
        }
        self.tunnels
            .retain(|tunnel| tunnel.phase != Phase::Closing || now.since(tunnel.since) < STEP * 2);
    }

    fn carry_out(&mut self, node: usize, order: &Order, paths: &Paths) {
        let (index, phase) = match order {
            Order::Open { slot, peer, .. } => {
                return self.open(node, *slot, usize::try_from(peer.number()).unwrap());
            }
            Order::Drain { slot, reason } => {
                (self.index(node, *slot), Phase::Draining { reason: *reason })
            }
            Order::Undrain { slot, .. } => {
                self.abandoned += 1;
                (self.index(node, *slot), Phase::Up)
            }
            Order::Close { slot, reason } => {
                let index = self.index(node, *slot);
                *self.closed.entry(*reason).or_default() += 1;
                let mut used = paths.iter().flatten().map(|(_, tunnel)| *tunnel);
                self.closed_in_use += usize::from(used.any(|tunnel| tunnel == Some(index)));
                (index, Phase::Closing)
            }
        };
        let tunnel = &mut self.tunnels[index];
        (tunnel.phase, tunnel.since) = (phase, self.now);
    }

    /// The index of the tunnel that the node dialled on that slot.
    fn index(&self, node: usize, slot: Slot) -> usize {
        let is_meant = |tunnel: &Tunnel| tunnel.ends[0] == node && tunnel.slots[0] == slot;
        self.tunnels.iter().position(is_meant).unwrap()
    }

    fn open(&mut self, node: usize, slot: Slot, peer: usize) {
        self.opened += 1;
        assert_ne!(peer, node, "dialled itself");
        let both_dialled = |index: usize, end| end == 1 && self.tunnels[index].since == self.now;
        assert!(
            self.links(node)
                .all(|(index, end, other)| other != peer || both_dialled(index, end)),
            "dialled a neighbour"
        );
        let used: BTreeSet<_> = self
            .links(peer)
            .map(|(index, end, _)| self.tunnels[index].slots[end])
            .collect();
        let mut accepting = (2..250).map(|vlan| Slot::Accepting(Transport::Udp, vlan));
        let accepting = accepting.find(|slot| !used.contains(slot)).unwrap();
        self.tunnels.push(Tunnel {
            ends: [node, peer],
            slots: [slot, accepting],
            phase: Phase::Connecting,
            since: self.now,
            up_since: None,
            counters: [LinkCounters::default(); 2],
        });
    }

    fn is_whole(&self) -> bool {
        let paths = self.paths_to(0);
        paths.iter().all(|(distance, _)| *distance != u32::MAX)
    }

    pub(super) fn mean_hops(&self) -> f64 {
        let paths = self.paths().into_iter().flatten();
        let distances = paths.map(|(distance, _)| distance);
        let distances: Vec<_> = distances.filter(|distance| *distance > 0).collect();
        let count = u32::try_from(distances.len()).unwrap();
        f64::from(distances.iter().sum::<u32>()) / 96.0 / f64::from(count)
    }

    /// Runs until all nodes reach each other; returns the seconds that took.
    pub(super) fn converge(&mut self) -> u64 {
        let start = self.now;
        while !self.is_whole() {
            self.step();
            let elapsed = self.now.since(start);
            assert!(elapsed < Duration::from_secs(60), "never whole");
        }
        self.now.since(start).as_secs()
    }

    /// Runs for that long; all nodes must always reach each other.
    pub(super) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.step();
            let mut paths = self.routed.1.iter().flatten();
            let is_torn = paths.any(|(distance, _)| *distance == u32::MAX);
            assert!(!is_torn, "torn apart at {:?}", self.now);
        }
    }

    /// The number of tunnels closed as unused or by rotation.
    pub(super) fn planned_closings(&self) -> usize {
        let count = |reason| self.closed.get(&reason).copied().unwrap_or(0);
        count(CloseReason::Unused) + count(CloseReason::Rotation)
    }
}
