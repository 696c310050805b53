//! Small observations, each made to show one rule about peers behind NATs.

use super::fixtures::{DIAL, candidate, link, observation, peer, planner, route};
use crate::{
    observation::{LinkReading, Observation, Phase, PunchedPath},
    orders::{CloseReason, OpenReason, Order},
    planner::Planner,
    units::Uptime,
};

/// A path to that peer, which is worth a dial until that second.
fn path(number: u32, until: u64) -> PunchedPath {
    PunchedPath {
        peer: peer(number),
        endpoint: "udp:45.67.2.1:1194".parse().unwrap(),
        local_port: 40_000,
        until: Uptime::from_secs(until),
    }
}

/// As many tunnels to other peers, which are up.
fn tunnels(count: u32) -> Vec<LinkReading> {
    let slots = DIAL.into_iter().zip(50..50 + count);
    slots
        .map(|(slot, number)| link(slot, number, Phase::Up, 1))
        .collect()
}

fn orders(planner: &mut Planner, observation: &Observation) -> Vec<Order> {
    let decisions = planner.plan(observation, false).decisions;
    decisions
        .into_iter()
        .map(|decision| decision.order)
        .collect()
}

/// Compares the peers that are dialled on opened paths by a node that dials three and has these tunnels.
#[track_caller]
fn check(links: Vec<LinkReading>, punched: Vec<PunchedPath>, expected: &[u32]) {
    let observation = Observation {
        punched,
        ..observation(100, links, vec![], vec![])
    };
    let orders = orders(&mut planner(1, &[]), &observation);
    let dialled = orders.into_iter().filter_map(|order| match order {
        Order::Open {
            peer,
            reason: OpenReason::HolePunched,
            endpoints,
            ..
        } => {
            assert_eq!(endpoints, [path(7, 0).endpoint]);
            Some(peer.number())
        }
        Order::Open { .. } | Order::Drain { .. } | Order::Undrain { .. } | Order::Close { .. } => {
            None
        }
    });
    assert_eq!(dialled.collect::<Vec<_>>(), expected);
}

#[test]
fn a_peer_whose_path_is_open_is_dialled_while_more_tunnels_are_wanted() {
    check(tunnels(2), vec![path(7, 110)], &[7]);
    check(tunnels(3), vec![path(7, 110)], &[]);
    check(tunnels(2), vec![path(7, 110), path(8, 110)], &[7]);
    check(tunnels(2), vec![path(7, 100)], &[]);
    let linked = vec![link(DIAL[0], 7, Phase::Up, 1)];
    check(linked, vec![path(7, 110)], &[]);
}

#[test]
fn a_node_that_nobody_reaches_keeps_two_tunnels_and_those_that_came_by_hole_punching() {
    let mut planner = planner(1, &[]);
    let at = |second, links, punched| Observation {
        punched,
        ..observation(
            second,
            links,
            vec![route(9, DIAL[0], true)],
            vec![candidate(9, Some(1))],
        )
    };
    orders(&mut planner, &at(1, tunnels(2), vec![]));
    let opened = orders(&mut planner, &at(5_000, tunnels(2), vec![path(7, 5_010)]));
    let reasons = opened.iter().map(Order::reason_label);
    assert_eq!(reasons.collect::<Vec<_>>(), ["hole_punched"]);
    let mut links = tunnels(2);
    links.push(link(DIAL[2], 7, Phase::Up, 5_001));
    assert_eq!(orders(&mut planner, &at(5_002, links, vec![])), []);
    let closed = orders(&mut planner, &at(5_010, tunnels(3), vec![]));
    let is_over_limit = |order: &Order| order.reason_label() == CloseReason::OverLimit.label();
    assert!(closed.iter().any(is_over_limit), "{closed:?}");
}
