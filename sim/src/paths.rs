//! Finds the shortest ways to some nodes, as Babel does once it has settled.
//!
//! By buckets (Dial, 1969): costs are small whole numbers. Targets are shared among threads, and the
//! result does not depend on how.

use crate::{
    num::{index, number, real},
    overlay::Overlay,
};
use std::{cmp::Reverse, collections::BinaryHeap};

/// No way.
pub const NOWHERE: u32 = u32::MAX;

/// The arcs of an overlay, node by node; tunnels under drain are left out.
#[derive(Clone, Debug, Default)]
struct Arcs {
    /// Room of a node in the two below.
    width: usize,
    /// Far end and cost; apart from the tunnels, since few of those that are looked at
    /// shorten a way.
    arcs: Vec<(u32, u32)>,
    /// The tunnel of each arc.
    tunnels: Vec<u32>,
    /// How many each node has.
    counts: Vec<usize>,
    longest: u32,
}

/// For one target: each node's distance and the tunnel it leaves by.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where the ways lead to.
    pub target: u32,
    /// Metric; [`NOWHERE`] where there is no way.
    pub distance: Vec<u32>,
    /// The first tunnel; [`NOWHERE`] at the target and where there is no way.
    pub by: Vec<u32>,
    /// The node at the other end of that tunnel; [`NOWHERE`] likewise.
    pub next: Vec<u32>,
    /// All nodes that have a way; each stands behind the next node of its way.
    pub order: Vec<u32>,
}

impl Way {
    /// Whether the node's way is longer than that.
    fn is_longer(&self, node: u32, distance: u32) -> bool {
        self.distance.get(index(node)).is_some_and(|known| distance < *known)
    }

    fn set(&mut self, node: u32, distance: u32, by: u32, next: u32) {
        for (all, value) in [(&mut self.distance, distance), (&mut self.by, by), (&mut self.next, next)] {
            if let Some(place) = all.get_mut(index(node)) {
                *place = value;
            }
        }
    }

    /// What a way costs that begins with a link of that cost to `far`.
    fn beyond(&self, far: u32, cost: u32) -> u32 {
        self.distance.get(index(far)).copied().unwrap_or(NOWHERE).saturating_add(cost)
    }

    /// For each node whether its way leads over one of the tunnels that are marked, by number.
    pub fn over(&self, marked: &[bool]) -> Vec<bool> {
        let mut over = vec![false; self.distance.len()];
        for node in &self.order {
            let of_node = |all: &[u32]| all.get(index(*node)).copied().unwrap_or(NOWHERE);
            if is(marked, of_node(&self.by)) || is(&over, of_node(&self.next)) {
                mark(&mut over, *node);
            }
        }
        over
    }
}

/// Nodes that wait, by distance: a ring of lists, as wide as the longest arc.
struct Buckets {
    /// The first entry of each bucket.
    heads: Vec<u32>,
    /// One bit a bucket that is not empty.
    filled: Vec<u64>,
    /// Node, and the next entry of the same bucket.
    entries: Vec<(u32, u32)>,
    /// The distance reached.
    at: u32,
    /// Entries that wait, whole buckets at a time.
    waiting: usize,
}

impl Buckets {
    fn new(longest: u32) -> Self {
        let width = (index(longest) + 1).next_power_of_two().max(64);
        let (heads, filled) = (vec![NOWHERE; width], vec![0; width / 64]);
        Self { heads, filled, entries: Vec::new(), at: 0, waiting: 0 }
    }

    fn push(&mut self, distance: u32, node: u32) {
        let here = index(distance) & (self.heads.len() - 1);
        if let (Some(head), Some(word)) = (self.heads.get_mut(here), self.filled.get_mut(here / 64)) {
            self.waiting += usize::from(*head == NOWHERE);
            let entry = number(self.entries.len());
            self.entries.push((node, std::mem::replace(head, entry)));
            *word |= 1 << (here % 64);
        }
    }

    /// Empties the nearest bucket: its distance and first entry. None left: ready for another target.
    fn next(&mut self) -> Option<(u32, u32)> {
        if self.waiting == 0 {
            self.at = 0;
            self.entries.clear();
            return None;
        }
        let width = self.heads.len();
        let start = index(self.at) & (width - 1);
        let mut skipped = start % 64;
        let mut ahead = 0;
        loop {
            let place = (start / 64 + ahead) % self.filled.len();
            let word = self.filled.get_mut(place)?;
            let later = *word >> skipped << skipped;
            if later != 0 {
                let bit = index(later.trailing_zeros());
                *word &= !(1 << bit);
                let here = place * 64 + bit;
                self.at += number((here + width - start) & (width - 1));
                self.waiting -= 1;
                let head = self.heads.get_mut(here)?;
                return Some((self.at, std::mem::replace(head, NOWHERE)));
            }
            skipped = 0;
            ahead += 1;
        }
    }
}

