//! A network of planners: the very ones that run in the daemon, each on its own table.
//!
//! A round is one refresh. It passes in parts; in each part the nodes plan whose planner's refresh
//! falls into it, all of them on the same tables. Then draining tunnels carry no routes, the
//! paths are computed again, and the planners plan again, close, and dial.

mod planning;

use crate::{
    chance::{below, sample},
    num::{index, many, number, round_to_u32},
    overlay::{Limits, Overlay},
    paths::Paths,
    space::Space,
    tables::prefix,
};
use policies::{
    gain::Rule,
    link_cost::LinkCost,
    names::Slot,
    observation::Observation,
    parameters::Parameters,
    planner::{Planner, PlannerSettings},
    rng::Rng,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Parts of a round: as long as a drain and the dial after it take.
pub const PARTS: u32 = 24;
/// When a drain is looked at first: four missed hellos and a second of quiet have passed.
const DRAINED: Duration = Duration::from_secs(8);
/// How long after that the last look at a drain comes.
const LONELY: Duration = Duration::from_secs(2);
/// One hour of simulated time.
const HOUR: Duration = Duration::from_secs(3600);
/// Between two dials of a node.
const DIAL_PACE: Duration = Duration::from_secs(6);
/// If paths are computed to at most this many nodes, the nodes fill their slots in turns.
const FEW: usize = 64;
/// Looks at which a node may dial in a part.
const DIAL_LOOKS: u32 = 3;

/// The settings of a simulated network.
#[derive(Clone, Debug)]
pub struct NetSettings {
    /// Babel's metric, or pure latency.
    pub cost: LinkCost,
    /// The number of targets of the computed paths, drawn again in each part of a round. In smaller
    /// networks every node is a target.
    pub targets: usize,
    /// Parts of a round.
    pub parts: u32,
    /// The seed of the random numbers.
    pub seed: u64,
}

/// The events of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Tunnels closed by plan.
    pub closed: u64,
    /// Closings given up.
    pub given_up: u64,
    /// The number of paths, from one node to one other, that used a tunnel when it was closed.
    pub disturbed: u64,
    /// The number of dials.
    pub dials: u64,
    /// Dials that the peer refused: it was full.
    pub refused: u64,
}

/// One simulated network.
pub struct Net {
    /// The positions of the nodes.
    pub space: Space,
    /// All tunnels of the network.
    pub overlay: Overlay,
    paths: Paths,
    settings: NetSettings,
    /// The planner of each node; `None` while it plans in another thread.
    planners: Vec<Option<Planner>>,
    reached: Vec<bool>,
    alive: Vec<bool>,
    /// Of each node the dials that failed, by peer: when, and how often in a row.
    failed: Vec<BTreeMap<u32, (Uptime, u32)>>,
    /// The nodes that announce every prefix as their own.
    pub liars: Vec<u32>,
    /// Pairs that cannot dial each other: nodes on different sides.
    pub sides: Option<Vec<bool>>,
    /// The number of starts of each node.
    starts: Vec<u32>,
    /// When tunnels on a slot were closed by plan, by node, its start, and slot.
    closings: BTreeMap<(u32, u32, Slot), Vec<Uptime>>,
    rng: Rng,
    now: Uptime,
    refresh: Duration,
    generation: u64,
    rounds: u64,
}

impl Net {
    /// A network that stands as `overlay` for long, whose planners begin.
    pub fn new(space: Space, overlay: Overlay, settings: NetSettings) -> Self {
        let nodes = space.nodes();
        let refresh = Parameters::default().refresh;
        // Old enough that no tunnel is too young; and one refresh ago nothing could be compared yet.
        let now = Uptime::from_secs(1_000_000);
        let mut net = Self {
            reached: vec![true; nodes],
            alive: vec![true; nodes],
            failed: vec![BTreeMap::new(); nodes],
            liars: Vec::new(),
            sides: None,
            starts: vec![0; nodes],
            closings: BTreeMap::new(),
            rng: Rng::new(settings.seed),
            planners: Vec::new(),
            paths: Paths::default(),
            space,
            overlay,
            settings,
            now,
            refresh,
            generation: 0,
            rounds: 0,
        };
        net.planners = (0..number(nodes)).map(|node| net.planner(node)).collect();
        net
    }

