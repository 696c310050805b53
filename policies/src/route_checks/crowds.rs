//! Finds neighbours that announce more nodes than the network has.

use crate::{
    names::{Prefix, Slot},
    observation::{BabelTable, INFINITY},
};
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that a neighbour may announce beyond twice the number of members, since some joined lately or have left.
const SPARE_NODES: u64 = 64;

/// The slots by which more nodes are announced than the network has, each with one of the nodes, and the median of the announced metrics:
/// if most of the nodes do not exist, that is the metric of such a route.
pub(super) fn crowded_slots(table: &BabelTable, members: u64) -> Vec<(Slot, Prefix, u16)> {
    let limit = members.saturating_mul(2).saturating_add(SPARE_NODES);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if table.routes.len() <= limit {
        return Vec::new();
    }
    let mut by_slot: BTreeMap<Slot, BTreeSet<(Prefix, u16)>> = BTreeMap::new();
    let finite = table.routes.iter().filter(|route| route.metric < INFINITY);
    for route in finite {
        let routes = by_slot.entry(route.slot).or_default();
        routes.insert((route.node, route.refmetric));
    }
    by_slot.retain(|_, routes| routes.len() > limit);
    let crowds = by_slot.into_iter().filter_map(|(slot, routes)| {
        let mut by_metric: Vec<_> = routes
            .into_iter()
            .map(|(node, metric)| (metric, node))
            .collect();
        by_metric.sort_unstable();
        let (metric, node) = *by_metric.get(by_metric.len() / 2)?;
        Some((slot, node, metric))
    });
    crowds.collect()
}