impl Arcs {
    /// Takes up what has changed at these nodes; everything where there is more than there is room for.
    fn renew(&mut self, overlay: &Overlay, nodes: impl Iterator<Item = u32>) {
        let nodes: Vec<_> = nodes.collect();
        let all = 0..number(overlay.nodes());
        let most = |nodes: &mut dyn Iterator<Item = u32>| nodes.map(|node| overlay.links(node).len()).max();
        if self.counts.len() == overlay.nodes() && most(&mut nodes.iter().copied()) <= Some(self.width) {
            nodes.into_iter().for_each(|node| self.renew_node(overlay, node));
            return;
        }
        self.width = most(&mut all.clone()).unwrap_or_default();
        self.arcs = vec![(NOWHERE, NOWHERE); overlay.nodes() * self.width];
        self.tunnels = vec![NOWHERE; overlay.nodes() * self.width];
        self.counts = vec![0; overlay.nodes()];
        self.longest = 1;
        all.for_each(|node| self.renew_node(overlay, node));
    }

    fn renew_node(&mut self, overlay: &Overlay, node: u32) {
        let carrying = |(far, at): &(u32, u32)| {
            let tunnel = overlay.tunnel(*at).filter(|tunnel| tunnel.draining.is_none())?;
            Some(((*far, tunnel.cost), *at))
        };
        let carrying: Vec<_> = overlay.links(node).iter().filter_map(carrying).collect();
        let from = index(node) * self.width;
        let arcs = self.arcs.get_mut(from..).unwrap_or_default().iter_mut();
        let tunnels = self.tunnels.get_mut(from..).unwrap_or_default().iter_mut();
        for ((to, at), (arc, tunnel)) in carrying.iter().zip(arcs.zip(tunnels)) {
            (*arc, *tunnel) = (*to, *at);
            self.longest = self.longest.max(to.1);
        }
        if let Some(count) = self.counts.get_mut(index(node)) {
            *count = carrying.len();
        }
    }

    /// Far end, cost and place of each arc.
    fn of_node(&self, node: u32) -> impl Iterator<Item = (u32, u32, usize)> + '_ {
        let from = index(node) * self.width;
        let count = self.counts.get(index(node)).copied().unwrap_or_default();
        let arcs = self.arcs.get(from..from + count).unwrap_or_default();
        (from..).zip(arcs).map(|(place, (far, cost))| (*far, *cost, place))
    }

    /// Lets the node's arcs come from memory, while those of others are looked at.
    fn fetch(&self, node: u32) {
        std::hint::black_box(self.arcs.get(index(node) * self.width).copied());
    }

    fn tunnel(&self, place: usize) -> u32 {
        self.tunnels.get(place).copied().unwrap_or(NOWHERE)
    }

    /// The shortest ways from all nodes to the target, and to each liar, which claims to be the target.
    fn towards(&self, target: u32, liars: &[u32], buckets: &mut Buckets) -> Way {
        let nodes = self.counts.len();
        let mut way = Way {
            target,
            distance: vec![NOWHERE; nodes],
            by: vec![NOWHERE; nodes],
            next: vec![NOWHERE; nodes],
            order: Vec::with_capacity(nodes),
        };
        let claiming = liars.iter().copied().filter(|liar| *liar != target);
        for source in std::iter::once(target).chain(claiming) {
            if let Some(place) = way.distance.get_mut(index(source)) {
                *place = 0;
                buckets.push(0, source);
            }
        }
        while let Some((at, mut entry)) = buckets.next() {
            while let Some((node, next)) = buckets.entries.get(index(entry)).copied() {
                entry = next;
                // Otherwise a shorter way was found meanwhile.
                if way.distance.get(index(node)) != Some(&at) {
                    continue;
                }
                way.order.push(node);
                if let Some((soon, _)) = buckets.entries.get(index(entry)) {
                    self.fetch(*soon);
                }
                for (far, cost, place) in self.of_node(node) {
                    if way.is_longer(far, at + cost) {
                        way.set(far, at + cost, self.tunnel(place), node);
                        buckets.push(at + cost, far);
                    }
                }
            }
        }
        way
    }

    /// Makes a way that was the shortest before some tunnels came, went or changed the shortest again.
    ///
    /// Nodes that left by one of them, and those behind, search anew; where a new tunnel shortens a way, that
    /// spreads.
    fn mend(&self, way: &mut Way, changes: &Changes) {
        let mut moved = way.over(&changes.marked);
        let searching: Vec<_> = way.order.iter().copied().filter(|node| is(&moved, *node)).collect();
        for node in &searching {
            way.set(*node, NOWHERE, NOWHERE, NOWHERE);
        }
        let mut nearest = BinaryHeap::new();
        let mut improve = |way: &mut Way, node: u32, distance: u32, by: u32, next: u32| {
            if way.is_longer(node, distance) {
                way.set(node, distance, by, next);
                nearest.push(Reverse((distance, node)));
            }
        };
        for node in &searching {
            let arcs = self.of_node(*node).map(|(far, cost, place)| (way.beyond(far, cost), place, far));
            if let Some((distance, place, far)) = arcs.min() {
                improve(way, *node, distance, self.tunnel(place), far);
            }
        }
        for (number, one, other, cost) in &changes.carrying {
            for (node, far) in [(*one, *other), (*other, *one)] {
                improve(way, node, way.beyond(far, *cost), *number, far);
            }
        }
        let mut found = Vec::with_capacity(searching.len());
        while let Some(Reverse((at, node))) = nearest.pop() {
            if way.distance.get(index(node)) != Some(&at) {
                continue;
            }
            found.push(node);
            mark(&mut moved, node);
            for (far, cost, place) in self.of_node(node) {
                if way.is_longer(far, at + cost) {
                    way.set(far, at + cost, self.tunnel(place), node);
                    nearest.push(Reverse((at + cost, far)));
                }
            }
        }
        if found.is_empty() && searching.is_empty() {
            return;
        }
        way.order.retain(|node| !is(&moved, *node));
        // Nobody who stayed stands behind one who moved.
        way.order.extend(found);
    }
}

