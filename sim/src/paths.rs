//! Finds the shortest paths to some nodes, as Babel does once it has settled.
//!
//! Each node in turn compares what its neighbours know (Bellman and Ford), for sixteen targets at a time: what a neighbour
//! knows of these lies together, and few instructions compare all of it. Targets are shared among threads, and the
//! result does not depend on how.

use crate::{
    num::{index, number, real},
    overlay::Overlay,
};
use std::sync::Arc;

/// The metric that means "no path".
pub const NOWHERE: u16 = u16::MAX;
/// The number that means "no tunnel".
const NONE: u32 = u32::MAX;
/// The number of targets that are computed at once.
const LANES: usize = 16;
/// The metrics of one node to these targets.
type Lanes = [u16; LANES];

/// The arcs of an overlay, node by node; tunnels under drain are left out.
#[derive(Clone, Debug, Default)]
struct Arcs {
    /// Room of a node in the two below.
    width: usize,
    /// Far end and cost.
    arcs: Vec<(u32, u16)>,
    /// The tunnel of each arc.
    tunnels: Vec<u32>,
    /// The number of neighbours of each node.
    counts: Vec<usize>,
}

impl Arcs {
    /// Takes up what has changed in the overlay since it was asked the last time.
    fn renew(&mut self, overlay: &mut Overlay) {
        let changed = overlay.take_changed();
        let links = |node: &u32| overlay.links(*node).len();
        if self.counts.len() == overlay.nodes()
            && changed.iter().map(links).max() <= Some(self.width)
        {
            changed
                .into_iter()
                .for_each(|node| self.renew_node(overlay, node));
            return;
        }
        let all = 0..number(overlay.nodes());
        self.width = all
            .clone()
            .map(|node| links(&node))
            .max()
            .unwrap_or_default();
        self.arcs = vec![(0, NOWHERE); overlay.nodes() * self.width];
        self.tunnels = vec![NONE; overlay.nodes() * self.width];
        self.counts = vec![0; overlay.nodes()];
        all.for_each(|node| self.renew_node(overlay, node));
    }

    fn renew_node(&mut self, overlay: &Overlay, node: u32) {
        let carrying = |(far, at): &(u32, u32)| {
            let tunnel = overlay
                .tunnel(*at)
                .filter(|tunnel| tunnel.draining.is_none())?;
            let cost = u16::try_from(tunnel.cost).unwrap_or(NOWHERE);
            Some(((*far, cost), *at))
        };
        let from = index(node) * self.width;
        let arcs = self.arcs.get_mut(from..).unwrap_or_default().iter_mut();
        let places = arcs.zip(self.tunnels.get_mut(from..).unwrap_or_default());
        let mut carried = 0;
        for ((arc, tunnel), (to, at)) in places.zip(overlay.links(node).iter().filter_map(carrying))
        {
            (*arc, *tunnel) = (to, at);
            carried += 1;
        }
        if let Some(count) = self.counts.get_mut(index(node)) {
            *count = carried;
        }
    }

    /// Far end and cost of each arc.
    fn of_node(&self, node: u32) -> &[(u32, u16)] {
        let from = index(node) * self.width;
        let count = self.counts.get(index(node)).copied().unwrap_or_default();
        self.arcs.get(from..from + count).unwrap_or_default()
    }