    fn planner(&mut self, node: u32) -> Option<Planner> {
        self.generation += 1;
        let seed = self.settings.seed ^ u64::from(node) << 24 ^ self.generation << 44;
        let limit = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        let Limits { dial, degree } = self.overlay.limits();
        let parameters = Parameters {
            tunnels_to_dial: limit(dial),
            max_accepted: limit(degree.saturating_sub(dial)),
            ..Parameters::default()
        };
        let settings = PlannerSettings {
            parameters,
            pinned: BTreeSet::new(),
            rule: Rule::Gain,
            seed,
        };
        let mut planner = Planner::new(prefix(node)?, settings);
        planner.set_link_cost(self.settings.cost);
        planner.set_sample(self.stands_for());
        planner.disable_verdicts();
        let began = Observation {
            at: Uptime(self.now.0.saturating_sub(self.refresh)),
            ..Observation::default()
        };
        planner.plan(&began, true);
        Some(planner)
    }

    /// If paths are computed to a sample of the nodes, each node of the sample stands for this
    /// many nodes.
    fn stands_for(&self) -> u32 {
        round_to_u32(many(self.space.nodes()) / many(self.settings.targets.max(1))).max(1)
    }

    /// The targets of the computed paths at present, sorted.
    fn targets(&mut self) -> Vec<u32> {
        let living: Vec<_> = (0u32..)
            .zip(&self.alive)
            .filter(|(_, alive)| **alive)
            .map(|(n, _)| n)
            .collect();
        let mut drawn = sample(&mut self.rng, living.len(), self.settings.targets);
        drawn.sort_unstable();
        drawn
            .into_iter()
            .filter_map(|at| living.get(at).copied())
            .collect()
    }

    /// The present paths to all living nodes, or to a sample of them.
    pub fn paths(&mut self) -> Paths {
        let targets = self.targets();
        self.paths.renew(&mut self.overlay, &targets, &self.liars);
        self.paths.clone()
    }

    /// Whether the node is alive.
    pub fn lives(&self, node: u32) -> bool {
        self.alive.get(index(node)).copied().unwrap_or_default()
    }

    /// A node dies with all its tunnels.
    pub fn die(&mut self, node: u32) {
        self.overlay.isolate(node);
        if let Some(alive) = self.alive.get_mut(index(node)) {
            *alive = false;
        }
    }

    /// Starts a node without history. It dials its first peers at random.
    pub fn start(&mut self, node: u32) {
        let planner = self.planner(node);
        for (all, value) in [(&mut self.alive, true), (&mut self.reached, true)] {
            if let Some(place) = all.get_mut(index(node)) {
                *place = value;
            }
        }
        if let Some(place) = self.planners.get_mut(index(node)) {
            *place = planner;
        }
        if let Some(starts) = self.starts.get_mut(index(node)) {
            *starts += 1;
        }
        if let Some(failed) = self.failed.get_mut(index(node)) {
            failed.clear();
        }
        let now = self.now;
        for _ in 0..self.overlay.limits().dial {
            let peer = number(below(&mut self.rng, self.space.nodes()));
            if self.lives(peer) && !self.parted(node, peer) {
                self.overlay.dial(&self.space, node, peer, now);
            }
        }
    }

    fn parted(&self, node: u32, peer: u32) -> bool {
        let side = |node: u32| {
            self.sides
                .as_ref()
                .and_then(|sides| sides.get(index(node)).copied())
        };
        side(node) != side(peer)
    }

    /// Separates the network into two halves that do not reach each other. The tunnels between
    /// them fail.
    pub fn part_in_two(&mut self, sides: Vec<bool>) {
        self.sides = Some(sides);
        for node in 0..number(self.space.nodes()) {
            for (far, at) in self.overlay.links(node).to_vec() {
                if self.parted(node, far) {
                    self.overlay.close(at);
                }
            }
        }
    }