/// What has changed since ways were found.
struct Changes {
    /// By number: whether the tunnel came, went, or changed.
    marked: Vec<bool>,
    /// Those of them that carry routes now: number, both ends, cost.
    carrying: Vec<(u32, u32, u32, u32)>,
}

impl Changes {
    fn of(overlay: &Overlay, numbers: &[u32]) -> Self {
        let carrying = |number: &u32| {
            let tunnel = overlay.tunnel(*number).filter(|tunnel| tunnel.draining.is_none())?;
            Some((*number, tunnel.dialler, tunnel.acceptor, tunnel.cost))
        };
        Self { marked: overlay.marked(numbers), carrying: numbers.iter().filter_map(carrying).collect() }
    }
}

/// The ways to some nodes, kept the shortest while tunnels come and go.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// By target, sorted.
    all: Vec<Way>,
    arcs: Arcs,
}

impl Ways {
    /// The ways as they were when they were renewed.
    pub fn all(&self) -> &[Way] {
        &self.all
    }

    /// From now on they lead to these targets, sorted, and are the shortest. All that changed in the overlay
    /// since it was asked the last time must have been asked by these ways.
    pub fn renew(&mut self, overlay: &mut Overlay, targets: &[u32], liars: &[u32]) {
        let changed = overlay.take_changed();
        self.arcs.renew(overlay, changed.iter().flat_map(|(_, ends)| *ends));
        let mut numbers: Vec<_> = changed.into_iter().map(|(number, _)| number).collect();
        numbers.dedup();
        let (changes, arcs) = (Changes::of(overlay, &numbers), &self.arcs);
        let mut known = std::mem::take(&mut self.all).into_iter().peekable();
        let with_known = |target: &u32| {
            while known.next_if(|way| way.target < *target).is_some() {}
            (*target, known.next_if(|way| way.target == *target))
        };
        let mut jobs: Vec<_> = targets.iter().map(with_known).collect();
        let some = |jobs: &mut [(u32, Option<Way>)]| {
            let mut buckets = Buckets::new(arcs.longest);
            for (target, way) in jobs {
                match way {
                    Some(way) => arcs.mend(way, &changes),
                    None => *way = Some(arcs.towards(*target, liars, &mut buckets)),
                }
            }
        };
        let part = jobs.len().div_ceil(threads()).max(1);
        std::thread::scope(|scope| {
            for part in jobs.chunks_mut(part) {
                scope.spawn(|| some(part));
            }
        });
        self.all = jobs.into_iter().filter_map(|(_, way)| way).collect();
    }
}

fn is(all: &[bool], node: u32) -> bool {
    all.get(index(node)).copied().unwrap_or_default()
}

fn mark(all: &mut [bool], node: u32) {
    if let Some(place) = all.get_mut(index(node)) {
        *place = true;
    }
}