    /// The same with the tunnel: far end, cost, tunnel.
    fn with_tunnels(&self, node: u32) -> impl Iterator<Item = (u32, u16, u32)> + '_ {
        let tunnels = self
            .tunnels
            .get(index(node) * self.width..)
            .unwrap_or_default();
        self.of_node(node)
            .iter()
            .zip(tunnels)
            .map(|((far, cost), at)| (*far, *cost, *at))
    }

    /// The metrics of all nodes to each of these targets, at most sixteen; liars claim to be all of them.
    fn towards(&self, targets: &[u32], liars: &[u32]) -> Vec<Lanes> {
        let nodes = self.counts.len();
        let mut known = vec![[NOWHERE; LANES]; nodes];
        // Whose neighbours have learnt something since it asked them.
        let mut waits = vec![false; nodes];
        let sources = targets.iter().copied().enumerate();
        let claimed = liars
            .iter()
            .flat_map(|liar| (0..targets.len()).map(|lane| (lane, *liar)));
        for (lane, source) in sources.chain(claimed) {
            if let Some(place) = known
                .get_mut(index(source))
                .and_then(|lanes| lanes.get_mut(lane))
            {
                *place = 0;
            }
            self.wake(source, &mut waits);
        }
        loop {
            let mut settled = true;
            for node in 0..number(nodes) {
                let Some(wait) = waits.get_mut(index(node)).filter(|wait| **wait) else {
                    continue;
                };
                *wait = false;
                let Some(before) = known.get(index(node)).copied() else {
                    continue;
                };
                let mut lanes = before;
                for (far, cost) in self.of_node(node) {
                    let Some(theirs) = known.get(index(*far)) else {
                        continue;
                    };
                    for (own, their) in lanes.iter_mut().zip(theirs) {
                        *own = (*own).min(their.saturating_add(*cost));
                    }
                }
                if lanes != before {
                    settled = false;
                    if let Some(place) = known.get_mut(index(node)) {
                        *place = lanes;
                    }
                    self.wake(node, &mut waits);
                }
            }
            if settled {
                return known;
            }
        }
    }

    fn wake(&self, node: u32, waits: &mut [bool]) {
        for (far, _) in self.of_node(node) {
            if let Some(wait) = waits.get_mut(index(*far)) {
                *wait = true;
            }
        }
    }
}

/// The paths of all nodes to some targets at one moment.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    arcs: Arc<Arcs>,
    /// The targets of the paths.
    targets: Vec<u32>,
    /// Metrics of the first node to all targets, of the second, and so on.
    rows: Vec<u16>,
}

impl Paths {
    /// Computes the present paths to these targets. The overlay must be the one of the last call,
    /// and nobody else may take its list of changes.
    pub fn renew(&mut self, overlay: &mut Overlay, targets: &[u32], liars: &[u32]) {
        Arc::make_mut(&mut self.arcs).renew(overlay);
        let arcs = &*self.arcs;
        let mut groups: Vec<_> = targets
            .chunks(LANES)
            .map(|group| (group, Vec::new()))
            .collect();
        let part = groups.len().div_ceil(threads()).max(1);
        std::thread::scope(|scope| {
            for part in groups.chunks_mut(part) {
                scope.spawn(move || {
                    part.iter_mut()
                        .for_each(|(to, all)| *all = arcs.towards(to, liars))
                });
            }
        });
        self.targets = targets.to_vec();
        self.rows.clear();
        self.rows.reserve(overlay.nodes() * targets.len());
        for node in 0..overlay.nodes() {
            for (group, all) in &groups {
                let lanes = all.get(node).and_then(|lanes| lanes.get(..group.len()));
                self.rows.extend_from_slice(lanes.unwrap_or_default());
            }
        }
    }

    /// The targets of the paths.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// The node's metric to each target; [`NOWHERE`] if there is no path.
    pub fn row(&self, node: u32) -> &[u16] {
        let width = self.targets.len();
        self.rows
            .get(index(node) * width..(index(node) + 1) * width)
            .unwrap_or_default()
    }

    /// The first tunnel from the node to each target; `None` at the target, at liars, and if there
    /// is no path.
    pub fn firsts(&self, node: u32) -> Vec<Option<u32>> {
        // By the place of the arc, of which the least counts: so the compiler compares several at once.
        let mut firsts = vec![u16::MAX; self.targets.len()];
        for (at, (far, cost)) in (0..).zip(self.arcs.of_node(node)) {
            for ((first, own), rest) in firsts.iter_mut().zip(self.row(node)).zip(self.row(*far)) {
                *first = (*first).min(if leads(*own, *cost, *rest) {
                    at
                } else {
                    u16::MAX
                });
            }
        }
        let tunnels: Vec<_> = self.arcs.with_tunnels(node).map(|(.., at)| at).collect();
        firsts
            .into_iter()
            .map(|first| tunnels.get(usize::from(first)).copied())
            .collect()
    }

