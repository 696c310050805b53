//! Sums up how this node sees the network, for the peers that ask.

use crate::{
    names::{Prefix, Role},
    observation::{LinkReading, Observation, Phase},
    rng::Rng,
    routes::RouteIndex,
};
use std::collections::BTreeMap;

/// This node's account of its tunnels and routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteView {
    /// This node accepts one more tunnel.
    pub accepts_tunnels: bool,
    /// Number of tunnels that others dialled to this node.
    pub accepted: u16,
    /// Our metrics to a sample of nodes, sorted.
    pub distances: Vec<(Prefix, u16)>,
    /// By peer, the metric by which our routes would grow without the tunnel that it dialled; `None` if some node
    /// would be out of reach.
    pub regrets: BTreeMap<Prefix, Option<u64>>,
}

impl RouteView {
    /// Makes a view with the metrics of at most `max_distances` nodes: those whose prefixes have the least hash, so
    /// that all nodes show the same ones.
    pub fn new(
        observation: &Observation,
        me: Prefix,
        max_accepted: usize,
        max_distances: usize,
    ) -> Self {
        let links = observation.links.iter();
        let is_up = links.map(|link| (link.tunnel.slot, link.tunnel.phase == Phase::Up));
        let is_up: BTreeMap<_, _> = is_up.collect();
        let table = observation.babel.as_deref();
        let routes = table.map_or(&[][..], |table| &table.routes);
        let routes = RouteIndex::new(routes, me, |slot| {
            is_up.get(&slot).copied().unwrap_or_default()
        });
        let links = observation.links.iter();
        let accepted: Vec<_> = links
            .filter(|link| link.tunnel.role() == Role::Accepted)
            .collect();
        let regret = |link: &&LinkReading| {
            let service = routes.service(link.tunnel.slot);
            let is_replaceable = service.only_route.is_none();
            let regret = is_replaceable.then_some(service.regret);
            (link.tunnel.peer, regret)
        };
        Self {
            accepts_tunnels: accepted.len() < max_accepted,
            accepted: u16::try_from(accepted.len()).unwrap_or(u16::MAX),
            distances: sample(&routes, max_distances),
            regrets: accepted.iter().map(regret).collect(),
        }
    }
}

/// The metrics of the nodes whose prefixes have the least hash, sorted by node.
fn sample(routes: &RouteIndex, max_distances: usize) -> Vec<(Prefix, u16)> {
    let hash = |node: Prefix| {
        let seed = u64::from(node.number()) << 8 | u64::from(node.length());
        Rng::new(seed).bits()
    };
    let nodes = routes.nodes().iter();
    let mut by_hash: Vec<_> = nodes
        .map(|(node, route)| (hash(*node), *node, route.metric))
        .collect();
    by_hash.sort_unstable();
    by_hash.truncate(max_distances);
    let mut distances: Vec<_> = by_hash
        .into_iter()
        .map(|(_, node, metric)| (node, metric))
        .collect();
    distances.sort_unstable();
    distances
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        names::Slot,
        observation::{BabelTable, Route},
    };

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    /// The view of a node that reaches 900 others, all at the same metric.
    fn view(metric: u16) -> RouteView {
        let route = |number: u32| Route {
            node: node(number),
            slot: Slot::Dialling(0),
            via: node(1),
            installed: true,
            metric,
            refmetric: 0,
        };
        let babel = BabelTable {
            neighbours: Vec::new(),
            routes: (0..900).map(route).collect(),
        };
        let observation = Observation {
            babel: Some(babel.into()),
            ..Observation::default()
        };
        RouteView::new(&observation, node(999), 1, 50)
    }

    #[test]
    fn all_nodes_show_the_metrics_of_the_same_nodes() {
        let [near, far] = [view(10), view(20)];
        let shown = |view: &RouteView| -> Vec<Prefix> {
            view.distances.iter().map(|(node, _)| *node).collect()
        };
        assert_eq!((shown(&near), shown(&near).len()), (shown(&far), 50));
        assert!(near.accepts_tunnels && near.regrets.is_empty());
    }
}
