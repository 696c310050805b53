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
#[derive(Clone, Debug)]
pub struct Arcs {
    first: Vec<u32>,
    /// Far end and cost; apart from the tunnels, since few of those that are looked at shorten a way.
    arcs: Vec<(u32, u32)>,
    /// The tunnel of each arc.
    tunnels: Vec<u32>,
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
    /// All nodes that have a way, the nearest first: each stands behind the next node of its way.
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

    /// For each node whether its way leads over one of the tunnels `gone`.
    pub fn over(&self, gone: &[bool]) -> Vec<bool> {
        let is = |all: &[bool], at: Option<&u32>| {
            at.and_then(|at| all.get(index(*at))).copied().unwrap_or_default()
        };
        let mut over = vec![false; self.distance.len()];
        for node in self.order.iter().map(|node| index(*node)) {
            if is(gone, self.by.get(node)) || is(&over, self.next.get(node)) {
                if let Some(place) = over.get_mut(node) {
                    *place = true;
                }
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
    /// All tunnels that carry routes.
    pub fn of(overlay: &Overlay) -> Self {
        let most = overlay.count() * 2;
        let (mut arcs, mut tunnels) = (Vec::with_capacity(most), Vec::with_capacity(most));
        let mut first = vec![0];
        let mut longest = 1;
        for node in 0..number(overlay.nodes()) {
            for (far, at) in overlay.links(node) {
                let Some(tunnel) = overlay.tunnel(*at) else { continue };
                if tunnel.draining.is_none() {
                    longest = longest.max(tunnel.cost);
                    arcs.push((*far, tunnel.cost));
                    tunnels.push(*at);
                }
            }
            first.push(number(arcs.len()));
        }
        Self { first, arcs, tunnels, longest }
    }

    /// Far end, cost and place of each arc.
    fn of_node(&self, node: u32) -> impl Iterator<Item = (u32, u32, usize)> + '_ {
        let bound = |at: usize| self.first.get(at).copied().map_or(0, index);
        let (from, to) = (bound(index(node)), bound(index(node) + 1));
        let arcs = self.arcs.get(from..to).unwrap_or_default();
        (from..).zip(arcs).map(|(place, (far, cost))| (*far, *cost, place))
    }

    fn tunnel(&self, place: usize) -> u32 {
        self.tunnels.get(place).copied().unwrap_or(NOWHERE)
    }

    /// The shortest ways from all nodes to the target, and to each liar, which claims to be the target.
    fn towards(&self, target: u32, liars: &[u32], buckets: &mut Buckets) -> Way {
        let nodes = self.first.len() - 1;
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

    /// What becomes of a way when the tunnels `gone` carry no routes any more: only the nodes that left by one
    /// of these, and those behind them, look for another.
    fn mend(&self, way: &Way, gone: &[bool]) -> Way {
        let lost = way.over(gone);
        let mut mended = way.clone();
        let is_lost = |node: u32| lost.get(index(node)).copied().unwrap_or_default();
        let (kept, searching): (Vec<_>, Vec<_>) = way.order.iter().copied().partition(|node| !is_lost(*node));
        if searching.is_empty() {
            return mended;
        }
        for node in &searching {
            mended.set(*node, NOWHERE, NOWHERE, NOWHERE);
        }
        let is_gone = |place: usize| gone.get(index(self.tunnel(place))).copied().unwrap_or_default();
        let stays = |node: u32| self.of_node(node).filter(move |(.., place)| !is_gone(*place));
        let mut nearest = BinaryHeap::new();
        for node in &searching {
            for (far, cost, place) in stays(*node).filter(|(far, ..)| !is_lost(*far)) {
                let distance = mended.distance.get(index(far)).copied().unwrap_or(NOWHERE).saturating_add(cost);
                if mended.is_longer(*node, distance) {
                    mended.set(*node, distance, self.tunnel(place), far);
                }
            }
            nearest.extend(mended.distance.get(index(*node)).map(|distance| Reverse((*distance, *node))));
        }
        let mut found = Vec::with_capacity(searching.len());
        while let Some(Reverse((at, node))) = nearest.pop().filter(|Reverse((at, _))| *at != NOWHERE) {
            if mended.distance.get(index(node)) != Some(&at) {
                continue;
            }
            found.push(node);
            for (far, cost, place) in stays(node).filter(|(far, ..)| is_lost(*far)) {
                if mended.is_longer(far, at + cost) {
                    mended.set(far, at + cost, self.tunnel(place), node);
                    nearest.push(Reverse((at + cost, far)));
                }
            }
        }
        mended.order = kept;
        mended.order.extend(found);
        // Two sorted runs: the stable sort merges them.
        let Way { order, distance, .. } = &mut mended;
        order.sort_by_key(|node| distance.get(index(*node)).copied());
        mended
    }

    /// What becomes of [`Self::ways`] when the tunnels `gone` carry no routes any more.
    pub fn without(&self, ways: &[Way], gone: &[bool], threads: usize) -> Vec<Way> {
        let part = ways.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            let some = |part: &[Way]| part.iter().map(|way| self.mend(way, gone)).collect::<Vec<_>>();
            let running: Vec<_> = ways.chunks(part).map(|part| scope.spawn(move || some(part))).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        })
    }

    /// The ways to all targets, in their order.
    pub fn ways(&self, targets: &[u32], liars: &[u32], threads: usize) -> Vec<Way> {
        let part = targets.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            let some = |part: &[u32]| {
                let mut buckets = Buckets::new(self.longest);
                part.iter().map(|to| self.towards(*to, liars, &mut buckets)).collect::<Vec<_>>()
            };
            let running: Vec<_> = targets.chunks(part).map(|part| scope.spawn(move || some(part))).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        })
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
    fn check(overlay: &Overlay) {
        let arcs = Arcs::of(overlay);
        let nodes = number(overlay.nodes());
        for way in arcs.ways(&(0..nodes).collect::<Vec<_>>(), &[], 2) {
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

    /// Ways that lost tunnels are as short as ways found anew, and each leads over nodes nearer to its target.
    #[track_caller]
    fn check_without(overlay: &mut Overlay, gone: &[u32]) {
        let all: Vec<_> = (0..number(overlay.nodes())).collect();
        let whole = Arcs::of(overlay);
        let before = whole.ways(&all, &[3], 2);
        let mut marked = vec![false; overlay.count()];
        for at in gone {
            overlay.set_draining(*at, Some(policies::units::Uptime::default()));
            marked[index(*at)] = true;
        }
        let anew = Arcs::of(overlay).ways(&all, &[3], 2);
        for (mended, anew) in whole.without(&before, &marked, 2).iter().zip(anew) {
            assert_eq!(mended.distance, anew.distance);
            let reached = anew.distance.iter().filter(|distance| **distance != NOWHERE).count();
            assert_eq!(mended.order.len(), reached);
            let mut seen = vec![false; overlay.nodes()];
            for node in mended.order.iter().map(|node| index(*node)) {
                seen[node] = true;
                let (by, next) = (mended.by[node], mended.next[node]);
                if by == NOWHERE {
                    assert_eq!((mended.distance[node], next), (0, NOWHERE));
                    continue;
                }
                let tunnel = overlay.tunnel(by).unwrap();
                assert!(seen[index(next)] && !marked[index(by)] && tunnel.far(number(node)) == next);
                assert_eq!(mended.distance[node], mended.distance[index(next)] + tunnel.cost);
            }
        }
    }

    #[test]
    fn ways_that_lost_tunnels_are_mended_as_if_found_anew() {
        let limits = Limits { dial: 3, degree: 9 };
        for seed in 0..5 {
            let space = Space::synthetic(40, seed);
            let mut overlay = Overlay::random(&space, limits, LinkCost::default(), &mut Rng::new(seed));
            check_without(&mut overlay, &[]);
            check_without(&mut overlay, &[1, 17, 60]);
            let most: Vec<_> = (0..120).filter(|at| at % 4 != 0).collect();
            check_without(&mut overlay, &most);
        }
    }

    #[test]
    fn the_ways_are_the_shortest() {
        let limits = Limits { dial: 3, degree: 9 };
        for seed in 0..5 {
            let space = Space::synthetic(40, seed);
            check(&Overlay::random(&space, limits, LinkCost::default(), &mut Rng::new(seed)));
        }
    }
}
