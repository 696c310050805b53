//! Small observations, each made to show one rule about peers on LANs.

use super::fixtures::{DIAL, candidate, link, observation, orders_but_dials, peer, planner, route};
use crate::{
    names::Endpoint,
    observation::{BabelTable, Candidate, LinkReading, Observation, Phase, Route},
    orders::{CloseReason, OpenReason, Order},
    planner::Planner,
};
use std::sync::Arc;

const PUBLIC: &str = "udp:192.0.2.1:1194";

fn lan_endpoint(number: u32) -> Endpoint {
    format!("udp:192.168.1.{number}:1194").parse().unwrap()
}

/// A candidate that answers on a LAN.
fn on_lan(number: u32) -> Candidate {
    let elsewhere = candidate(number, Some(1));
    Candidate {
        endpoints: vec![lan_endpoint(number), PUBLIC.parse().unwrap()],
        on_lan: 1,
        ..elsewhere
    }
}

/// A tunnel that came up in the first second, at that endpoint.
fn up(slot: usize, number: u32, endpoint: Endpoint) -> LinkReading {
    let mut link = link(DIAL[slot], number, Phase::Up, 1);
    link.tunnel.endpoint = Some(endpoint);
    link
}

/// The numbers of the peers that the planner dials because they are on a LAN, and the number of others.
fn dialled(planner: &mut Planner, observation: &Observation) -> (Vec<u32>, usize) {
    let decisions = planner.plan(observation, true).decisions;
    let opened = decisions
        .into_iter()
        .filter_map(|decision| match decision.order {
            Order::Open { peer, reason, .. } => Some((peer.number(), reason)),
            Order::Drain { .. } | Order::Undrain { .. } | Order::Close { .. } => None,
        });
    let (lan, others): (Vec<_>, Vec<_>) =
        opened.partition(|(_, reason)| *reason == OpenReason::OnLan);
    (
        lan.into_iter().map(|(number, _)| number).collect(),
        others.len(),
    )
}

#[test]
fn two_of_three_tunnels_are_dialled_on_the_lan_and_one_elsewhere() {
    let mut candidates: Vec<_> = (10..30).map(|number| candidate(number, Some(1))).collect();
    candidates.extend((30..34).map(on_lan));
    let observation = observation(1, vec![], vec![], candidates);
    let (lan, others) = dialled(&mut planner(1, &[]), &observation);
    assert!(lan.iter().all(|number| *number >= 30), "{lan:?}");
    assert_eq!((lan.len(), others), (2, 1));
}

#[test]
fn no_peer_on_the_lan_is_dialled_twice_at_once() {
    let observation = observation(1, vec![], vec![], vec![on_lan(30), on_lan(31)]);
    let (lan, others) = dialled(&mut planner(1, &[]), &observation);
    assert_eq!((lan.len(), others), (2, 0));
}

#[test]
fn tunnels_that_exist_on_the_lan_count_whoever_dialled_them() {
    let accepted = LinkReading {
        tunnel: crate::observation::TunnelReading {
            slot: super::fixtures::ACCEPT,
            ..up(0, 31, "udp:192.168.1.31:40000".parse().unwrap()).tunnel
        },
        ..up(0, 31, lan_endpoint(31))
    };
    let links = vec![up(0, 30, lan_endpoint(30)), accepted];
    let candidates = vec![on_lan(30), on_lan(31), on_lan(32), candidate(9, Some(1))];
    let routes = vec![route(9, DIAL[0], true), route(32, DIAL[0], true)];
    let observation = observation(2, links, routes, candidates);
    assert_eq!(dialled(&mut planner(1, &[]), &observation).0, [0; 0]);
}

#[test]
fn a_node_at_its_limit_dials_one_peer_on_the_lan_at_a_time() {
    let links = (0..3)
        .map(|slot| {
            let number = 9 + u32::try_from(slot).unwrap();
            up(slot, number, PUBLIC.parse().unwrap())
        })
        .collect();
    let candidates = vec![on_lan(30), on_lan(31)];
    let observation = observation(2, links, vec![], candidates);
    let mut planner = planner(1, &[]);
    assert_eq!(dialled(&mut planner, &observation).0.len(), 1);
    assert_eq!(dialled(&mut planner, &observation).0.len(), 0);
}

fn table(routes: Vec<Route>) -> Arc<BabelTable> {
    Arc::new(BabelTable {
        neighbours: Vec::new(),
        routes,
    })
}

/// Node 1 at its limit: tunnels on the LAN to 30 and 31, one elsewhere to 9, and 32 on the LAN by way of 9.
fn route_leaves_lan(at: u64) -> Observation {
    let links = vec![
        up(0, 30, lan_endpoint(30)),
        up(1, 31, lan_endpoint(31)),
        up(2, 9, PUBLIC.parse().unwrap()),
    ];
    let by = |number: u32, via: u32, slot: usize, installed| Route {
        via: peer(via),
        metric: 192,
        refmetric: 96,
        ..route(number, DIAL[slot], installed)
    };
    let routes = vec![
        route(30, DIAL[0], true),
        route(31, DIAL[1], true),
        route(9, DIAL[2], true),
        by(9, 30, 0, false),
        by(30, 31, 1, false),
        by(31, 9, 2, false),
        by(32, 9, 2, true),
        by(32, 31, 1, false),
    ];
    let candidates = vec![on_lan(30), on_lan(31), on_lan(32), candidate(9, Some(1))];
    observation(at, links, routes, candidates)
}

