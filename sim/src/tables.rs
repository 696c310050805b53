//! Shows a node what it really has: babeld's table, its links, candidate_rtts, what others say.
//!
//! Nothing here is known to a node by magic: routes come from its neighbours (which also announce routes that lead
//! back through it, as babeld does on tunnels), round trips only from candidate_rtts, the rest from answers.

use crate::{
    overlay::{Overlay, Tunnel},
    paths::{NOWHERE, Paths},
};
use policies::{
    names::{Endpoint, Prefix, Slot, Transport},
    observation::{
        BabelTable, INFINITY, LinkCounters, LinkReading, Neighbour, PeerRouteView, Phase, Route,
        TunnelReading,
    },
    routes::{RouteIndex, leads_back},
    units::Uptime,
};
use std::net::{Ipv6Addr, SocketAddr};

/// Most nodes of a view: a quarter of a kilobyte would hold 64, an answer of 4 kB these.
pub const VIEW_NODES: usize = 512;

/// The name of a node; there are fewer than 2^20.
pub fn prefix(node: u32) -> Option<Prefix> {
    Prefix::new(node, 20)
}

/// Each node is alone in its part of the underlay.
pub fn endpoint(node: u32) -> Endpoint {
    let upper = 0x2000_0000u128 | u128::from(node);
    let address = Ipv6Addr::from(upper << 96 | 1);
    Endpoint {
        address: SocketAddr::from((address, 1194)),
        transport: Transport::Udp,
    }
}

/// The node's slot of that tunnel.
pub fn slot(tunnel: &Tunnel, node: u32) -> Slot {
    if tunnel.dialler == node {
        Slot::Dialling(tunnel.dial_slot)
    } else {
        Slot::Accepting(Transport::Udp, tunnel.accept_slot)
    }
}

/// The node's links, without traffic.
pub fn links(overlay: &Overlay, node: u32) -> Vec<LinkReading> {
    let link = |(far, at): &(u32, u32)| {
        let tunnel = overlay.tunnel(*at)?;
        // The far end of a drain sees nothing of it.
        let draining = tunnel.draining.filter(|_| tunnel.dialler == node);
        let reading = TunnelReading {
            slot: slot(tunnel, node),
            peer: prefix(*far)?,
            phase: draining.map_or(Phase::Up, |(_, reason)| Phase::Draining { reason }),
            since: draining.map_or(tunnel.since, |(since, _)| since),
            up_since: Some(tunnel.since),
            endpoint: Some(endpoint(*far)),
        };
        Some(LinkReading {
            tunnel: reading,
            counters: LinkCounters::default(),
        })
    };
    overlay.links(node).iter().filter_map(link).collect()
}

/// What babeld lists at the node for the targets at these places, of which the first tunnels are known: but of the
/// routes that are not installed and do not lead back only the two best, since the others decide nothing.
fn routes(
    overlay: &Overlay,
    node: u32,
    paths: &Paths,
    places: impl Iterator<Item = (usize, Option<u32>)>,
) -> Vec<Route> {
    let links = overlay.links(node).iter().filter_map(|(far, at)| {
        let tunnel = overlay
            .tunnel(*at)
            .filter(|tunnel| tunnel.draining.is_none())?;
        Some(Link {
            rests: paths.row(*far),
            at: *at,
            cost: u16::try_from(tunnel.cost).unwrap_or(INFINITY),
            slot: slot(tunnel, node),
            via: prefix(*far)?,
        })
    });
    let mut links: Vec<_> = links.collect();
    // In the order in which a table is sorted anyway.
    links.sort_unstable_by_key(|link| link.slot);
    let mut all = Vec::new();
    for (place, first) in places {
        let (Some(target), Some(ours)) = (paths.targets().get(place), paths.row(node).get(place))
        else {
            continue;
        };
        let Some(name) = prefix(*target).filter(|_| *target != node) else {
            continue;
        };
        // The two best so far.
        let mut others = [None, None];
        for link in &links {
            let Some(rest) = link
                .rests
                .get(place)
                .copied()
                .filter(|rest| *rest != NOWHERE)
            else {
                continue;
            };
            let (metric, installed) = (rest.saturating_add(link.cost), first == Some(link.at));
            let Link { slot, via, .. } = *link;
            let route = Route {
                node: name,
                slot,
                via,
                installed,
                metric,
                refmetric: rest,
            };
            if installed || leads_back(metric, rest, *ours) {
                all.push(route);
                continue;
            }
            let [best, second] = &mut others;
            let shorter =
                |than: &Option<Route>| than.as_ref().is_none_or(|than| metric < than.metric);
            if shorter(best) {
                *second = best.replace(route);
            } else if shorter(second) {
                *second = Some(route);
            }
        }
        all.extend(others.into_iter().flatten());
    }
    all
}

