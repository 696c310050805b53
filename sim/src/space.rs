//! Where the nodes are: the round trip between any two, measured or made up.
//!
//! In tenths of a millisecond, symmetric. The made-up space is a plane of clusters with access delays
//! and a private detour for each pair; what it has in common with the internet is checked below.

use crate::{
    chance::{below, normal, unit},
    num::{index, number, round_to_u32},
};
use anyhow::{Context, bail};
use policies::rng::Rng;
use std::{collections::BTreeSet, path::Path, time::Duration};

/// Tenths of a millisecond.
pub type Tenths = u32;

/// Round trips between nodes.
#[derive(Clone, Debug)]
pub enum Space {
    /// A square, row by row.
    Measured {
        /// Nodes on a side.
        nodes: usize,
        /// A square matrix of measured round trips; it is symmetric.
        rtts: Vec<Tenths>,
    },
    /// A synthetic space, by formula.
    Synthetic(Synthetic),
    /// Some nodes are a third as far from everybody: very attractive.
    Attractive(Box<Space>, BTreeSet<u32>),
}

/// Clusters on a plane.
#[derive(Clone, Debug)]
pub struct Synthetic {
    seed: u64,
    /// For each node its place on the plane, in milliseconds of round trip, and its access delay.
    places: Vec<(f64, f64, f64)>,
}

/// Half the side of the plane in milliseconds of round trip, east to west; north to south half as much.
const HALF_WIDTH_MS: f64 = 140.0;
/// Deviation of the nodes around the middle of their cluster.
const CLUSTER_MS: f64 = 6.0;
/// Median and spread (of the logarithm) of an access delay.
const ACCESS: (f64, f64) = (2.0, 1.0);
/// Deviation of the logarithm of a pair's detour: routes follow contracts, not geodesics.
const DETOUR: f64 = 0.3;
/// Longest round trip, so that a metric of 16 bits holds any path.
const LONGEST: Tenths = 30_000;

