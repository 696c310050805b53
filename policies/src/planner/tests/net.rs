//! Twelve planners in one network with an idealised router: no sockets, no Babel, no chance but a seed.

use crate::{
    gain::Rule,
    names::{Prefix, Role, Slot, Transport},
    observation::{
        BabelTable, Candidate, INFINITY, LinkCounters, LinkReading, Neighbour, Phase, Route,
    },
    observation::{Observation, TunnelReading},
    orders::{CloseReason, Order},
    parameters::Parameters,
    planner::{Planner, PlannerSettings},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// More of them are for a change of the policy; one is enough to see that nothing broke.
const SEEDS: std::ops::Range<u64> = 0..1;

const STEP: Duration = Duration::from_millis(500);

/// One tunnel and what its two ends counted.
#[derive(Clone, Debug)]
struct Tunnel {
    ends: [usize; 2],
    slots: [Slot; 2],
    phase: Phase,
    since: Uptime,
    up_since: Option<Uptime>,
    counters: [LinkCounters; 2],
}

impl Tunnel {
    fn usable(&self) -> bool {
        matches!(self.phase, Phase::Up | Phase::Draining { .. })
    }

    /// 96 a hop; a silent end makes the cost double with each second.
    fn cost(&self, now: Uptime) -> u32 {
        let silent = u32::try_from(now.since(self.since).as_secs())
            .unwrap()
            .min(8);
        if self.phase.is_draining() {
            96 << silent
        } else {
            96
        }
    }
}

/// A network of planners.
struct Net {
    planners: Vec<Planner>,
    tunnels: Vec<Tunnel>,
    now: Uptime,
    /// Frames of 100 bytes a second from each node to each other.
    rate: u64,
    reached: BTreeSet<usize>,
    closed: BTreeMap<CloseReason, usize>,
    given_up: usize,
    opened: usize,
    /// Closings at a moment when one end still used the tunnel.
    cut: usize,
    most_dialled: usize,
    /// The router's work, done anew only when a tunnel's cost or phase has changed.
    routed: Routed,
}

/// What the router made of the tunnels: their ends and costs, all ways, each node's table.
type Routed = (Vec<([usize; 2], Option<u32>)>, Paths, Vec<BabelTable>);

/// By destination: for each node its distance and the tunnel it leaves by.
type Paths = Vec<Vec<(u32, Option<usize>)>>;

fn prefix(node: usize) -> Prefix {
    Prefix::new(u32::try_from(node).unwrap(), 16).unwrap()
}

impl Net {
    fn new(nodes: usize, dial: u16, refresh_s: u64, rate: u64, seed: u64) -> Self {
        let refresh = Duration::from_secs(refresh_s);
        let parameters = Parameters {
            tunnels_to_dial: dial,
            refresh,
            min_age: refresh * 2,
            ..Parameters::default()
        };
        let planner = |node: usize| {
            let seed = seed * 1000 + u64::try_from(node).unwrap();
            Planner::new(
                prefix(node),
                PlannerSettings {
                    parameters,
                    pinned: BTreeSet::new(),
                    rule: Rule::Gain,
                    seed,
                },
            )
        };
        Self {
            planners: (0..nodes).map(planner).collect(),
            tunnels: Vec::new(),
            now: Uptime::from_secs(1),
            rate,
            reached: BTreeSet::new(),
            closed: BTreeMap::new(),
            given_up: 0,
            opened: 0,
            cut: 0,
            most_dialled: 0,
            routed: Routed::default(),
        }
    }

    /// The tunnels of a node: index, which end it is, the node at the other end.
    fn links(&self, node: usize) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        self.tunnels
            .iter()
            .enumerate()
            .flat_map(move |(index, tunnel)| {
                (0..2)
                    .filter(move |end| tunnel.ends[*end] == node)
                    .map(move |end| (index, end, tunnel.ends[1 - end]))
            })
    }

    /// For each node its distance to `to` and the tunnel it leaves by.
    fn towards(&self, to: usize) -> Vec<(u32, Option<usize>)> {
        let mut found = vec![(u32::MAX, None); self.planners.len()];
        found[to] = (0, None);
        let mut queue = BTreeSet::from([(0, to)]);
        while let Some((distance, node)) = queue.pop_first() {
            for (index, _, other) in self.links(node) {
                let tunnel = &self.tunnels[index];
                if !tunnel.usable() {
                    continue;
                }
                let through = distance + tunnel.cost(self.now);
                if through < found[other].0 {
                    queue.remove(&(found[other].0, other));
                    found[other] = (through, Some(index));
                    queue.insert((through, other));
                }
            }
        }
        found
    }

    fn ways(&self) -> Paths {
        (0..self.planners.len())
            .map(|to| self.towards(to))
            .collect()
    }

    fn tables(&self, ways: &[Vec<(u32, Option<usize>)>]) -> Vec<BabelTable> {
        let table = |node: usize| {
            let mut table = BabelTable::default();
            for (index, end, other) in self
                .links(node)
                .filter(|(index, ..)| self.tunnels[*index].usable())
            {
                let tunnel = &self.tunnels[index];
                let cost = u16::try_from(tunnel.cost(self.now)).unwrap();
                let slot = tunnel.slots[end];
                table.neighbours.push(Neighbour {
                    slot,
                    peer: prefix(other),
                    reach: 0xffff,
                    rxcost: 96,
                    txcost: cost,
                    rtt: None,
                    cost,
                });
                for (to, found) in ways.iter().enumerate() {
                    let (distance, by) = found[other];
                    // Split horizon: what a neighbour reaches through this tunnel it does not tell.
                    if to == node || distance == u32::MAX || by == Some(index) {
                        continue;
                    }
                    let metric = u16::try_from(distance + u32::from(cost)).unwrap_or(INFINITY);
                    let refmetric = u16::try_from(distance).unwrap_or(INFINITY);
                    let (node, via) = (prefix(to), prefix(other));
                    let installed = found[self.tunnels[index].ends[end]].1 == Some(index);
                    table.routes.push(Route {
                        node,
                        slot,
                        via,
                        installed,
                        metric,
                        refmetric,
                    });
                }
            }
            table
        };
        (0..self.planners.len()).map(table).collect()
    }

    fn carry(&mut self, ways: &[Vec<(u32, Option<usize>)>]) {
        let frames = self.rate / 2;
        for (to, found) in ways.iter().enumerate() {
            for from in (0..self.planners.len()).filter(|from| *from != to) {
                let mut node = from;
                while let Some(index) = found[node].1 {
                    let tunnel = &mut self.tunnels[index];
                    let end = usize::from(tunnel.ends[1] == node);
                    tunnel.counters[end].tx_packets += frames;
                    tunnel.counters[end].tx_bytes += frames * 100;
                    tunnel.counters[1 - end].rx_packets += frames;
                    tunnel.counters[1 - end].rx_bytes += frames * 100;
                    node = tunnel.ends[1 - end];
                }
            }
        }
    }

    fn world(&self, node: usize, table: BabelTable) -> Observation {
        let link = |(index, end, other): (usize, usize, usize)| {
            let tunnel = &self.tunnels[index];
            let reading = TunnelReading {
                slot: tunnel.slots[end],
                peer: prefix(other),
                // The far end of a drain sees nothing of it.
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
            confirmed: Some(self.now),
            failed: None,
            failures: 0,
            transit_cost: 0,
        };
        Observation {
            at: self.now,
            links,
            babel: Some(table),
            probes: Vec::new(),
            candidate_rtts: Vec::new(),
            views: Vec::new(),
            candidates: (0..self.planners.len()).map(candidate).collect(),
            free_slots: (0..12)
                .map(Slot::Dialling)
                .filter(|slot| !taken.contains(slot))
                .collect(),
        }
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        for tunnel in &mut self.tunnels {
            let lasts = self.now.since(tunnel.since);
            if tunnel.phase == Phase::Connecting && lasts >= STEP * 2 {
                tunnel.phase = Phase::Up;
                tunnel.since = self.now;
                tunnel.up_since = Some(self.now);
                self.reached.insert(tunnel.ends[1]);
            }
        }
        let now = self.now;
        self.tunnels
            .retain(|tunnel| tunnel.phase != Phase::Closing || now.since(tunnel.since) < STEP * 2);
        let cost = |tunnel: &Tunnel| (tunnel.ends, tunnel.usable().then(|| tunnel.cost(self.now)));
        let costs: Vec<_> = self.tunnels.iter().map(cost).collect();
        if costs != self.routed.0 || self.now < Uptime::from_secs(3) {
            let ways = self.ways();
            self.routed = (costs, ways.clone(), self.tables(&ways));
        }
        let (_, ways, tables) = self.routed.clone();
        if self.rate > 0 {
            self.carry(&ways);
        }
        for (node, table) in tables.into_iter().enumerate() {
            let world = self.world(node, table);
            let plan = self.planners[node].plan(&world, self.reached.contains(&node));
            plan.decisions
                .into_iter()
                .for_each(|decision| self.obey(node, &decision.order, &ways));
            let dialled =
                |tunnel: &&Tunnel| tunnel.ends[0] == node && tunnel.phase != Phase::Closing;
            self.most_dialled = self
                .most_dialled
                .max(self.tunnels.iter().filter(dialled).count());
        }
    }

    fn obey(&mut self, node: usize, order: &Order, ways: &[Vec<(u32, Option<usize>)>]) {
        let by_slot =
            |tunnel: &Tunnel, slot: Slot| tunnel.ends[0] == node && tunnel.slots[0] == slot;
        match order {
            Order::Open { slot, peer, .. } => {
                self.opened += 1;
                let other = usize::try_from(peer.number()).unwrap();
                assert_ne!(other, node, "dialled itself");
                assert!(
                    self.links(node).all(|(index, end, known)| known != other
                        || end == 1 && self.tunnels[index].since == self.now),
                    "dialled a neighbour"
                );
                let used: BTreeSet<_> = self
                    .links(other)
                    .map(|(index, end, _)| self.tunnels[index].slots[end])
                    .collect();
                let mut vlans = (2..250).map(|vlan| Slot::Accepting(Transport::Udp, vlan));
                self.tunnels.push(Tunnel {
                    ends: [node, other],
                    slots: [*slot, vlans.find(|vlan| !used.contains(vlan)).unwrap()],
                    phase: Phase::Connecting,
                    since: self.now,
                    up_since: None,
                    counters: [LinkCounters::default(); 2],
                });
            }
            Order::Drain { slot, .. } | Order::Undrain { slot, .. } | Order::Close { slot, .. } => {
                let index = self
                    .tunnels
                    .iter()
                    .position(|tunnel| by_slot(tunnel, *slot))
                    .unwrap();
                let used = ways.iter().flatten().any(|(_, by)| *by == Some(index));
                let phase = match order {
                    Order::Close { reason, .. } => {
                        *self.closed.entry(*reason).or_default() += 1;
                        self.cut += usize::from(used);
                        Phase::Closing
                    }
                    Order::Drain { reason, .. } => Phase::Draining { reason: *reason },
                    Order::Undrain { .. } => {
                        self.given_up += 1;
                        Phase::Up
                    }
                    Order::Open { .. } => unreachable!(),
                };
                let tunnel = &mut self.tunnels[index];
                (tunnel.phase, tunnel.since) = (phase, self.now);
            }
        }
    }

    fn whole(&self) -> bool {
        self.towards(0)
            .iter()
            .all(|(distance, _)| *distance != u32::MAX)
    }

    fn mean_hops(&self) -> f64 {
        let all: Vec<_> = self
            .ways()
            .into_iter()
            .flatten()
            .map(|(cost, _)| cost)
            .filter(|c| *c > 0)
            .collect();
        f64::from(all.iter().sum::<u32>()) / 96.0 / f64::from(u32::try_from(all.len()).unwrap())
    }

    /// Seconds until all nodes reach each other.
    fn converge(&mut self) -> u64 {
        let began = self.now;
        while !self.whole() {
            self.step();
            assert!(
                self.now.since(began) < Duration::from_secs(60),
                "never whole"
            );
        }
        self.now.since(began).as_secs()
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.step();
            let torn = self
                .routed
                .1
                .iter()
                .flatten()
                .any(|(distance, _)| *distance == u32::MAX);
            assert!(!torn, "torn apart at {:?}", self.now);
        }
    }

    fn planned(&self) -> usize {
        let count = |reason| self.closed.get(&reason).copied().unwrap_or(0);
        count(CloseReason::Unused) + count(CloseReason::Rotation)
    }
}

