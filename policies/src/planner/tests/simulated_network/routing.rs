//! An idealised router: shortest paths over the tunnels, and the tables that babeld would have.

use super::network::{Network, Paths, prefix};
use crate::observation::{BabelTable, INFINITY, Neighbour, Route};
use std::collections::BTreeSet;

impl Network {
    /// For each node, its distance to `to`, and the tunnel that its packets leave by.
    pub(super) fn paths_to(&self, to: usize) -> Vec<(u32, Option<usize>)> {
        let mut found = vec![(u32::MAX, None); self.planners.len()];
        found[to] = (0, None);
        let mut queue = BTreeSet::from([(0, to)]);
        while let Some((distance, node)) = queue.pop_first() {
            for (index, _, other) in self.links(node) {
                let tunnel = &self.tunnels[index];
                if !tunnel.carries_frames() {
                    continue;
                }
                let through = distance + tunnel.cost(self.now);
                if through < found[other].0 {
                    queue.remove(&(found[other].0, other));
                    found[other] = (through, Some(index));
                    queue.insert((through, other));
                }
            }
        }
        found
    }

    /// All paths, by destination.
    pub(super) fn paths(&self) -> Paths {
        (0..self.planners.len())
            .map(|to| self.paths_to(to))
            .collect()
    }

    /// babeld's table at each node.
    pub(super) fn tables(&self, paths: &Paths) -> Vec<BabelTable> {
        let table = |node: usize| {
            let mut table = BabelTable::default();
            for (index, end, other) in self
                .links(node)
                .filter(|(index, ..)| self.tunnels[*index].carries_frames())
            {
                let tunnel = &self.tunnels[index];
                let cost = u16::try_from(tunnel.cost(self.now)).unwrap();
                let slot = tunnel.slots[end];
                table.neighbours.push(Neighbour {
                    slot,
                    peer: prefix(other),
                    reach: 0xffff,
                    rxcost: 96,
                    txcost: cost,
                    rtt: None,
                    cost,
                });
                for (to, found) in paths.iter().enumerate() {
                    let (distance, by) = found[other];
                    // Split horizon: a neighbour does not announce what it reaches through this tunnel.
                    if to == node || distance == u32::MAX || by == Some(index) {
                        continue;
                    }
                    let metric = u16::try_from(distance + u32::from(cost)).unwrap_or(INFINITY);
                    let refmetric = u16::try_from(distance).unwrap_or(INFINITY);
                    let (node, via) = (prefix(to), prefix(other));
                    let installed = found[self.tunnels[index].ends[end]].1 == Some(index);
                    table.routes.push(Route {
                        node,
                        slot,
                        via,
                        installed,
                        metric,
                        refmetric,
                    });
                }
            }
            table
        };
        (0..self.planners.len()).map(table).collect()
    }

    /// Counts the frames that all nodes send to each other in one step.
    pub(super) fn carry(&mut self, paths: &Paths) {
        let frames = self.rate / 2;
        for (to, found) in paths.iter().enumerate() {
            for from in (0..self.planners.len()).filter(|from| *from != to) {
                let mut node = from;
                while let Some(index) = found[node].1 {
                    let tunnel = &mut self.tunnels[index];
                    let end = usize::from(tunnel.ends[1] == node);
                    tunnel.counters[end].tx_packets += frames;
                    tunnel.counters[end].tx_bytes += frames * 100;
                    tunnel.counters[1 - end].rx_packets += frames;
                    tunnel.counters[1 - end].rx_bytes += frames * 100;
                    node = tunnel.ends[1 - end];
                }
            }
        }
    }
}