    /// The indices of the targets to which the node's path begins with that tunnel.
    pub fn by(&self, node: u32, tunnel: u32) -> impl Iterator<Item = usize> + '_ {
        let arc = self.arcs.with_tunnels(node).find(|(.., at)| *at == tunnel);
        let pairs = arc.into_iter().flat_map(move |(far, cost, _)| {
            let pairs = self.row(node).iter().zip(self.row(far)).enumerate();
            pairs
                .filter(move |(_, (own, rest))| leads(**own, cost, **rest))
                .map(|(place, _)| place)
        });
        pairs.filter(move |place| self.next(node, *place).is_some_and(|(_, at)| at == tunnel))
    }

    /// The next node on the path to the target with that index, and the tunnel to it.
    fn next(&self, node: u32, place: usize) -> Option<(u32, u32)> {
        let metric = |node: u32| self.row(node).get(place).copied().unwrap_or(NOWHERE);
        let own = metric(node);
        let first = self
            .arcs
            .with_tunnels(node)
            .find(|(far, cost, _)| leads(own, *cost, metric(*far)));
        first.map(|(far, _, at)| (far, at))
    }

    /// The last node of the path to the target with that index: the target, a liar, or, without a
    /// path, the node itself.
    pub fn end(&self, node: u32, place: usize) -> u32 {
        let mut at = node;
        while let Some((next, _)) = self.next(at, place) {
            at = next;
        }
        at
    }

    /// The paths over these tunnels: their number, and both ends of each.
    pub fn over(&self, tunnels: &[(u32, [u32; 2])]) -> usize {
        let width = self.targets.len();
        let mut over = vec![false; self.rows.len()];
        let mut found = Vec::new();
        for (tunnel, ends) in tunnels {
            for end in ends {
                found.extend(self.by(*end, *tunnel).map(|place| (*end, place)));
            }
        }
        let mut count = 0;
        while let Some((node, place)) = found.pop() {
            let Some(seen) = over
                .get_mut(index(node) * width + place)
                .filter(|seen| !**seen)
            else {
                continue;
            };
            *seen = true;
            count += 1;
            let own = self.row(node).get(place).copied().unwrap_or(NOWHERE);
            for (far, cost, at) in self.arcs.with_tunnels(node) {
                let behind = self
                    .row(far)
                    .get(place)
                    .is_some_and(|theirs| leads(*theirs, cost, own));
                if behind && self.next(far, place) == Some((node, at)) {
                    found.push((far, place));
                }
            }
        }
        count
    }

    /// The mean metric of all paths, and the share of pairs without a path, among the nodes that
    /// count.
    pub fn mean(&self, counts: impl Fn(u32) -> bool) -> (f64, f64) {
        let (mut sum, mut pairs, mut torn) = (0u64, 0u64, 0u64);
        let counted: Vec<_> = self.targets.iter().map(|target| counts(*target)).collect();
        for node in (0..number(self.arcs.counts.len())).filter(|node| counts(*node)) {
            let places = self.row(node).iter().zip(&self.targets).zip(&counted);
            for ((metric, _), _) in
                places.filter(|((_, target), counted)| **counted && **target != node)
            {
                if *metric == NOWHERE {
                    torn += 1;
                } else {
                    sum += u64::from(*metric);
                    pairs += 1;
                }
            }
        }
        (
            real(sum) / real(pairs.max(1)),
            crate::num::share(torn, torn + pairs),
        )
    }
}

/// Whether a path of metric `own` may begin with a link of that cost to a node whose metric is
/// `rest`.
fn leads(own: u16, cost: u16, rest: u16) -> bool {
    (own != NOWHERE) & (own > rest) & (own.wrapping_sub(rest) == cost)
}