/// How many threads are worth having.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Mean metric of all ways that exist, and the share of pairs that have none.
pub fn mean(ways: &[Way], counts: impl Fn(u32) -> bool) -> (f64, f64) {
    let (mut sum, mut pairs, mut torn) = (0u64, 0u64, 0u64);
    for way in ways.iter().filter(|way| counts(way.target)) {
        for (node, distance) in (0u32..).zip(&way.distance) {
            if node == way.target || !counts(node) {
                continue;
            }
            if *distance == NOWHERE {
                torn += 1;
            } else {
                sum += u64::from(*distance);
                pairs += 1;
            }
        }
    }
    (real(sum) / real(pairs.max(1)), crate::num::share(torn, torn + pairs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{overlay::Limits, space::Space};
    use policies::{link_cost::LinkCost, rng::Rng};

    /// Compares the ways with those of Bellman and Ford.
    #[track_caller]
    fn check(overlay: &mut Overlay) {
        let nodes = number(overlay.nodes());
        let mut ways = Ways::default();
        ways.renew(overlay, &(0..nodes).collect::<Vec<_>>(), &[]);
        for way in ways.all() {
            let mut plain = vec![NOWHERE; overlay.nodes()];
            plain[index(way.target)] = 0;
            for _ in 0..nodes {
                for node in 0..nodes {
                    for (far, tunnel) in overlay.links(node) {
                        let cost = overlay.tunnel(*tunnel).unwrap().cost;
                        let through = plain[index(*far)].saturating_add(cost);
                        plain[index(node)] = plain[index(node)].min(through);
                    }
                }
            }
            assert_eq!(way.distance, plain);
            for node in (0..nodes).filter(|node| *node != way.target) {
                let tunnel = overlay.tunnel(way.by[index(node)]).unwrap();
                assert_eq!(tunnel.far(node), way.next[index(node)]);
                let rest = way.distance[index(tunnel.far(node))];
                assert_eq!(way.distance[index(node)], rest + tunnel.cost);
            }
        }
    }

    /// Kept ways are as short as ways found anew, and each leads over nodes nearer to its target.
    #[track_caller]
    fn check_kept(kept: &Ways, overlay: &mut Overlay, targets: &[u32], liars: &[u32]) {
        let mut anew = Ways::default();
        anew.renew(overlay, targets, liars);
        assert_eq!(kept.all().len(), targets.len());
        for (kept, anew) in kept.all().iter().zip(anew.all()) {
            assert_eq!((kept.target, &kept.distance), (anew.target, &anew.distance));
            assert_eq!(kept.order.len(), anew.order.len());
            let mut seen = vec![false; overlay.nodes()];
            for node in kept.order.iter().map(|node| index(*node)) {
                seen[node] = true;
                let (by, next) = (kept.by[node], kept.next[node]);
                if by == NOWHERE {
                    assert_eq!((kept.distance[node], next), (0, NOWHERE));
                    continue;
                }
                let tunnel = overlay.tunnel(by).unwrap();
                assert!(seen[index(next)] && tunnel.draining.is_none() && tunnel.far(number(node)) == next);
                assert_eq!(kept.distance[node], kept.distance[index(next)] + tunnel.cost);
            }
        }
    }

    #[test]
    fn kept_ways_stay_the_shortest_while_tunnels_drain_close_and_open_and_targets_change() {
        let limits = Limits { dial: 3, degree: 9 };
        for seed in 0..20 {
            let (space, mut rng) = (Space::synthetic(40, seed), Rng::new(seed));
            let mut overlay = Overlay::random(&space, limits, LinkCost::default(), &mut rng);
            let mut kept = Ways::default();
            for step in 0..12 {
                let liars = [3, 9];
                let targets: Vec<_> = (0..40).filter(|_| rng.below(4) != 0).collect();
                kept.renew(&mut overlay, &targets, &liars);
                check_kept(&kept, &mut overlay, &targets, &liars);
                let now = policies::units::Uptime::from_secs(step);
                for _ in 0..rng.below(30) {
                    let at = number(crate::chance::below(&mut rng, 120));
                    let node = number(crate::chance::below(&mut rng, 40));
                    match rng.below(5) {
                        0 => overlay.close(at),
                        1 => overlay.set_draining(at, Some(now)),
                        2 => overlay.set_draining(at, None),
                        3 if step == 7 => overlay.isolate(node),
                        _ => {
                            assert!(overlay.dial_any(&space, node, now, &mut rng) || !overlay.has_room(node))
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_ways_are_the_shortest() {
        let limits = Limits { dial: 3, degree: 9 };
        for seed in 0..5 {
            let space = Space::synthetic(40, seed);
            check(&mut Overlay::random(&space, limits, LinkCost::default(), &mut Rng::new(seed)));
        }
    }
}