/// A network that lived through `refreshes`, after all began at once.
#[track_caller]
fn check(
    nodes: usize,
    dial: u16,
    rate: u64,
    refreshes: u64,
    planned: std::ops::RangeInclusive<usize>,
) {
    for seed in SEEDS {
        let mut net = Net::new(nodes, dial, 60, rate, seed);
        let whole = net.converge();
        assert!(whole <= 5, "whole after {whole} s");
        net.run(60);
        let hops = net.mean_hops();
        net.run(60 * refreshes);
        assert!(
            net.mean_hops() <= hops * 1.15,
            "hops {hops:.2} became {:.2}",
            net.mean_hops()
        );
        assert_eq!(net.cut, 0, "a tunnel was closed while in use");
        assert!(
            net.most_dialled <= usize::from(dial) + 1,
            "{} dialled",
            net.most_dialled
        );
        let (opened, given_up) = (net.opened, net.given_up);
        let told = format!(
            "closed {:?}, opened {opened}, given up {given_up}",
            net.closed
        );
        assert!(planned.contains(&net.planned()), "{told}");
        let dialled = |node| {
            net.links(node)
                .filter(|(index, ..)| net.tunnels[*index].ends[0] == node)
                .count()
        };
        assert!(
            (0..nodes).all(|node| dialled(node) >= 1),
            "a node stopped dialling"
        );
        assert!(
            net.tunnels
                .iter()
                .all(|tunnel| tunnel.slots[0].role() == Role::Dialled)
        );
    }
}

#[test]
fn twelve_nodes_without_traffic_settle_and_do_not_churn() {
    // 12 nodes x 26 refreshes; one closing a node and 12 refreshes is what rotation alone would do.
    check(12, 3, 0, 26, 1..=40);
}

#[test]
fn eight_nodes_with_traffic_close_what_is_not_used_and_lose_nothing() {
    check(8, 2, 100, 16, 1..=80);
}

#[test]
fn twelve_nodes_with_traffic_close_what_is_not_used_and_lose_nothing() {
    check(12, 3, 100, 12, 1..=100);
}
