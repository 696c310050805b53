//! Finds the shortest ways to some nodes, as Babel does once it has settled.
//!
//! By buckets (Dial, 1969): costs are small whole numbers. Targets are shared among threads, and the
//! result does not depend on how.

use crate::{
    num::{index, number, real},
    overlay::Overlay,
};

/// No way.
pub const NOWHERE: u32 = u32::MAX;

/// The arcs of an overlay, node by node; tunnels under drain are left out.
#[derive(Clone, Debug)]
pub struct Arcs {
    first: Vec<u32>,
    /// Far end, cost, tunnel.
    arcs: Vec<(u32, u32, u32)>,
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
    /// All nodes that have a way, the nearest first: each stands behind the next node of its way.
    pub order: Vec<u32>,
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
        let mut arcs = Vec::new();
        let mut first = vec![0];
        let mut longest = 1;
        for node in 0..number(overlay.nodes()) {
            for (far, at) in overlay.links(node) {
                let Some(tunnel) = overlay.tunnel(*at) else { continue };
                if tunnel.draining.is_none() {
                    longest = longest.max(tunnel.cost);
                    arcs.push((*far, tunnel.cost, *at));
                }
            }
            first.push(number(arcs.len()));
        }
        Self { first, arcs, longest }
    }

    fn of_node(&self, node: u32) -> &[(u32, u32, u32)] {
        let (Some(from), Some(to)) = (self.first.get(index(node)), self.first.get(index(node) + 1)) else {
            return &[];
        };
        self.arcs.get(index(*from)..index(*to)).unwrap_or_default()
    }

    /// The shortest ways from all nodes to the target, and to each liar, which claims to be the target.
    fn towards(&self, target: u32, liars: &[u32], buckets: &mut Buckets) -> Way {
        let nodes = self.first.len() - 1;
        let (mut distance, mut by) = (vec![NOWHERE; nodes], vec![NOWHERE; nodes]);
        let mut order = Vec::with_capacity(nodes);
        let claiming = liars.iter().copied().filter(|liar| *liar != target);
        for source in std::iter::once(target).chain(claiming) {
            if let Some(place) = distance.get_mut(index(source)) {
                *place = 0;
                buckets.push(0, source);
            }
        }
        while let Some((at, mut entry)) = buckets.next() {
            while let Some((node, next)) = buckets.entries.get(index(entry)).copied() {
                entry = next;
                // Otherwise a shorter way was found meanwhile.
                if distance.get(index(node)) != Some(&at) {
                    continue;
                }
                order.push(node);
                for (far, cost, tunnel) in self.of_node(node) {
                    let through = at + cost;
                    let Some(known) = distance.get_mut(index(*far)) else { continue };
                    if through < *known {
                        *known = through;
                        if let Some(by) = by.get_mut(index(*far)) {
                            *by = *tunnel;
                        }
                        buckets.push(through, *far);
                    }
                }
            }
        }
        Way { target, distance, by, order }
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
                let rest = way.distance[index(tunnel.far(node))];
                assert_eq!(way.distance[index(node)], rest + tunnel.cost);
            }
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