/// One that carries routes, as its node sees it.
struct Link<'a> {
    /// What the far end has to all targets.
    rests: &'a [u16],
    at: u32,
    cost: u16,
    slot: Slot,
    via: Prefix,
}

/// babeld's tables at the node.
pub fn table(overlay: &Overlay, node: u32, paths: &Paths) -> BabelTable {
    let neighbour = |(far, at): &(u32, u32)| {
        let tunnel = overlay.tunnel(*at)?;
        let gone = tunnel.draining.is_some();
        let cost = if gone {
            INFINITY
        } else {
            u16::try_from(tunnel.cost).unwrap_or(INFINITY - 1)
        };
        Some(Neighbour {
            slot: slot(tunnel, node),
            peer: prefix(*far)?,
            reach: 0xffff,
            rxcost: 96,
            txcost: cost,
            rtt: None,
            cost,
        })
    };
    let neighbours = overlay.links(node).iter().filter_map(neighbour).collect();
    BabelTable {
        neighbours,
        routes: routes(
            overlay,
            node,
            paths,
            paths.firsts(node).into_iter().enumerate(),
        ),
    }
}

/// What `peer` answers a candidate's question: its metrics to a sample of nodes.
pub fn view(overlay: &Overlay, peer: u32, paths: &Paths, at: Uptime) -> Option<PeerRouteView> {
    let step = paths.targets().len().div_ceil(VIEW_NODES).max(1);
    let all = paths.targets().iter().zip(paths.row(peer)).step_by(step);
    let reached = all.filter(|(_, metric)| **metric != NOWHERE);
    let distances = reached
        .filter_map(|(target, metric)| Some((prefix(*target)?, *metric)))
        .collect();
    let (room, accepted) = welcome(overlay, peer);
    Some(PeerRouteView {
        peer: prefix(peer)?,
        at,
        accepts_tunnels: room,
        accepted,
        regret: None,
        distances,
    })
}

/// Whether the node accepts one more tunnel, and how many it has accepted.
pub fn welcome(overlay: &Overlay, node: u32) -> (bool, Option<u16>) {
    let accepted = overlay
        .links(node)
        .len()
        .saturating_sub(overlay.dialled(node).count());
    (overlay.has_room(node), u16::try_from(accepted).ok())
}

/// What the acceptor of a tunnel answers its dialler: what it would lose without it.
///
/// Only routes that lead through the tunnel count in that, so only these are looked at; each target stands for so many
/// nodes.
pub fn loss(overlay: &Overlay, at: u32, paths: &Paths, stands_for: u32) -> Option<u64> {
    let tunnel = overlay.tunnel(at)?;
    let (peer, me) = (tunnel.acceptor, prefix(tunnel.acceptor)?);
    let routes = routes(
        overlay,
        peer,
        paths,
        paths.by(peer, at).map(|place| (place, Some(at))),
    );
    let index = RouteIndex::new(&routes, me, |_| true).sampled(stands_for);
    let service = index.service(slot(tunnel, peer));
    service.only_route.is_none().then_some(service.regret)
}

