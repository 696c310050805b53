//! Indexes babeld's routes: which slot leads to which node, and what closing a slot's tunnel would cost.
//!
//! An index is made from one table; how the table came about does not matter. The results do not depend on the
//! order of the routes.

mod route_key;
mod slot_index;

use crate::{
    names::{Prefix, Slot},
    observation::{INFINITY, Route},
};
use route_key::{IndexedRoute, METRIC_BITS, NODE_SHIFT, decode, key, node_bits};
use slot_index::SlotIndex;

/// The metrics that neighbours announce may be older than ours by one part in so many of the link's cost.
const LAG_PART: u32 = 8;

/// Returns whether the neighbour that announced `refmetric` for a node reaches it through this node.
///
/// `ours` is this node's own metric to that node, and `metric` the metric through the neighbour. A neighbour that
/// goes through us announces our metric plus the cost of the link between us. The announcement may lag behind, so
/// an eighth of the link's cost may be missing. babeld announces such routes on tunnels, too, since it does no
/// split horizon there.
pub fn leads_back(metric: u16, refmetric: u16, ours: u16) -> bool {
    let link = u32::from(metric.saturating_sub(refmetric));
    u32::from(refmetric) + link / LAG_PART >= u32::from(ours) + link
}

/// The use of one slot's tunnel for the routes of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Number of nodes whose installed route leaves by the slot.
    pub nodes: usize,
    /// The metric by which the routes to these nodes would grow without the slot, summed over our routes and those
    /// of neighbours that [follow](NodeRoute::followers) us. Nodes without any other route are not counted.
    pub regret: u64,
    /// The metrics of the routes to these nodes, summed: closing the tunnel would move that much.
    pub moved: u64,
    /// A node that no route leads to but by this slot.
    pub only_route: Option<Prefix>,
}

/// The route to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRoute {
    /// The metric of the installed route, or of the best route if none is installed.
    pub metric: u16,
    /// Number of neighbours that reach the node through us, by their announcements; their routes are no
    /// alternative for us.
    pub followers: u16,
}

impl NodeRoute {
    /// The number of nodes whose route becomes shorter or longer with ours: this node, and its followers.
    pub fn weight(self) -> u64 {
        u64::from(self.followers) + 1
    }
}

/// A table of routes, indexed by node and slot.
#[derive(Clone, Debug, Default)]
pub struct RouteIndex {
    /// Keys of the routes, sorted by node, then slot; at most one of each pair. A key takes half the memory of a route.
    keys: Vec<u128>,
    /// Each node once, sorted.
    nodes: Vec<(Prefix, NodeRoute)>,
    /// Each slot that has routes, sorted; whether its tunnel stays; its use.
    services: Vec<(Slot, bool, Service)>,
    /// If the table is a sample: the number of further nodes that each of its nodes stands for.
    further_nodes: u32,
}

impl RouteIndex {
    /// Indexes the finite routes to nodes other than `me`. `stays` returns for a slot whether its tunnel can take
    /// over the routes of another one: it is up, and does not drain.
    pub fn new(routes: &[Route], me: Prefix, stays: impl Fn(Slot) -> bool) -> Self {
        let finite = routes
            .iter()
            .filter(|route| route.node != me && route.metric != INFINITY);
        let slots = SlotIndex::new(finite.clone().map(|route| route.slot));
        let mut keys = Vec::with_capacity(routes.len());
        keys.extend(finite.map(|route| key(route, slots.position(route.slot))));
        keys.sort_unstable();
        // Of several routes to a node by one slot the installed one counts, or the best.
        keys.dedup_by_key(|key| *key >> METRIC_BITS);
        let services: Vec<_> = slots
            .slots
            .iter()
            .map(|slot| (*slot, stays(*slot), Service::default()))
            .collect();
        let mut index = Self {
            nodes: Vec::new(),
            services,
            keys: Vec::new(),
            further_nodes: 0,
        };
        let mut to_node = Vec::new();
        for keys in keys.chunk_by(|a, b| a >> NODE_SHIFT == b >> NODE_SHIFT) {
            to_node.clear();
            to_node.extend(keys.iter().filter_map(|key| decode(*key)));
            index.add_node(&to_node);
        }
        index.keys = keys;
        index
    }

    /// Takes the table for a sample, each node of which stands for this number of nodes, itself included.
    pub fn sampled(self, nodes: u32) -> Self {
        Self {
            further_nodes: nodes.saturating_sub(1),
            ..self
        }
    }

    /// The number of nodes but one.
    pub fn other_nodes(&self) -> u64 {
        let listed = u64::try_from(self.nodes.len())
            .unwrap_or(u64::MAX)
            .saturating_sub(1);
        self.scaled(listed)
    }

    fn scaled(&self, sum: u64) -> u64 {
        sum.saturating_mul(u64::from(self.further_nodes).saturating_add(1))
    }