#[test]
fn a_peer_on_the_lan_is_dialled_above_the_limit_if_the_route_to_it_leaves_the_lan() {
    let mut planner = planner(1, &[]);
    assert_eq!(dialled(&mut planner, &route_leaves_lan(100)).0, [0; 0]);
    assert_eq!(dialled(&mut planner, &route_leaves_lan(103)).0, [32]);
    // The order is pending.
    assert_eq!(dialled(&mut planner, &route_leaves_lan(104)).0, [0; 0]);
}

#[test]
fn a_peer_on_the_lan_is_dialled_unless_a_route_within_the_lan_is_better_by_a_hop() {
    let by_metrics = |around, within| {
        let observe = |at| {
            let mut observation = route_leaves_lan(at);
            let routes = observation.babel.as_ref().unwrap().routes.iter().cloned();
            let mut routes: Vec<_> = routes.collect();
            for route in routes.iter_mut().filter(|route| route.node == peer(32)) {
                let is_around = route.slot == DIAL[2];
                route.metric = if is_around { around } else { within };
                route.installed = is_around == (around < within);
            }
            observation.babel = Some(table(routes));
            observation
        };
        let mut planner = planner(1, &[]);
        planner.plan(&observe(100), true);
        dialled(&mut planner, &observe(103)).0
    };
    assert_eq!(by_metrics(287, 192), [32]);
    assert_eq!(by_metrics(288, 192), [0; 0]);
}

#[test]
fn the_node_with_the_larger_prefix_dials_later() {
    let mut planner = planner(40, &[]);
    assert_eq!(dialled(&mut planner, &route_leaves_lan(100)).0, [0; 0]);
    assert_eq!(dialled(&mut planner, &route_leaves_lan(106)).0, [0; 0]);
    assert_eq!(dialled(&mut planner, &route_leaves_lan(107)).0, [32]);
}

#[test]
fn a_node_of_a_large_lan_dials_no_more_on_it_than_its_limit_but_one() {
    let mut planner = planner(1, &[]);
    let many = |at| {
        let mut many = route_leaves_lan(at);
        many.candidates.extend((50..60).map(on_lan));
        many
    };
    planner.plan(&many(100), true);
    assert_eq!(dialled(&mut planner, &many(110)).0, [0; 0]);
}

#[test]
fn above_the_limit_a_tunnel_is_spared_without_which_traffic_could_leave_the_lan() {
    let mut observation = route_leaves_lan(1000);
    observation.links.push(up(3, 32, lan_endpoint(32)));
    let routes = observation.babel.as_ref().unwrap().routes.iter().cloned();
    let mut routes: Vec<_> = routes.filter(|route| route.node != peer(32)).collect();
    routes.push(route(32, DIAL[3], true));
    for slot in [1, 2] {
        let mut other = route(32, DIAL[slot], false);
        (other.metric, other.refmetric) = (192, 96);
        routes.push(other);
    }
    observation.babel = Some(table(routes));
    // Only 31 and 32 can be closed: without either, its traffic could pass 9.
    let orders = orders_but_dials(&mut planner(1, &[9, 30]), &observation);
    assert_eq!(orders, []);
    // The same without the route to 31 by 9, and with one within the LAN.
    let routes = observation.babel.as_ref().unwrap().routes.iter().cloned();
    let routes = routes.filter(|route| route.node != peer(31) || route.slot != DIAL[2]);
    let mut routes: Vec<_> = routes.collect();
    let mut within = route(31, DIAL[0], false);
    (within.metric, within.refmetric) = (192, 96);
    routes.push(within);
    observation.babel = Some(table(routes));
    let orders = orders_but_dials(&mut planner(1, &[9, 30]), &observation);
    assert!(
        matches!(orders[..], [Order::Drain { slot, .. }] if slot == DIAL[1]),
        "{orders:?}"
    );
}

#[test]
fn a_tunnel_around_the_lan_is_closed_unless_it_is_the_only_route() {
    let links = vec![
        up(0, 30, PUBLIC.parse().unwrap()),
        up(1, 31, lan_endpoint(31)),
    ];
    let candidates = vec![on_lan(30), on_lan(31)];
    let only_route = vec![route(30, DIAL[0], true), route(31, DIAL[1], true)];
    let alone = observation(2, links.clone(), only_route.clone(), candidates.clone());
    assert_eq!(orders_but_dials(&mut planner(1, &[]), &alone), []);
    let mut routes = only_route;
    routes.push(Route {
        via: peer(31),
        ..route(30, DIAL[1], false)
    });
    let spare = observation(2, links, routes, candidates);
    let expected = Order::Drain {
        slot: DIAL[0],
        reason: CloseReason::AroundLan,
    };
    assert_eq!(orders_but_dials(&mut planner(1, &[]), &spare), [expected]);
    assert_eq!(orders_but_dials(&mut planner(1, &[30]), &spare), []);
    // A tunnel that was dialled when the peer was known on the LAN shows that its servers do not answer there.
    let mut planner = planner(1, &[]);
    let candidates = spare.candidates.clone();
    planner.plan(&observation(0, vec![], vec![], candidates), true);
    assert_eq!(orders_but_dials(&mut planner, &spare), []);
}
