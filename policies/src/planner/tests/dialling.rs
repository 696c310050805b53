//! Small observations, each made to show one rule of dialling.

use super::fixtures::{
    ACCEPT, DIAL, candidate, link, observation, orders_but_dials, peer, planner, route,
};
use crate::{
    link_cost::LinkCost,
    observation::{Candidate, DEAD_FAILURES, INFINITY, Observation, Phase},
    orders::{CloseReason, OpenReason, Order},
    planner::{
        Planner,
        snapshot::{Snapshot, ViewSettings},
    },
    rng::Rng,
    units::Uptime,
};
use std::time::Duration;

/// Checks the peers that the planner dials, and the reasons, sorted.
#[track_caller]
fn check(planner: &mut Planner, observation: &Observation, expected: &[(u32, OpenReason)]) {
    let opened = |order: Order| match order {
        Order::Open { peer, reason, .. } => Some((peer.number(), reason)),
        Order::Drain { .. } | Order::Undrain { .. } | Order::Close { .. } => None,
    };
    let orders = planner.plan(observation, true).decisions;
    let mut seen: Vec<_> = orders
        .into_iter()
        .filter_map(|decision| opened(decision.order))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, expected);
}

#[test]
fn a_lonely_node_dials_all_it_wants_at_once_and_never_itself() {
    let confirmed = (1..=4).map(|number| candidate(number, Some(1))).collect();
    let observation = observation(1, vec![], vec![], confirmed);
    let mut planner = planner(1, &[]);
    let bootstrap = OpenReason::Bootstrap;
    check(
        &mut planner,
        &observation,
        &[(2, bootstrap), (3, bootstrap), (4, bootstrap)],
    );
    check(&mut planner, &observation, &[]);
}

#[test]
fn peers_that_only_the_disk_remembers_are_dialled_one_every_ten_seconds() {
    let mut planner = planner(9, &[]);
    let remembered = vec![candidate(1, None), candidate(2, None), candidate(3, None)];
    let mut links = Vec::new();
    let mut dialled = Vec::new();
    for second in 100..125 {
        let observation = observation(second, links.clone(), vec![], remembered.clone());
        for decision in planner.plan(&observation, true).decisions {
            let Order::Open { slot, peer, .. } = decision.order else {
                panic!("{decision:?}")
            };
            links.push(link(slot, peer.number(), Phase::Connecting, second));
            dialled.push(second);
        }
    }
    assert_eq!(dialled, [100, 110, 120]);
}

#[test]
fn a_peer_that_failed_waits_longer_after_each_failure() {
    for (failures, waits_s) in [(1, 2..=3), (2, 4..=6), (5, 32..=48), (30, 600..=900)] {
        let mut planner = planner(9, &[]);
        let failed = Candidate {
            failed_at: Some(Uptime::from_secs(0)),
            failures,
            ..candidate(1, Some(0))
        };
        let tried = (0..2_000).find(|at| {
            !planner
                .plan(
                    &observation(*at, vec![], vec![], vec![failed.clone()]),
                    true,
                )
                .decisions
                .is_empty()
        });
        assert!(
            tried.is_some_and(|at| (*waits_s.start()..=*waits_s.end() + 1).contains(&at)),
            "{tried:?}"
        );
    }
}

#[test]
fn dead_peers_are_dialled_only_if_too_few_others_are_left() {
    let dead = |number| Candidate {
        failed_at: Some(Uptime::from_secs(1)),
        failures: DEAD_FAILURES,
        ..candidate(number, Some(9_999))
    };
    let with = |living: std::ops::RangeInclusive<u32>| {
        let living = living.map(|number| candidate(number, Some(9_999)));
        observation(
            10_000,
            vec![],
            vec![],
            (10..30).map(dead).chain(living).collect(),
        )
    };
    let bootstrap = OpenReason::Bootstrap;
    check(
        &mut planner(1, &[]),
        &with(2..=4),
        &[(2, bootstrap), (3, bootstrap), (4, bootstrap)],
    );
    let dialled = planner(1, &[]).plan(&with(2..=3), true).decisions.len();
    assert_eq!(dialled, 3);
}

