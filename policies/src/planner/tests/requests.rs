//! Observations in which an operator asks for a dial, a close or a pin.

use super::fixtures::{
    ACCEPT, DIAL, candidate, link, observation, orders_but_dials, peer, planner, route,
};
use crate::{
    observation::{Candidate, Observation, Phase},
    orders::{CloseReason, OpenReason, Order},
    planner::{Planner, Request},
    units::Uptime,
};

const NOW: Uptime = Uptime(std::time::Duration::from_secs(1000));

/// Three tunnels, as many as wanted, of which the other two lead everywhere, too.
fn full(at: u64, phase: Phase, candidates: Vec<Candidate>) -> Observation {
    let since = if phase == Phase::Up { 10 } else { at - 1 };
    let links = vec![
        link(DIAL[0], 2, phase, since),
        link(DIAL[1], 3, Phase::Up, 10),
        link(DIAL[2], 4, Phase::Up, 10),
    ];
    let both = |number| [route(number, DIAL[1], true), route(number, DIAL[2], false)];
    let routes = [2, 3, 4, 5].into_iter().flat_map(both).collect();
    observation(at, links, routes, candidates)
}

fn opened(planner: &mut Planner, observation: &Observation) -> Vec<(u32, OpenReason)> {
    let opened = |order: Order| match order {
        Order::Open { peer, reason, .. } => Some((peer.number(), reason)),
        Order::Drain { .. } | Order::Undrain { .. } | Order::Close { .. } => None,
    };
    let decisions = planner.plan(observation, true).decisions.into_iter();
    decisions
        .filter_map(|decision| opened(decision.order))
        .collect()
}

#[test]
fn a_requested_peer_is_dialled_once_at_the_limit_and_in_spite_of_its_failures() {
    let mut planner = planner(1, &[]);
    let failed = Candidate {
        failed_at: Some(Uptime::from_secs(999)),
        failures: 9,
        ..candidate(5, Some(0))
    };
    let observation = |at| full(at, Phase::Up, vec![failed.clone()]);
    assert_eq!(opened(&mut planner, &observation(1000)), []);
    planner.request(Request::Dial(peer(5)), NOW);
    assert_eq!(
        opened(&mut planner, &observation(1001)),
        [(5, OpenReason::Operator)]
    );
    assert_eq!(opened(&mut planner, &observation(1002)), []);
}

#[test]
fn a_requested_peer_is_dialled_once_its_last_tunnel_has_closed() {
    let mut planner = planner(1, &[]);
    let observation = |at, phase| full(at, phase, vec![candidate(2, None)]);
    let draining = Phase::Draining {
        reason: CloseReason::Operator,
    };
    assert_eq!(opened(&mut planner, &observation(999, draining)), []);
    // The last reading of the links, from before the tunnel closed, still shows it.
    planner.request(Request::Dial(peer(2)), NOW);
    assert_eq!(opened(&mut planner, &observation(999, draining)), []);
    assert_eq!(opened(&mut planner, &observation(999, Phase::Up)), []);
    let mut closed = observation(1001, Phase::Up);
    closed.links.remove(0);
    assert_eq!(opened(&mut planner, &closed), [(2, OpenReason::Operator)]);
    assert_eq!(opened(&mut planner, &observation(1002, Phase::Up)), []);
}

#[test]
fn a_request_for_a_peer_that_nobody_knows_ends() {
    let mut planner = planner(1, &[]);
    planner.request(Request::Dial(peer(5)), NOW);
    assert_eq!(opened(&mut planner, &full(1001, Phase::Up, vec![])), []);
    let known = full(1200, Phase::Up, vec![candidate(5, None)]);
    assert_eq!(opened(&mut planner, &known), []);
}

#[track_caller]
fn check_close(phase: Phase, expected: &[Order]) {
    let mut planner = planner(1, &[]);
    planner.request(Request::Close(DIAL[0], peer(2)), NOW);
    let orders = orders_but_dials(&mut planner, &full(1001, phase, vec![]));
    assert_eq!(orders, expected, "{phase:?}");
}

#[test]
fn a_requested_close_drains_and_a_tunnel_that_connects_is_closed_at_once() {
    let (slot, reason) = (DIAL[0], CloseReason::Operator);
    check_close(Phase::Up, &[Order::Drain { slot, reason }]);
    check_close(Phase::Connecting, &[Order::Close { slot, reason }]);
    check_close(Phase::Closing, &[]);
}

#[test]
fn a_close_waits_for_another_one_and_never_hits_the_next_peer_of_the_slot() {
    let mut planner = planner(1, &[]);
    planner.request(Request::Close(DIAL[0], peer(2)), NOW);
    planner.request(Request::Close(DIAL[1], peer(3)), NOW);
    planner.request(Request::Close(DIAL[2], peer(9)), NOW);
    let reason = CloseReason::Operator;
    let first = Order::Drain {
        slot: DIAL[0],
        reason,
    };
    let observation = full(1001, Phase::Up, vec![]);
    assert_eq!(orders_but_dials(&mut planner, &observation), [first]);
    assert_eq!(
        orders_but_dials(
            &mut planner,
            &full(1002, Phase::Draining { reason }, vec![])
        ),
        []
    );
}

#[test]
fn a_pinned_duplicate_stays_and_an_unpinned_one_is_closed() {
    let links = vec![
        link(DIAL[0], 5, Phase::Up, 1),
        link(ACCEPT, 5, Phase::Up, 1),
    ];
    let routes = vec![route(5, DIAL[0], true), route(5, ACCEPT, false)];
    let observation = observation(5, links, routes, vec![]);
    let mut planner = planner(4, &[]);
    planner.set_pins([peer(5)].into());
    assert_eq!(orders_but_dials(&mut planner, &observation), []);
    planner.set_pins([].into());
    let (slot, reason) = (DIAL[0], CloseReason::Duplicate);
    let drain = Order::Drain { slot, reason };
    assert_eq!(orders_but_dials(&mut planner, &observation), [drain]);
}