    /// Adds the routes to one node to the services of their slots.
    fn add_node(&mut self, routes: &[IndexedRoute]) {
        let Some(best) = routes
            .iter()
            .min_by_key(|route| (!route.installed, route.metric))
        else {
            return;
        };
        // The two best routes by slots that stay; the second counts where the first is by the slot in question.
        let (mut first, mut second) = (None::<&IndexedRoute>, None::<&IndexedRoute>);
        let mut followers = 0u16;
        let stays = |route: &&IndexedRoute| {
            let service = self.services.get(route.slot_position);
            service.is_some_and(|(_, stays, _)| *stays)
        };
        for route in routes.iter().filter(stays) {
            if !route.installed && leads_back(route.metric, route.refmetric, best.metric) {
                followers = followers.saturating_add(1);
                continue;
            }
            if first.is_none_or(|first| route.metric < first.metric) {
                second = first.replace(route);
            } else if second.is_none_or(|second| route.metric < second.metric) {
                second = Some(route);
            }
        }
        let node_route = NodeRoute {
            metric: best.metric,
            followers,
        };
        self.nodes.push((best.node, node_route));
        let alternative_to = |position: usize| {
            if first.is_some_and(|route| route.slot_position == position) {
                second
            } else {
                first
            }
        };
        for route in routes {
            let alternative = alternative_to(route.slot_position);
            if !route.installed && alternative.is_some() {
                continue;
            }
            let Some((.., service)) = self.services.get_mut(route.slot_position) else {
                continue;
            };
            if route.installed {
                service.nodes += 1;
                service.moved += u64::from(route.metric);
            }
            match alternative {
                Some(alternative) => {
                    let longer = u64::from(alternative.metric.saturating_sub(route.metric));
                    service.regret += longer * node_route.weight();
                }
                None => service.only_route = service.only_route.or(Some(route.node)),
            }
        }
    }

    /// Returns whether there is a finite route to the node.
    pub fn reaches(&self, node: Prefix) -> bool {
        self.get(node).is_some()
    }

    /// The metric to the node.
    pub fn metric(&self, node: Prefix) -> Option<u16> {
        self.get(node).map(|route| route.metric)
    }

    /// The route to the node.
    pub fn get(&self, node: Prefix) -> Option<NodeRoute> {
        let position = self
            .nodes
            .binary_search_by_key(&node, |(node, _)| *node)
            .ok()?;
        self.nodes.get(position).map(|(_, route)| *route)
    }

    /// All nodes that a finite route leads to, sorted.
    pub fn nodes(&self) -> &[(Prefix, NodeRoute)] {
        &self.nodes
    }

    /// The use of the slot.
    pub fn service(&self, slot: Slot) -> Service {
        let position = self.position(slot);
        let service = position.and_then(|position| self.services.get(position));
        let service = service.map(|(.., service)| *service).unwrap_or_default();
        Service {
            regret: self.scaled(service.regret),
            moved: self.scaled(service.moved),
            ..service
        }
    }

    /// The nodes whose installed route leaves by the slot, sorted.
    pub fn served_nodes(&self, slot: Slot) -> impl Iterator<Item = Prefix> + '_ {
        let position = self.position(slot);
        let routes = self.keys.iter().filter_map(|key| decode(*key));
        routes
            .filter(move |route| route.installed && Some(route.slot_position) == position)
            .map(|route| route.node)
    }

    /// Returns whether the node has a finite route by another slot, whatever the state of that slot.
    pub fn is_reached_without(&self, node: Prefix, slot: Slot) -> bool {
        let position = self.position(slot);
        let mut routes = self.routes_to(node);
        routes.any(|route| Some(route.slot_position) != position)
    }

    /// The slot by which the installed route to the node leaves, and the route's metric.
    pub fn installed(&self, node: Prefix) -> Option<(Slot, u16)> {
        let route = self.routes_to(node).find(|route| route.installed)?;
        let (slot, ..) = self.services.get(route.slot_position)?;
        Some((*slot, route.metric))
    }

    /// The slots of all finite routes to the node, with the metric of the best one by each.
    pub fn slots_to(&self, node: Prefix) -> impl Iterator<Item = (Slot, u16)> + '_ {
        self.routes_to(node).filter_map(|route| {
            let (slot, ..) = self.services.get(route.slot_position)?;
            Some((*slot, route.metric))
        })
    }

    /// The finite routes to the node, by ascending slot.
    fn routes_to(&self, node: Prefix) -> impl Iterator<Item = IndexedRoute> + '_ {
        let start = self
            .keys
            .partition_point(|key| key >> NODE_SHIFT < node_bits(node).into());
        let keys = self.keys.get(start..).unwrap_or_default();
        let routes = keys.iter().filter_map(|key| decode(*key));
        routes.take_while(move |route| route.node == node)
    }

    /// The position of the slot among the services.
    fn position(&self, slot: Slot) -> Option<usize> {
        self.services
            .binary_search_by_key(&slot, |(slot, ..)| *slot)
            .ok()
    }
}

#[cfg(test)]
mod tests;