impl Space {
    /// A square matrix in milliseconds, one row a line. Both directions of a pair are averaged, and
    /// rounded to tenths; nothing is nearer than a tenth.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text)
            .with_context(|| format!("{} is no square of milliseconds", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for (line, row) in text
            .lines()
            .filter(|row| !row.trim().is_empty())
            .enumerate()
        {
            let values = row
                .split([' ', '\t', ','])
                .filter(|value| !value.is_empty());
            let row: Result<Vec<f64>, _> = values.map(str::parse).collect();
            rows.push(row.with_context(|| format!("line {}", line + 1))?);
        }
        let nodes = rows.len();
        if let Some(at) = rows.iter().position(|row| row.len() != nodes) {
            bail!("line {} does not have {nodes} numbers", at + 1);
        }
        if nodes < 2
            || rows
                .iter()
                .flatten()
                .any(|value| !value.is_finite() || *value < 0.0)
        {
            bail!("fewer than two nodes, or a number below zero");
        }
        let cell = |a: usize, b: usize| {
            rows.get(a)
                .and_then(|row| row.get(b))
                .copied()
                .unwrap_or_default()
        };
        let rtt = |a: usize, b: usize| match a == b {
            true => 0,
            false => round_to_u32((cell(a, b) + cell(b, a)) * 5.0).clamp(1, LONGEST),
        };
        let rtts = (0..nodes)
            .flat_map(|a| (0..nodes).map(move |b| (a, b)))
            .map(|(a, b)| rtt(a, b))
            .collect();
        Ok(Self::Measured { nodes, rtts })
    }

    /// `nodes` places in clusters; the same seed gives the same space.
    pub fn synthetic(nodes: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let clusters = (nodes / 25).clamp(4, 400);
        let centre = |rng: &mut Rng| {
            (
                (unit(rng) * 2.0 - 1.0) * HALF_WIDTH_MS,
                (unit(rng) - 0.5) * HALF_WIDTH_MS,
                unit(rng),
            )
        };
        let centres: Vec<_> = (0..clusters).map(|_| centre(&mut rng)).collect();
        let place = |rng: &mut Rng| {
            // The better of two draws: some clusters are several times as large as others.
            let draws =
                [below(rng, clusters), below(rng, clusters)].map(|at| centres.get(at).copied());
            let (x, y, _) = draws
                .into_iter()
                .flatten()
                .max_by(|a, b| a.2.total_cmp(&b.2))
                .unwrap_or_default();
            let (median, spread) = ACCESS;
            let access = median * (spread * normal(rng)).exp();
            (
                x + CLUSTER_MS * normal(rng),
                y + CLUSTER_MS * normal(rng),
                access.min(80.0),
            )
        };
        Self::Synthetic(Synthetic {
            seed,
            places: (0..nodes).map(|_| place(&mut rng)).collect(),
        })
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        match self {
            Self::Measured { nodes, .. } => *nodes,
            Self::Synthetic(space) => space.places.len(),
            Self::Attractive(space, _) => space.nodes(),
        }
    }

    /// The round trip between two nodes; zero from a node to itself or to nowhere.
    pub fn rtt(&self, a: u32, b: u32) -> Tenths {
        match self {
            Self::Measured { nodes, rtts } => rtts
                .get(index(a) * nodes + index(b))
                .copied()
                .unwrap_or_default(),
            Self::Synthetic(space) => space.rtt(a.min(b), a.max(b)),
            Self::Attractive(space, nodes) => {
                let rtt = space.rtt(a, b);
                if nodes.contains(&a) || nodes.contains(&b) {
                    rtt.div_ceil(3)
                } else {
                    rtt
                }
            }
        }
    }

    /// The mean round trip over all pairs, and the mean of the shortest paths when each node may pass
    /// on for all others: nothing can be better. In milliseconds.
    pub fn bounds(&self) -> (f64, f64) {
        let nodes = number(self.nodes());
        let mut paths: Vec<Vec<Tenths>> = (0..nodes)
            .map(|a| (0..nodes).map(|b| self.rtt(a, b)).collect())
            .collect();
        let direct = mean_ms(&paths);
        for middle in 0..self.nodes() {
            let Some(through) = paths.get(middle).cloned() else {
                continue;
            };
            for row in &mut paths {
                let Some(first) = row.get(middle).copied() else {
                    continue;
                };
                for (path, second) in row.iter_mut().zip(&through) {
                    *path = (*path).min(first + second);
                }
            }
        }
        (direct, mean_ms(&paths))
    }
}

fn mean_ms(paths: &[Vec<Tenths>]) -> f64 {
    let nodes = crate::num::many(paths.len());
    paths
        .iter()
        .flatten()
        .map(|path| f64::from(*path))
        .sum::<f64>()
        / (nodes * (nodes - 1.0))
        / 10.0
}

impl Synthetic {
    fn rtt(&self, a: u32, b: u32) -> Tenths {
        let (Some(one), Some(other)) = (self.places.get(index(a)), self.places.get(index(b)))
        else {
            return 0;
        };
        if a == b {
            return 0;
        }
        let far = ((one.0 - other.0).powi(2) + (one.1 - other.1).powi(2)).sqrt();
        let mut rng = Rng::new(self.seed ^ (u64::from(a) << 32 | u64::from(b)));
        let detour = (DETOUR * normal(&mut rng)).exp();
        round_to_u32((far * detour + one.2 + other.2) * 10.0).clamp(1, LONGEST)
    }
}

/// A round trip in tenths as a span.
pub fn span(tenths: Tenths) -> Duration {
    Duration::from_micros(u64::from(tenths) * 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::{many, share};

    #[track_caller]
    fn check(text: &str, rtts: Option<&[Tenths]>) {
        match (Space::parse(text), rtts) {
            (Ok(Space::Measured { rtts: read, .. }), Some(rtts)) => assert_eq!(read, rtts),
            (Err(_), None) => {}
            (other, _) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_square_of_milliseconds_is_averaged_over_both_directions() {
        check(
            "0 1.25 3\n1.35\t0 2\n3 2 0\n",
            Some(&[0, 13, 30, 13, 0, 20, 30, 20, 0]),
        );
        check("0 0\n0 0\n", Some(&[0, 1, 1, 0]));
    }

    #[test]
    fn what_is_no_square_is_refused() {
        for bad in ["", "0", "0 1\n1", "0 1\n1 x", "0 -1\n-1 0", "0 NaN\n1 0"] {
            check(bad, None);
        }
    }

    /// Percentiles of all round trips, in milliseconds.
    fn percentiles(space: &Space) -> [f64; 3] {
        let nodes = number(space.nodes());
        let mut all: Vec<_> = (0..nodes)
            .flat_map(|a| (0..a).map(move |b| (a, b)))
            .collect::<Vec<_>>();
        let mut all: Vec<_> = all
            .drain(..)
            .map(|(a, b)| f64::from(space.rtt(a, b)) / 10.0)
            .collect();
        all.sort_by(f64::total_cmp);
        [10, 50, 90].map(|percent| all[all.len() * percent / 100])
    }

    #[test]
    fn the_made_up_space_has_the_spread_of_a_measured_one() {
        // PlanetLab, 490 hosts: a tenth below 32 ms, half below 135 ms, nine tenths below 291 ms.
        let [low, middle, high] = percentiles(&Space::synthetic(490, 1));
        assert!((15.0..60.0).contains(&low), "{low}");
        assert!((80.0..160.0).contains(&middle), "{middle}");
        assert!((160.0..320.0).contains(&high), "{high}");
    }

    #[test]
    fn triangles_are_violated_as_often_as_in_measurements() {
        // PlanetLab, 490 hosts: 5.9 % of all triangles; other sets up to 30 %.
        let space = Space::synthetic(200, 2);
        let mut rng = Rng::new(5);
        let mut violated = 0;
        for _ in 0..20_000 {
            let [a, b, c] = [0; 3].map(|_: i32| number(below(&mut rng, 200)));
            let far = a != b && b != c && a != c;
            violated += u64::from(far && space.rtt(a, b) > space.rtt(a, c) + space.rtt(c, b));
        }
        assert!((0.03..0.3).contains(&share(violated, 20_000)), "{violated}");
    }

    #[test]
    fn nodes_stand_in_clusters() {
        // The nearest of 490 nodes is much nearer than it would be if they were spread evenly.
        let space = Space::synthetic(490, 3);
        let nearest = |a: u32| {
            (0..490)
                .filter(|b| *b != a)
                .map(|b| space.rtt(a, b))
                .min()
                .unwrap()
        };
        let mean = f64::from((0..490).map(nearest).sum::<u32>()) / 4_900.0;
        assert!(mean < percentiles(&space)[1] / 8.0, "{mean}");
    }

    #[test]
    fn the_same_seed_gives_the_same_space_and_it_is_symmetric() {
        let [one, same, other] = [7, 7, 8].map(|seed| Space::synthetic(50, seed));
        let all = |space: &Space| (0..50).map(|b| space.rtt(3, b)).collect::<Vec<_>>();
        assert_eq!(all(&one), all(&same));
        assert_ne!(all(&one), all(&other));
        assert!((0..50).all(|b| one.rtt(3, b) == one.rtt(b, 3)));
    }

    #[test]
    fn the_shortest_paths_of_the_full_mesh_are_a_lower_bound() {
        let (direct, optimum) = Space::synthetic(60, 1).bounds();
        assert!(
            optimum < direct && optimum > direct / 2.0,
            "{optimum} {direct}"
        );
        assert!(many(60) > 0.0);
    }
}
