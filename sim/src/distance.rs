//! Counts hops in random overlays: computed for comparison with re6stnet's table.
//!
//! Each node draws `k` others, with replacement; two nodes that drew each other have one tunnel.

use crate::{
    chance::{below, interval, sample},
    num::{index, number, real},
};
use policies::rng::Rng;
use serde::Serialize;

/// Nodes from which distances are counted; all, where there are fewer.
const SOURCES: usize = 256;

/// The last line of the output.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Distance {
    /// The number of nodes.
    pub nodes: usize,
    /// The number of nodes that each node dials.
    pub k: usize,
    /// The mean over all pairs of different nodes that have a path.
    pub mean_hops: f64,
    /// Half the width of its confidence interval of 95 %, as to the nodes drawn.
    pub interval: f64,
    /// The longest seen.
    pub max_hops: u32,
    /// The pairs without a path, as a share of all pairs.
    pub torn: f64,
}

/// Neighbours, node by node.
struct Graph {
    first: Vec<u32>,
    far: Vec<u32>,
}

impl Graph {
    fn random(nodes: usize, k: usize, rng: &mut Rng) -> Self {
        let draws: Vec<(u32, u32)> = (0..number(nodes))
            .flat_map(|node| (0..k).map(move |_| node))
            .map(|node| {
                let other = number(below(rng, nodes - 1));
                // All but the node itself.
                (node, if other >= node { other + 1 } else { other })
            })
            .collect();
        let mut first = vec![0u32; nodes + 1];
        for (a, b) in &draws {
            for node in [a, b] {
                if let Some(count) = first.get_mut(index(*node) + 1) {
                    *count += 1;
                }
            }
        }
        let mut sum = 0;
        for count in &mut first {
            sum += *count;
            *count = sum;
        }
        let (mut next, mut far) = (first.clone(), vec![0u32; draws.len() * 2]);
        for (a, b) in draws {
            for (node, other) in [(a, b), (b, a)] {
                let Some(at) = next.get_mut(index(node)) else {
                    continue;
                };
                if let Some(place) = far.get_mut(index(*at)) {
                    *place = other;
                }
                *at += 1;
            }
        }
        Self { first, far }
    }

    fn of(&self, node: u32) -> &[u32] {
        let (Some(from), Some(to)) = (self.first.get(index(node)), self.first.get(index(node) + 1))
        else {
            return &[];
        };
        self.far.get(index(*from)..index(*to)).unwrap_or_default()
    }

    /// How many nodes are how many hops away, the node itself at the front.
    fn rings(&self, from: u32) -> Vec<u64> {
        let mut seen = vec![false; self.first.len() - 1];
        let mut ring = vec![from];
        let mut rings = Vec::new();
        if let Some(place) = seen.get_mut(index(from)) {
            *place = true;
        }
        while !ring.is_empty() {
            rings.push(u64::try_from(ring.len()).unwrap_or(u64::MAX));
            let mut next = Vec::new();
            for far in ring.iter().flat_map(|node| self.of(*node)) {
                if let Some(place) = seen.get_mut(index(*far)).filter(|place| !**place) {
                    *place = true;
                    next.push(*far);
                }
            }
            ring = next;
        }
        rings
    }
}

/// Counts hops in one random overlay.
pub fn distance(nodes: usize, k: usize, seed: u64, threads: usize) -> Distance {
    let mut rng = Rng::new(seed ^ u64::from(number(nodes)) << 20 ^ u64::from(number(k)));
    let graph = Graph::random(nodes, k, &mut rng);
    let sources = sample(&mut rng, nodes, SOURCES);
    let part = sources.len().div_ceil(threads.max(1)).max(1);
    let graph = &graph;
    let rings: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let some = |part: &[usize]| {
            part.iter()
                .map(|node| graph.rings(number(*node)))
                .collect::<Vec<_>>()
        };
        let running: Vec<_> = sources
            .chunks(part)
            .map(|part| scope.spawn(move || some(part)))
            .collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_default())
            .collect()
    });
    let others = u64::try_from(nodes).unwrap_or(u64::MAX) - 1;
    let (mut hops, mut connected_pairs, mut max_hops) = (Vec::new(), 0u64, 0);
    for rings in &rings {
        let reached: u64 = rings.iter().skip(1).sum();
        let sum: u64 = (0u64..).zip(rings).map(|(hops, count)| hops * count).sum();
        hops.push(real(sum) / real(reached.max(1)));
        connected_pairs += reached;
        max_hops = max_hops.max(number(rings.len().saturating_sub(1)));
    }
    let all = others * u64::try_from(rings.len()).unwrap_or(u64::MAX);
    let (mean_hops, interval) = interval(&hops);
    Distance {
        nodes,
        k,
        mean_hops,
        interval,
        max_hops,
        torn: crate::num::share(all - connected_pairs, all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with `hops` of re6stnet's table, a mean over all pairs, those of a node with itself included.
    #[track_caller]
    fn check(nodes: usize, k: usize, hops: f64) {
        let found = distance(nodes, k, 1, 2);
        assert!(
            (found.mean_hops / hops - 1.0).abs() < 0.03,
            "{found:?} instead of {hops}"
        );
        assert_eq!(found.torn, 0.0);
    }

    #[test]
    fn the_published_table_is_reproduced() {
        check(100, 5, 2.23943);
        check(100, 50, 1.34873);
        check(1_600, 10, 2.77183);
        check(6_400, 20, 2.77035);
        check(12_800, 5, 4.41052);
    }

    #[test]
    fn the_same_seed_gives_the_same_overlay() {
        let hops = |seed| distance(300, 3, seed, 2).mean_hops;
        assert_eq!(hops(1), hops(1));
        assert_ne!(hops(1), hops(2));
    }
}
