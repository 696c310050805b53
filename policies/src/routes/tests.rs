//! Small tables, and the definition of regret on random ones.

use super::*;
use proptest::prelude::*;

fn peer(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

fn route((node, slot, installed, metric): (u32, u16, bool, u16)) -> Route {
    let (node, slot) = (peer(node), Slot::Dialling(slot));
    Route {
        node,
        slot,
        via: node,
        installed,
        metric,
        refmetric: 0,
    }
}

/// Checks the nodes served, the regret and the only route of slot 0; all its installed routes move. Slot 9 never
/// stays.
#[track_caller]
fn check(routes: &[(u32, u16, bool, u16)], nodes: usize, regret: u64, only_route: Option<u32>) {
    let routes: Vec<_> = routes.iter().copied().map(route).collect();
    let index = RouteIndex::new(&routes, peer(1), |slot| slot != Slot::Dialling(9));
    let moves = |route: &&Route| {
        route.slot == Slot::Dialling(0) && route.installed && index.reaches(route.node)
    };
    let moved = routes
        .iter()
        .filter(moves)
        .map(|route| u64::from(route.metric))
        .sum();
    let expected = Service {
        nodes,
        regret,
        moved,
        only_route: only_route.map(peer),
    };
    assert_eq!(index.service(Slot::Dialling(0)), expected);
}

#[test]
fn regret_is_the_metric_that_the_next_best_routes_add() {
    check(
        &[(2, 0, true, 100), (2, 1, false, 150), (2, 2, false, 130)],
        1,
        30,
        None,
    );
    check(
        &[
            (2, 0, true, 100),
            (2, 1, false, 150),
            (3, 0, true, 10),
            (3, 1, false, 11),
        ],
        2,
        51,
        None,
    );
    check(&[(2, 0, false, 100), (2, 1, true, 90)], 0, 0, None);
}

/// Checks weight and regret of slot 0, whose route to node 2 costs 100. A neighbour behind a link of 80 announces
/// that metric, and another one, behind a link of 60, announces 60.
#[track_caller]
fn check_follower(announced: u16, weight: u64, regret: u64, with_other: bool) {
    let announced_on = |slot: u16, link: u16, refmetric: u16| Route {
        refmetric,
        ..route((2, slot, slot == 0, refmetric + link))
    };
    let routes = [
        announced_on(0, 50, 50),
        announced_on(1, 80, announced),
        announced_on(2, 60, 60),
    ];
    let count = if with_other { 3 } else { 2 };
    let index = RouteIndex::new(&routes[..count], peer(1), |_| true);
    let service = index.service(Slot::Dialling(0));
    let only_route = (regret == 0).then(|| peer(2));
    assert_eq!((service.regret, service.only_route), (regret, only_route));
    assert_eq!(index.get(peer(2)).map(NodeRoute::weight), Some(weight));
}

#[test]
fn a_route_that_leads_back_through_us_counts_as_ours_and_is_no_alternative() {
    check_follower(180, 2, 2 * 20, true);
    check_follower(170, 2, 2 * 20, true);
    check_follower(169, 1, 20, true);
    check_follower(180, 2, 0, false);
    check_follower(90, 1, 70, false);
}

#[test]
fn a_node_of_a_sample_counts_for_all_nodes_that_it_stands_for() {
    let routes = [(2, 0, true, 100), (2, 1, false, 150)].map(route);
    let service = RouteIndex::new(&routes, peer(1), |_| true)
        .sampled(3)
        .service(Slot::Dialling(0));
    assert_eq!(
        service,
        Service {
            nodes: 1,
            regret: 150,
            moved: 300,
            only_route: None
        }
    );
}

#[test]
fn a_next_best_route_that_is_even_shorter_is_no_gain() {
    check(&[(2, 0, true, 100), (2, 1, false, 90)], 1, 0, None);
}

#[test]
fn a_node_without_an_alternative_is_named_and_slots_that_leave_offer_none() {
    check(
        &[
            (2, 0, true, 100),
            (2, 9, false, 150),
            (3, 0, true, 5),
            (3, 1, false, 6),
        ],
        2,
        1,
        Some(2),
    );
    check(&[(2, 0, false, 100)], 0, 0, Some(2));
    check(&[(2, 0, true, INFINITY), (1, 0, true, 5)], 0, 0, None);
}

proptest! {
    #[test]
    fn regret_agrees_with_its_definition(
        routes in proptest::collection::vec((2u32..6, 0u16..5, any::<bool>(), 1u16..9), 0..30),
    ) {
        let routes: Vec<_> = routes.into_iter().map(route).collect();
        let index = RouteIndex::new(&routes, peer(1), |_| true);
        for slot in (0..5).map(Slot::Dialling) {
            let mut regret = 0;
            let mut nodes = 0;
            for node in (2..6).map(peer) {
                let leaving = |by_slot: bool| routes.iter().filter(move |r| r.node == node && (r.slot == slot) == by_slot);
                let Some(installed) = leaving(true).filter(|r| r.installed).map(|r| r.metric).min() else { continue };
                nodes += 1;
                // Of several routes to a node by one slot an installed one counts.
                let best = |slot| {
                    let of_slot = routes.iter().filter(move |r| r.node == node && r.slot == slot);
                    of_slot.map(|r| (!r.installed, r.metric)).min().map(|(_, metric)| metric)
                };
                let next_best = leaving(false).filter_map(|r| best(r.slot)).min();
                regret += next_best.map_or(0, |metric| u64::from(metric.saturating_sub(installed)));
            }
            let service = index.service(slot);
            prop_assert_eq!((service.nodes, service.regret), (nodes, regret));
        }
    }
}
