//! Computes the routes between neighbours by which a node decides who shares its restart lock.

use super::prefix;
use crate::{
    num::{index, number},
    overlay::Overlay,
};
use policies::{
    names::{Slot, Transport},
    observation::{BabelTable, INFINITY, Route},
};
use std::sync::Arc;

/// Paths with more hops than this are not looked for, so a node may seem to lack another route that it has.
const MAX_HOPS: usize = 3;

/// The slot at which this tunnel ends at `node`.
pub fn slot(overlay: &Overlay, tunnel: u32, node: u32) -> Option<Slot> {
    let tunnel = overlay.tunnel(tunnel)?;
    Some(if tunnel.dialler == node {
        Slot::Dialling(tunnel.dial_slot)
    } else {
        Slot::Accepting(Transport::Udp, tunnel.accept_slot)
    })
}

/// The table of each node: its routes to its neighbours, by every slot. Nodes further away have more routes than these.
pub fn tables(overlay: &Overlay) -> Vec<Arc<BabelTable>> {
    let nodes = overlay.nodes();
    let mut routes = vec![Vec::new(); nodes];
    let mut distances = Distances {
        costs: vec![u32::MAX; nodes],
        reached: Vec::new(),
    };
    for destination in 0..number(nodes) {
        distances.measure(overlay, destination);
        for (node, _) in overlay.links(destination) {
            if let Some(routes) = routes.get_mut(index(*node)) {
                routes.extend(distances.routes(overlay, *node, destination));
            }
        }
    }
    let table = |routes| {
        let neighbours = Vec::new();
        Arc::new(BabelTable { neighbours, routes })
    };
    routes.into_iter().map(table).collect()
}

/// The costs of the shortest paths from one node.
struct Distances {
    costs: Vec<u32>,
    reached: Vec<u32>,
}

impl Distances {
    fn cost(&self, node: u32) -> u32 {
        self.costs.get(index(node)).copied().unwrap_or(u32::MAX)
    }

    fn set(&mut self, node: u32, cost: u32) {
        if let Some(place) = self.costs.get_mut(index(node)) {
            *place = cost;
        }
    }

    /// Replaces the costs by those from `from`.
    fn measure(&mut self, overlay: &Overlay, from: u32) {
        for node in std::mem::take(&mut self.reached) {
            self.set(node, u32::MAX);
        }
        self.set(from, 0);
        self.reached.push(from);
        let mut last = vec![from];
        for _ in 0..MAX_HOPS {
            let mut next = Vec::new();
            for node in last {
                let cost = self.cost(node);
                for (far, tunnel) in overlay.links(node) {
                    let link = overlay.tunnel(*tunnel).map_or(u32::MAX, |link| link.cost);
                    let known = self.cost(*far);
                    if cost.saturating_add(link) < known {
                        if known == u32::MAX {
                            self.reached.push(*far);
                        }
                        self.set(*far, cost.saturating_add(link));
                        next.push(*far);
                    }
                }
            }
            next.sort_unstable();
            next.dedup();
            last = next;
        }
    }

    /// The routes from `node` to the destination that the costs belong to.
    fn routes(&self, overlay: &Overlay, node: u32, destination: u32) -> Vec<Route> {
        let metric = |cost: u32| u16::try_from(cost).unwrap_or(INFINITY);
        let route = |(via, tunnel): &(u32, u32)| {
            let cost = self.cost(*via);
            let link = overlay.tunnel(*tunnel)?.cost;
            Some(Route {
                node: prefix(destination),
                slot: slot(overlay, *tunnel, node)?,
                via: prefix(*via),
                installed: cost.saturating_add(link) == self.cost(node),
                metric: metric(cost.saturating_add(link)),
                refmetric: metric(cost),
            })
        };
        overlay.links(node).iter().filter_map(route).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{overlay::Limits, space::Space};
    use policies::{link_cost::LinkCost, routes::leads_back, units::Uptime};

    /// Nodes with the same cost of each link, and these tunnels.
    fn overlay(nodes: usize, tunnels: &[(u32, u32)]) -> Overlay {
        let space = Space::Measured {
            nodes,
            rtts: vec![10; nodes * nodes],
        };
        let limits = Limits { dial: 9, degree: 9 };
        let mut overlay = Overlay::new(nodes, limits, LinkCost::default());
        for (dialler, acceptor) in tunnels {
            assert!(overlay.dial(&space, *dialler, *acceptor, Uptime::default()));
        }
        overlay
    }

    /// The metrics of the routes from node 0 to node 1: by each neighbour, and whether the neighbour reaches it through node 0.
    #[track_caller]
    fn check(nodes: usize, tunnels: &[(u32, u32)], expected: &[(u32, u16, bool)]) {
        let tables = tables(&overlay(nodes, tunnels));
        let routes = tables[0].routes.iter();
        let routes = routes.filter(|route| route.node == prefix(1));
        let mut routes: Vec<_> = routes
            .map(|route| {
                let leads_back = leads_back(route.metric, route.refmetric, 96);
                assert_eq!(route.installed, route.via == prefix(1));
                (route.via.number(), route.metric, leads_back)
            })
            .collect();
        routes.sort_unstable();
        assert_eq!(routes, expected);
    }

    #[test]
    fn a_neighbour_without_a_route_of_its_own_leads_back() {
        let star = [(0, 1), (0, 2)];
        check(3, &star, &[(1, 96, false), (2, 288, true)]);
        let ring = [(0, 1), (0, 2), (2, 1)];
        check(3, &ring, &[(1, 96, false), (2, 192, false)]);
    }
}
