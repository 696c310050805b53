//! Turns ways round: what a node knows of all targets lies together, since it is read together.

use crate::{
    num::{index, many, whole},
    paths::{NOWHERE, Way},
};

/// Nodes that are turned at a time: their rows stay near.
const TILE: usize = 64;

/// So many of all nodes are meant by each of a sample.
pub fn stands_for(nodes: usize, targets: usize) -> u32 {
    whole(many(nodes) / many(targets.max(1))).max(1)
}

/// For each node its distances and first tunnels to all targets.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    targets: Vec<u32>,
    distance: Vec<u32>,
    by: Vec<u32>,
}

impl Rows {
    /// Of these ways.
    pub fn of(ways: &[Way]) -> Self {
        let width = ways.len().max(1);
        let turned = |what: fn(&Way) -> &[u32]| {
            let nodes = ways.first().map_or(0, |way| what(way).len());
            let mut rows = vec![NOWHERE; nodes * ways.len()];
            for (tile, rows) in rows.chunks_mut(TILE * width).enumerate() {
                for (at, way) in ways.iter().enumerate() {
                    let values = what(way).get(tile * TILE..).unwrap_or_default();
                    for (row, value) in rows.chunks_mut(width).zip(values) {
                        if let Some(place) = row.get_mut(at) {
                            *place = *value;
                        }
                    }
                }
            }
            rows
        };
        let targets = ways.iter().map(|way| way.target).collect();
        Self { targets, distance: turned(|way| &way.distance), by: turned(|way| &way.by) }
    }

    /// So many nodes are meant by each target.
    pub fn stands_for(&self) -> u32 {
        stands_for(self.by.len() / self.targets.len().max(1), self.targets.len())
    }

    /// Where the ways lead to, sorted.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// The node's metric to each target; [`NOWHERE`] where there is no way.
    pub fn distance(&self, node: u32) -> &[u32] {
        self.row(&self.distance, node)
    }

    /// The first tunnel from the node to each target; [`NOWHERE`] at the target and where there is no way.
    pub fn by(&self, node: u32) -> &[u32] {
        self.row(&self.by, node)
    }

    fn row<'a>(&self, all: &'a [u32], node: u32) -> &'a [u32] {
        let width = self.targets.len();
        all.get(index(node) * width..(index(node) + 1) * width).unwrap_or_default()
    }
}
