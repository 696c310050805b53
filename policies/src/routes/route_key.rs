//! Packs a route into one number, since numbers are sorted three times as fast as routes.
//!
//! The order of keys is the order of node, slot, whether the route is installed (installed ones first), metric.

use crate::{names::Prefix, observation::Route};

/// Bits of a key below node and slot: whether the route is not installed, its metric and the announced metric.
pub(super) const METRIC_BITS: u32 = 33;

/// Bits of a key below the node.
pub(super) const NODE_SHIFT: u32 = 16 + METRIC_BITS;

/// One finite route, as a key holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexedRoute {
    pub(super) node: Prefix,
    pub(super) installed: bool,
    pub(super) metric: u16,
    /// The metric that the neighbour announced.
    pub(super) refmetric: u16,
    /// The position of the slot among all slots of the table.
    pub(super) slot_position: usize,
}

/// The key of a route that leaves by the slot at that position.
pub(super) fn key(route: &Route, slot_position: u16) -> u128 {
    let metrics = u64::from(route.metric) << 16 | u64::from(route.refmetric);
    let below_slot = u64::from(!route.installed) << 32 | metrics;
    u128::from(node_bits(route.node)) << NODE_SHIFT
        | u128::from(u64::from(slot_position) << METRIC_BITS | below_slot)
}

/// The bits of the node in a key.
pub(super) fn node_bits(node: Prefix) -> u64 {
    u64::from(node.number()) << 8 | u64::from(node.length())
}

/// The route whose [`key`] this is.
pub(super) fn decode(key: u128) -> Option<IndexedRoute> {
    let [.., n3, n2, n1, n0, length, s1, s0, _, _, _, _, _] = (key << 7).to_be_bytes();
    let [.., i, m1, m0, r1, r0] = key.to_be_bytes();
    let node = Prefix::new(u32::from_be_bytes([n3, n2, n1, n0]), length)?;
    let [metric, refmetric] = [[m1, m0], [r1, r0]].map(u16::from_be_bytes);
    Some(IndexedRoute {
        node,
        installed: i & 1 == 0,
        metric,
        refmetric,
        slot_position: usize::from(u16::from_be_bytes([s1, s0])),
    })
}