/// The useful number of threads on this machine.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chance::below, overlay::Limits, space::Space};
    use policies::{link_cost::LinkCost, orders::CloseReason, rng::Rng, units::Uptime};

    /// Checks the paths against their definition, target by target.
    #[track_caller]
    fn check(paths: &Paths, overlay: &Overlay, liars: &[u32]) {
        let nodes = number(overlay.nodes());
        for (place, target) in paths.targets().iter().enumerate() {
            let mut plain = vec![u32::from(NOWHERE); overlay.nodes()];
            liars
                .iter()
                .chain([target])
                .for_each(|source| plain[index(*source)] = 0);
            let carrying = |at: &u32| {
                overlay
                    .tunnel(*at)
                    .filter(|tunnel| tunnel.draining.is_none())
            };
            for _ in 0..nodes {
                for node in 0..nodes {
                    for (far, at) in overlay.links(node) {
                        let Some(tunnel) = carrying(at) else { continue };
                        let through = (plain[index(*far)] + tunnel.cost).min(u32::from(NOWHERE));
                        plain[index(node)] = plain[index(node)].min(through);
                    }
                }
            }
            for node in 0..nodes {
                let own = paths.row(node)[place];
                assert_eq!(u32::from(own), plain[index(node)]);
                let first = paths.firsts(node)[place];
                assert_eq!(first, paths.next(node, place).map(|(_, at)| at));
                assert_eq!(first.is_none(), own == 0 || own == NOWHERE);
                let by =
                    |(_, at): &(u32, u32)| paths.by(node, *at).any(|by| by == place).then_some(*at);
                assert_eq!(
                    overlay
                        .links(node)
                        .iter()
                        .filter_map(by)
                        .collect::<Vec<_>>(),
                    Vec::from_iter(first)
                );
                if let Some(tunnel) = first.map(|at| overlay.tunnel(at).unwrap()) {
                    assert!(tunnel.draining.is_none());
                    assert_eq!(
                        u32::from(own - paths.row(tunnel.far(node))[place]),
                        tunnel.cost
                    );
                    let end = paths.end(node, place);
                    assert!(end == *target || liars.contains(&end));
                }
            }
        }
    }

    /// Follows each path to find whether it uses one of the tunnels.
    #[track_caller]
    fn check_over(paths: &Paths, overlay: &Overlay, tunnels: &[u32]) {
        let mut count = 0;
        for (node, place) in
            (0..40).flat_map(|node| (0..paths.targets().len()).map(move |place| (node, place)))
        {
            let steps = std::iter::successors(paths.next(node, place), |(node, _)| {
                paths.next(*node, place)
            });
            count += usize::from(steps.into_iter().any(|(_, at)| tunnels.contains(&at)));
        }
        let ends = |at: &u32| {
            overlay
                .tunnel(*at)
                .map(|tunnel| (*at, [tunnel.dialler, tunnel.acceptor]))
        };
        let tunnels: Vec<_> = tunnels.iter().filter_map(ends).collect();
        assert_eq!(paths.over(&tunnels), count);
    }

    #[test]
    fn paths_are_the_shortest_while_tunnels_drain_close_and_open_and_targets_change() {
        let limits = Limits { dial: 3, degree: 9 };
        for seed in 0..20 {
            let (space, mut rng) = (Space::synthetic(40, seed), Rng::new(seed));
            let mut overlay = Overlay::random(&space, limits, LinkCost::default(), &mut rng);
            let mut paths = Paths::default();
            for step in 0..6 {
                let targets: Vec<_> = (0..40).filter(|_| rng.below(4) != 0).collect();
                let liars: &[u32] = if seed % 2 == 0 { &[] } else { &[3, 9] };
                paths.renew(&mut overlay, &targets, liars);
                check(&paths, &overlay, liars);
                check_over(&paths, &overlay, &[3, 30, 77]);
                let now = Uptime::from_secs(step);
                for _ in 0..rng.below(30) {
                    let (at, node) = (number(below(&mut rng, 120)), number(below(&mut rng, 40)));
                    match rng.below(5) {
                        0 => overlay.close(at),
                        1 => overlay.set_draining(at, Some((now, CloseReason::Unused))),
                        2 => overlay.set_draining(at, None),
                        3 if step == 3 => overlay.isolate(node),
                        _ => {
                            assert!(
                                overlay.dial_any(&space, node, now, &mut rng)
                                    || !overlay.has_room(node)
                            )
                        }
                    }
                }
            }
        }
    }
}