#[test]
fn room_is_filled_with_nodes_that_are_no_neighbours() {
    let links = vec![
        link(DIAL[0], 2, Phase::Up, 1),
        link(ACCEPT, 3, Phase::Up, 1),
    ];
    let routes = vec![
        route(2, DIAL[0], true),
        route(3, ACCEPT, true),
        route(4, ACCEPT, true),
    ];
    let known = (2..=4).map(|number| candidate(number, Some(1))).collect();
    check(
        &mut planner(1, &[]),
        &observation(5, links, routes, known),
        &[(4, OpenReason::Fill)],
    );
}

#[test]
fn chance_dials_peers_with_transit_costs_only_if_no_other_is_left_and_a_leaf_last() {
    let links = || {
        vec![
            link(DIAL[0], 2, Phase::Up, 1),
            link(DIAL[1], 3, Phase::Up, 1),
        ]
    };
    let routes = || {
        (2..=6)
            .map(|number| route(number, DIAL[0], true))
            .collect::<Vec<_>>()
    };
    let with_cost = |number, transit_cost| Candidate {
        transit_cost,
        ..candidate(number, Some(1))
    };
    let known = [
        candidate(4, Some(1)),
        with_cost(5, 10_000),
        with_cost(6, INFINITY),
    ];
    for (left, dialled) in [(0..3, 4), (1..3, 5), (2..3, 6)] {
        for seed in 0..20 {
            let observation = observation(100, links(), routes(), known[left.clone()].to_vec());
            let mut planner = planner(1, &[]);
            planner.rng = Rng::new(seed);
            check(&mut planner, &observation, &[(dialled, OpenReason::Fill)]);
        }
    }
}

#[test]
fn a_tunnel_to_a_leaf_is_not_among_those_left_to_chance() {
    // One tunnel of three is left to chance. A tunnel to a leaf does not count, so another one is filled in.
    let links = vec![link(DIAL[0], 2, Phase::Up, 1)];
    let routes = || {
        (2..=4)
            .map(|number| route(number, DIAL[0], true))
            .collect::<Vec<_>>()
    };
    let counts = |transit_cost| {
        let leaf = Candidate {
            transit_cost,
            ..candidate(2, Some(1))
        };
        let candidates = vec![leaf, candidate(3, Some(1))];
        let observation = observation(100, links.clone(), routes(), candidates);
        let planner = planner(1, &[]);
        let settings = ViewSettings {
            link_cost: LinkCost::default(),
            nodes_per_entry: 1,
        };
        let max_age = Duration::from_secs(600);
        let snapshot = Snapshot::new(&observation, peer(1), settings, max_age);
        let by_chance = planner.by_chance(&snapshot).count();
        (by_chance, planner.random(&snapshot).len())
    };
    assert_eq!(counts(0), (1, 1));
    assert_eq!(counts(INFINITY), (0, 0));
}

#[test]
fn a_pinned_peer_is_dialled_above_the_limit_and_another_tunnel_makes_room_once_it_is_up() {
    let links = |phase: Option<Phase>| {
        let mut links: Vec<_> = [(0, 2), (1, 3), (2, 4)]
            .map(|(slot, number)| link(DIAL[slot], number, Phase::Up, 10))
            .into();
        links.extend(phase.map(|phase| link(DIAL[3], 5, phase, 1000)));
        links
    };
    let routes = || {
        let both = |number| [route(number, DIAL[0], true), route(number, DIAL[1], false)];
        [2, 3, 4, 5].into_iter().flat_map(both).collect::<Vec<_>>()
    };
    let mut planner = planner(1, &[5]);
    let full = observation(1000, links(None), routes(), vec![candidate(5, Some(0))]);
    check(&mut planner, &full, &[(5, OpenReason::Pinned)]);
    let connecting = observation(1010, links(Some(Phase::Connecting)), routes(), Vec::new());
    assert_eq!(orders_but_dials(&mut planner, &connecting), []);
    let up = observation(1200, links(Some(Phase::Up)), routes(), Vec::new());
    let order = orders_but_dials(&mut planner, &up);
    assert!(
        matches!(&*order, [Order::Drain { slot, reason: CloseReason::OverLimit }] if *slot != DIAL[3]),
        "{order:?}"
    );
}

