//! The rules that ours is compared with: each node closes one tunnel a round and dials a random node.

use crate::{
    net::{Happened, PARTS, disturbed},
    num::{index, number},
    overlay::Overlay,
    paths::Paths,
    space::Space,
};
use policies::{rng::Rng, units::Uptime};
use std::collections::BTreeMap;

/// Which tunnel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Any of the dialled ones.
    Random,
    /// The dialled one that the fewest routes leave by: re6stnet's.
    FewestRoutes,
}

/// A network of nodes that follow a rule.
pub struct Ruled {
    /// The positions of the nodes.
    pub space: Space,
    /// All tunnels of the network.
    pub overlay: Overlay,
    paths: Paths,
    rule: Rule,
    rng: Rng,
}

impl Ruled {
    /// Begins with that overlay.
    pub fn new(space: Space, overlay: Overlay, rule: Rule, seed: u64) -> Self {
        Self {
            space,
            overlay,
            paths: Paths::default(),
            rule,
            rng: Rng::new(seed),
        }
    }

    /// All present paths.
    pub fn paths(&mut self) -> &Paths {
        let targets: Vec<_> = (0..number(self.space.nodes())).collect();
        self.paths.renew(&mut self.overlay, &targets, &[]);
        &self.paths
    }

    /// Each node acts once, a part of them at a time.
    pub fn round(&mut self) -> Happened {
        let mut happened = Happened::default();
        let mut order: Vec<_> = (0..number(self.space.nodes())).collect();
        self.rng.shuffle(&mut order);
        for part in order.chunks(order.len().div_ceil(index(PARTS)).max(1)) {
            self.paths();
            let mut closed: Vec<_> = part.iter().filter_map(|node| self.victim(*node)).collect();
            closed.sort_unstable();
            closed.dedup();
            happened.disturbed += disturbed(&self.overlay, &self.paths, &closed);
            happened.closed += u64::try_from(closed.len()).unwrap_or(0);
            closed.iter().for_each(|at| self.overlay.close(*at));
            for node in part {
                while self.overlay.dialled(*node).count() < self.overlay.limits().dial {
                    happened.dials += 1;
                    if !self
                        .overlay
                        .dial_any(&self.space, *node, Uptime::default(), &mut self.rng)
                    {
                        break;
                    }
                }
            }
        }
        happened
    }

    fn victim(&mut self, node: u32) -> Option<u32> {
        let dialled: Vec<_> = self.overlay.dialled(node).collect();
        if dialled.len() < self.overlay.limits().dial {
            return None;
        }
        match self.rule {
            Rule::Random => dialled
                .get(crate::chance::below(&mut self.rng, dialled.len()))
                .copied(),
            Rule::FewestRoutes => {
                let mut served: BTreeMap<u32, usize> = BTreeMap::new();
                for at in self.paths.firsts(node).into_iter().flatten() {
                    *served.entry(at).or_default() += 1;
                }
                dialled
                    .into_iter()
                    .min_by_key(|at| (served.get(at).copied().unwrap_or_default(), *at))
            }
        }
    }
}