/// The number of a node by its name.
pub fn node_of(prefix: Prefix) -> u32 {
    prefix.number()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{num::number, overlay::Limits, space::Space};
    use policies::{link_cost::LinkCost, rng::Rng};

    fn overlay() -> (Overlay, Paths) {
        let (space, limits) = (Space::synthetic(40, 1), Limits { dial: 3, degree: 9 });
        let mut overlay = Overlay::random(&space, limits, LinkCost::default(), &mut Rng::new(1));
        let mut paths = Paths::default();
        paths.renew(&mut overlay, &(0..40).collect::<Vec<_>>(), &[]);
        (overlay, paths)
    }

    fn index(node: u32) -> usize {
        usize::try_from(node).unwrap()
    }

    #[test]
    fn a_table_has_one_installed_route_a_node_and_it_is_the_shortest() {
        let (overlay, paths) = overlay();
        let table = table(&overlay, 7, &paths);
        for target in (0..40).filter(|target| *target != 7) {
            let of: Vec<_> = table
                .routes
                .iter()
                .filter(|r| Some(r.node) == prefix(target))
                .collect();
            let installed: Vec<_> = of.iter().filter(|route| route.installed).collect();
            assert_eq!(installed.len(), 1);
            assert_eq!(installed[0].metric, paths.row(7)[index(target)]);
            assert!(of.iter().all(|route| route.metric >= installed[0].metric));
        }
    }

    #[test]
    fn what_a_table_leaves_out_decides_nothing() {
        let (overlay, paths) = overlay();
        for node in 0..40 {
            let mut complete = Vec::new();
            for (target, (far, at)) in (0..40)
                .flat_map(|target| overlay.links(node).iter().map(move |link| (target, link)))
            {
                let tunnel = overlay.tunnel(*at).unwrap();
                let refmetric = paths.row(*far)[index(target)];
                complete.push(Route {
                    node: prefix(target).unwrap(),
                    slot: slot(tunnel, node),
                    via: prefix(*far).unwrap(),
                    installed: paths.firsts(node)[index(target)] == Some(*at),
                    metric: refmetric + u16::try_from(tunnel.cost).unwrap(),
                    refmetric,
                });
            }
            let listed = table(&overlay, node, &paths).routes;
            assert!(listed.len() < complete.len());
            let [listed, complete] = [listed, complete]
                .map(|all| RouteIndex::new(&all, prefix(node).unwrap(), |_| true));
            assert_eq!(listed.nodes(), complete.nodes());
            for (_, at) in overlay.links(node) {
                let slot = slot(overlay.tunnel(*at).unwrap(), node);
                assert_eq!(listed.service(slot), complete.service(slot));
            }
        }
    }

    #[test]
    fn the_loss_of_the_acceptor_is_that_of_its_whole_table() {
        let (overlay, paths) = overlay();
        for at in 0..120 {
            let tunnel = overlay.tunnel(at).unwrap();
            let all = table(&overlay, tunnel.acceptor, &paths).routes;
            let service = RouteIndex::new(&all, prefix(tunnel.acceptor).unwrap(), |_| true)
                .service(slot(tunnel, tunnel.acceptor));
            let expected = service.only_route.is_none().then_some(service.regret);
            assert_eq!(loss(&overlay, at, &paths, 1), expected);
            assert_eq!(loss(&overlay, at, &paths, 3), expected.map(|loss| loss * 3));
        }
    }

    #[test]
    fn no_two_nodes_share_a_part_of_the_underlay() {
        let mut parts: Vec<_> = (0..5_000)
            .map(|n| policies::gain::underlay_area(&endpoint(n)))
            .collect();
        parts.sort_unstable();
        parts.dedup();
        assert_eq!(parts.len(), 5_000);
        assert_eq!(node_of(prefix(number(17)).unwrap()), 17);
    }
}
