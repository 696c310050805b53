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
    ///
    /// `buckets` come empty and are left empty: a power of two of them, more than the longest arc.
    fn towards(&self, target: u32, liars: &[u32], buckets: &mut [Vec<u32>]) -> Way {
        let nodes = self.first.len() - 1;
        let (mut distance, mut by) = (vec![NOWHERE; nodes], vec![NOWHERE; nodes]);
        let width = buckets.len();
        let mut waiting = 0usize;
        for source in std::iter::once(target).chain(liars.iter().copied()) {
            if let (Some(place), Some(bucket)) = (distance.get_mut(index(source)), buckets.first_mut()) {
                *place = 0;
                bucket.push(source);
                waiting += 1;
            }
        }
        let mut at = 0u32;
        while waiting > 0 {
            let here = index(at) & (width - 1);
            let mut bucket = buckets.get_mut(here).map(std::mem::take).unwrap_or_default();
            waiting -= bucket.len();
            for node in bucket.drain(..) {
                if distance.get(index(node)) != Some(&at) {
                    continue;
                }
                for (far, cost, tunnel) in self.of_node(node) {
                    let through = at + cost;
                    let Some(known) = distance.get_mut(index(*far)) else { continue };
                    if through < *known {
                        *known = through;
                        if let Some(by) = by.get_mut(index(*far)) {
                            *by = *tunnel;
                        }
                        if let Some(bucket) = buckets.get_mut(index(through) & (width - 1)) {
                            bucket.push(*far);
                            waiting += 1;
                        }
                    }
                }
            }
            if let Some(place) = buckets.get_mut(here) {
                *place = bucket;
            }
            at += 1;
        }
        Way { target, distance, by }
    }

    /// The ways to all targets, in their order.
    pub fn ways(&self, targets: &[u32], liars: &[u32], threads: usize) -> Vec<Way> {
        let part = targets.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            let some = |part: &[u32]| {
                let mut buckets = vec![Vec::new(); (index(self.longest) + 1).next_power_of_two()];
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
