//! Chooses an alternate next hop to a node to which babeld has lost its route (RFC 5286, section 3).
//!
//! Babel's feasibility condition rejects nearly all other routes to a lost neighbour until that has sent a fresh sequence
//! number, which takes a second. The caller uses an alternate for packets of its own only, never for forwarded ones. So a
//! packet takes at most one alternate, at its source, and an alternate forms no loop, whatever the other nodes do.

use crate::{
    names::{Prefix, Slot},
    observation::{INFINITY, Route},
    routes::leads_back,
};

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The slot that packets leave by.
    pub slot: Slot,
    /// The neighbour to which they are sent.
    pub via: Prefix,
}

/// Returns the best alternate next hop to `node` by babeld's last table, in which the lost route is still installed.
/// `is_usable` returns whether the tunnel of a slot is up.
///
/// The next hop of the lost route is no alternate, except for the node itself: the tunnel to it may still work if only
/// the node's babeld has exited. A neighbour whose route leads back through this node is none, either.
pub fn alternate(
    routes: &[Route],
    node: Prefix,
    is_usable: impl Fn(Slot) -> bool,
) -> Option<NextHop> {
    let to_node = routes.iter().filter(|route| route.node == node);
    let lost = to_node.clone().find(|route| route.installed);
    let is_alternate = |route: &&Route| {
        let goes_elsewhere = lost.is_none_or(|lost| {
            route.slot != lost.slot && !leads_back(route.metric, route.refmetric, lost.metric)
        });
        route.metric < INFINITY && (goes_elsewhere || route.via == node) && is_usable(route.slot)
    };
    let best = to_node
        .filter(is_alternate)
        .min_by_key(|route| (route.metric, route.slot))?;
    Some(NextHop {
        slot: best.slot,
        via: best.via,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    /// A route to node 9 by the slot of this number, on a link of cost 96.
    fn route(slot: u16, via: u32, refmetric: u16, installed: bool) -> Route {
        Route {
            node: node(9),
            slot: Slot::Dialling(slot),
            via: node(via),
            installed,
            metric: refmetric.saturating_add(96),
            refmetric,
        }
    }

    /// The slot of the alternate if the tunnels on these slots are up.
    fn chosen(routes: &[Route], up: &[u16]) -> Option<u16> {
        let is_usable = |slot| up.iter().any(|number| slot == Slot::Dialling(*number));
        match alternate(routes, node(9), is_usable)?.slot {
            Slot::Dialling(number) => Some(number),
            Slot::Accepting(..) => None,
        }
    }

    #[test]
    fn the_shortest_route_of_another_neighbour_is_the_alternate() {
        let routes = [
            route(0, 9, 0, true),
            route(1, 1, 96, false),
            route(2, 2, 90, false),
        ];
        assert_eq!(chosen(&routes, &[1, 2]), Some(2));
        assert_eq!(chosen(&routes, &[1]), Some(1));
        assert_eq!(chosen(&routes, &[]), None);
    }

    #[test]
    fn the_tunnel_to_the_node_itself_is_used_as_long_as_it_is_up() {
        let routes = [route(0, 9, 0, true), route(1, 1, 96, false)];
        assert_eq!(chosen(&routes, &[0, 1]), Some(0));
    }

    #[test]
    fn the_lost_next_hop_and_a_route_back_are_no_alternates() {
        let routes = [
            route(0, 1, 96, true),
            route(1, 2, 288, false),
            route(2, 3, 192, false),
        ];
        assert_eq!(chosen(&routes, &[0, 1]), None);
        assert_eq!(chosen(&routes, &[0, 1, 2]), Some(2));
    }

    #[test]
    fn a_route_of_infinite_metric_and_a_route_to_another_node_are_no_alternates() {
        let elsewhere = Route {
            node: node(8),
            ..route(1, 1, 96, false)
        };
        let retracted = Route {
            metric: INFINITY,
            ..route(2, 2, 96, false)
        };
        assert_eq!(chosen(&[elsewhere, retracted], &[1, 2]), None);
    }
}
