//! Small observations, each made to show one rule of closing and draining.

use super::fixtures::{
    ACCEPT, DIAL, decisions_but_dials, link, observation, orders_but_dials, planner, route,
};
use crate::{
    observation::{Phase, Route},
    orders::{AbandonReason, CloseReason, Decision, Order},
    units::Uptime,
};
use std::time::Duration;

#[test]
fn of_two_nodes_that_dialled_each_other_the_lower_prefix_drains_its_own_tunnel() {
    let links = vec![
        link(DIAL[0], 5, Phase::Up, 1),
        link(ACCEPT, 5, Phase::Up, 1),
    ];
    let routes = vec![route(5, DIAL[0], true), route(5, ACCEPT, false)];
    let observation = observation(5, links, routes, vec![]);
    let drain = Order::Drain {
        slot: DIAL[0],
        reason: CloseReason::Duplicate,
    };
    assert_eq!(
        orders_but_dials(&mut planner(4, &[]), &observation),
        [drain]
    );
    assert_eq!(orders_but_dials(&mut planner(6, &[]), &observation), []);
}

#[test]
fn a_duplicate_that_still_connects_is_closed_at_once() {
    let links = vec![
        link(DIAL[0], 5, Phase::Connecting, 1),
        link(ACCEPT, 5, Phase::Up, 1),
    ];
    let mut planner = planner(4, &[]);
    let observation = observation(5, links, vec![route(5, ACCEPT, true)], vec![]);
    let close = Order::Close {
        slot: DIAL[0],
        reason: CloseReason::Duplicate,
    };
    assert_eq!(orders_but_dials(&mut planner, &observation), [close]);
    assert_eq!(orders_but_dials(&mut planner, &observation), []);
}

#[test]
fn a_duplicate_that_is_still_the_only_route_is_kept() {
    let links = vec![
        link(DIAL[0], 5, Phase::Up, 1),
        link(ACCEPT, 5, Phase::Up, 1),
    ];
    let observation = observation(5, links, vec![route(5, DIAL[0], true)], vec![]);
    assert_eq!(orders_but_dials(&mut planner(4, &[]), &observation), []);
}

/// The orders about a duplicate that drains from second 5 on, at each later second with these routes.
fn drained(routes: &[Route], seconds: u64) -> Vec<(u64, Order)> {
    drained_for(CloseReason::Duplicate, routes, seconds)
}

/// The same for a tunnel that drains for this reason by then.
fn drained_for(reason: CloseReason, routes: &[Route], seconds: u64) -> Vec<(u64, Order)> {
    let decisions = decisions_about(reason, routes, seconds).into_iter();
    decisions
        .map(|(second, decision)| (second, decision.order))
        .collect()
}

/// The same with the numbers behind each order.
fn decisions_about(reason: CloseReason, routes: &[Route], seconds: u64) -> Vec<(u64, Decision)> {
    let mut planner = planner(4, &[]);
    let before = vec![route(5, DIAL[0], true), route(5, ACCEPT, false)];
    let mut links = vec![
        link(DIAL[0], 5, Phase::Up, 1),
        link(ACCEPT, 5, Phase::Up, 1),
    ];
    orders_but_dials(&mut planner, &observation(5, links.clone(), before, vec![]));
    links[0] = link(DIAL[0], 5, Phase::Draining { reason }, 5);
    links[0].tunnel.up_since = Some(Uptime::from_secs(1));
    let mut seen = Vec::new();
    for second in 6..6 + seconds {
        let observation = observation(second, links.clone(), routes.to_vec(), vec![]);
        let decisions = decisions_but_dials(&mut planner, &observation);
        seen.extend(decisions.into_iter().map(|decision| (second, decision)));
    }
    seen
}

#[test]
fn a_drained_tunnel_is_closed_once_it_is_quiet_and_no_route_uses_it() {
    let close = Order::Close {
        slot: DIAL[0],
        reason: CloseReason::Duplicate,
    };
    assert_eq!(drained(&[route(5, ACCEPT, true)], 4), [(6, close)]);
}

#[test]
fn the_close_says_by_which_slot_the_peer_is_reached_instead() {
    let longer = Route {
        metric: 192,
        ..route(5, ACCEPT, true)
    };
    let decisions = decisions_about(CloseReason::Duplicate, &[longer], 1);
    let moved = format!(" moved_to={ACCEPT} metric=192 metric_before=96");
    assert!(
        decisions[0].1.terms.ends_with(&moved),
        "{:?}",
        decisions[0].1
    );
}

#[test]
fn a_drain_that_another_policy_began_is_closed_for_that_policys_reason() {
    for reason in [CloseReason::Revoked, CloseReason::Shutdown] {
        let slot = DIAL[0];
        let close = Order::Close { slot, reason };
        let routes = [route(5, ACCEPT, true)];
        assert_eq!(drained_for(reason, &routes, 4), [(6, close)]);
    }
}

#[test]
fn a_drain_for_a_restart_is_left_to_the_policy_that_began_it() {
    let routes = [route(5, ACCEPT, true)];
    assert_eq!(drained_for(CloseReason::Renewed, &routes, 100), []);
}

#[test]
fn a_drain_for_a_revocation_is_never_given_up() {
    let stuck = [route(5, DIAL[0], true), route(5, ACCEPT, false)];
    assert_eq!(drained_for(CloseReason::Revoked, &stuck, 200), []);
    assert_eq!(drained_for(CloseReason::Revoked, &[], 200), []);
}

#[test]
fn a_drain_whose_routes_do_not_move_is_given_up() {
    let undrain = Order::Undrain {
        slot: DIAL[0],
        reason: AbandonReason::Deadline,
    };
    let stuck = [route(5, DIAL[0], true), route(5, ACCEPT, false)];
    // Ten hello intervals.
    assert_eq!(drained(&stuck, 43), [(45, undrain)]);
}

#[test]
fn a_drain_that_leaves_a_node_without_another_route_is_given_up() {
    let undrain = Order::Undrain {
        slot: DIAL[0],
        reason: AbandonReason::OnlyRoute,
    };
    assert_eq!(drained(&[route(5, DIAL[0], true)], 3), [(7, undrain)]);
}

#[test]
fn a_node_that_nobody_reached_closes_down_to_two_after_the_grace() {
    let mut planner = planner(1, &[]);
    let links: Vec<_> = (0..3)
        .map(|n| link(DIAL[n], u32::try_from(n).unwrap() + 2, Phase::Up, 1))
        .collect();
    let routes: Vec<_> = (2..=4)
        .flat_map(|node| (0..3).map(move |slot| route(node, DIAL[slot], slot == 0)))
        .collect();
    let mut drained = None;
    for second in 1..1_300 {
        let plan = planner.plan(
            &observation(second, links.clone(), routes.clone(), vec![]),
            false,
        );
        let drain = |order: &Order| {
            matches!(
                order,
                Order::Drain {
                    reason: CloseReason::OverLimit,
                    ..
                }
            )
        };
        if plan.decisions.iter().any(|decision| drain(&decision.order)) {
            drained.get_or_insert(second);
        }
    }
    assert_eq!(drained, Some(1 + Duration::from_secs(600).as_secs()));
}