#[test]
fn a_peer_missing_from_the_table_is_dialled_and_a_pinned_one_first() {
    let links = vec![
        link(DIAL[0], 2, Phase::Up, 1),
        link(DIAL[1], 3, Phase::Up, 1),
    ];
    let routes = vec![
        route(2, DIAL[0], true),
        route(3, DIAL[1], true),
        route(5, DIAL[1], true),
    ];
    let candidates: Vec<_> = (2..=6).map(|number| candidate(number, Some(1))).collect();
    let observation = observation(5, links, routes, candidates);
    check(
        &mut planner(1, &[5]),
        &observation,
        &[(5, OpenReason::Pinned)],
    );
    let mut planner = planner(1, &[]);
    let dialled = planner.plan(&observation, true).decisions;
    let Order::Open {
        peer: seen, reason, ..
    } = &dialled[0].order
    else {
        panic!("{dialled:?}")
    };
    assert_eq!((dialled.len(), *reason), (1, OpenReason::MissingFromTable));
    assert!([peer(4), peer(6)].contains(seen));
}

#[test]
fn an_old_node_prefers_living_peers_to_missing_ones() {
    let links = vec![
        link(DIAL[0], 2, Phase::Up, 1),
        link(DIAL[1], 3, Phase::Up, 1),
    ];
    let routes = vec![route(2, DIAL[0], true), route(3, DIAL[1], true)];
    let mut planner = planner(1, &[]);
    let known: Vec<_> = (2..=3).map(|number| candidate(number, Some(1))).collect();
    check(
        &mut planner,
        &observation(5, links.clone(), routes.clone(), known),
        &[],
    );
    let candidates: Vec<_> = (2..=5).map(|number| candidate(number, Some(1))).collect();
    let with_living = [routes.clone(), vec![route(5, DIAL[1], true)]].concat();
    check(
        &mut planner,
        &observation(90, links.clone(), with_living, candidates.clone()),
        &[(5, OpenReason::Fill)],
    );
    let missing = OpenReason::MissingFromTable;
    check(
        &mut planner,
        &observation(100, links, routes, candidates[..3].to_vec()),
        &[(4, missing)],
    );
}

#[test]
fn at_the_limit_one_more_is_dialled_only_for_a_peer_missing_for_half_a_minute_or_three_seconds_while_young()
 {
    let links: Vec<_> = (0..3)
        .map(|n| link(DIAL[n], u32::try_from(n).unwrap() + 2, Phase::Up, 1))
        .collect();
    let routes = vec![
        route(2, DIAL[0], true),
        route(3, DIAL[1], true),
        route(4, DIAL[2], true),
    ];
    let observed = |second| {
        observation(
            second,
            links.clone(),
            routes.clone(),
            vec![candidate(8, Some(1))],
        )
    };
    let missing = OpenReason::MissingFromTable;
    let mut young = planner(1, &[]);
    check(&mut young, &observed(100), &[]);
    check(&mut young, &observed(102), &[]);
    check(&mut young, &observed(103), &[(8, missing)]);
    check(&mut young, &observed(104), &[]);
    let mut old = planner(1, &[]);
    let without_peer = observation(30, links.clone(), routes.clone(), vec![]);
    check(&mut old, &without_peer, &[]);
    check(&mut old, &observed(100), &[]);
    check(&mut old, &observed(129), &[]);
    check(&mut old, &observed(130), &[(8, missing)]);
    check(&mut old, &observed(131), &[]);
}