    /// The largest number of planned closes on one slot within any hour.
    pub fn max_closings_per_hour(&self) -> usize {
        let max_in_an_hour = |moments: &Vec<Uptime>| {
            let within = |first: &Uptime| {
                let in_hour = |moment: &&Uptime| **moment >= *first && moment.since(*first) < HOUR;
                moments.iter().filter(in_hour).count()
            };
            moments.iter().map(within).max().unwrap_or(0)
        };
        self.closings
            .values()
            .map(max_in_an_hour)
            .max()
            .unwrap_or(0)
    }

    /// One refresh passes.
    pub fn round(&mut self) -> Happened {
        let mut happened = Happened::default();
        for part in 0..self.settings.parts {
            self.part(part, &mut happened);
        }
        self.rounds += 1;
        happened
    }

    fn part(&mut self, part: u32, happened: &mut Happened) {
        self.now = self.now + self.refresh / self.settings.parts.max(1);
        let now = self.now;
        let paths = self.paths();
        // If paths are computed to few nodes only, not all nodes shall dial these at the same
        // time.
        let parts = self.settings.parts.max(1);
        let may_fill = |node: u32| paths.targets().len() > FEW || node % parts == part % parts;
        let due = |node: &u32| {
            let planner = self.planners.get(index(*node)).and_then(Option::as_ref);
            let fills = || {
                may_fill(*node) && self.overlay.dialled(*node).count() < self.overlay.limits().dial
            };
            self.lives(*node)
                && planner.is_some_and(|planner| planner.next_refresh() <= now || fills())
        };
        let mut due: Vec<_> = (0..number(self.space.nodes())).filter(due).collect();
        self.rng.shuffle(&mut due);
        let salt = self.rng.bits();
        let mut observations_of = self.observe(&due, &paths, salt);
        let mut drained = Vec::new();
        self.plan(&due, &mut observations_of, now, &mut drained, happened);
        if !drained.is_empty() {
            self.paths
                .renew(&mut self.overlay, paths.targets(), &self.liars);
            let short = |node: &u32| self.dialled_that_stay(*node) < self.overlay.limits().dial;
            let concerned: Vec<_> = due.iter().copied().filter(short).collect();
            self.renew(&concerned, &mut observations_of, &self.paths);
        }
        let mut closed = Vec::new();
        for at in [now + DRAINED, now + DRAINED + LONELY] {
            let still_draining = drained.iter().filter(|at| !closed.contains(*at));
            let closing: Vec<_> = still_draining
                .filter_map(|at| Some(self.overlay.tunnel(*at)?.dialler))
                .collect();
            self.plan(&closing, &mut observations_of, at, &mut closed, happened);
        }
        happened.disturbed += disturbed(&self.overlay, &paths, &closed);
        happened.closed += u64::try_from(closed.len()).unwrap_or(0);
        closed.iter().for_each(|at| self.overlay.close(*at));
        for step in 1..=DIAL_LOOKS {
            let wants =
                |node: &u32| self.overlay.dialled(*node).count() < self.overlay.limits().dial;
            let wanting: Vec<_> = due.iter().copied().filter(wants).collect();
            let at = now + DRAINED + LONELY + DIAL_PACE * step;
            self.plan(
                &wanting,
                &mut observations_of,
                at,
                &mut Vec::new(),
                happened,
            );
        }
    }
}

/// Counts the paths that used one of these tunnels. If paths are computed to a sample only, the
/// count is scaled to all nodes.
pub fn disturbed(overlay: &Overlay, paths: &Paths, closed: &[u32]) -> u64 {
    let ends = |at: &u32| {
        overlay
            .tunnel(*at)
            .map(|tunnel| (*at, [tunnel.dialler, tunnel.acceptor]))
    };
    let closed: Vec<_> = closed.iter().filter_map(ends).collect();
    let over = u64::try_from(paths.over(&closed)).unwrap_or(u64::MAX);
    let nodes = u64::try_from(overlay.nodes()).unwrap_or(u64::MAX);
    over * nodes / u64::try_from(paths.targets().len()).unwrap_or(1).max(1)
}
