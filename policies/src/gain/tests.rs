//! Small tables and views, and a bound on what a liar can gain.

use super::*;
use crate::{names::Slot, observation::Route, units::Uptime};
use proptest::prelude::*;
use std::time::Duration;

fn peer(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

/// Routes to nodes, of which node n is at metric `metrics[n]`.
fn routes(metrics: &[u16]) -> RouteIndex {
    let route = |(node, metric): (usize, &u16)| {
        let node = peer(u32::try_from(node).unwrap());
        Route {
            node,
            slot: Slot::Dialling(0),
            via: node,
            installed: true,
            metric: *metric,
            refmetric: 0,
        }
    };
    RouteIndex::new(
        &metrics.iter().enumerate().map(route).collect::<Vec<_>>(),
        peer(99),
        |_| true,
    )
}

fn view(of: u32, distances: &[u16]) -> PeerRouteView {
    let distances = distances.iter().enumerate();
    let distances = distances.map(|(node, metric)| (peer(u32::try_from(node).unwrap()), *metric));
    PeerRouteView {
        peer: peer(of),
        at: Uptime::default(),
        accepts_tunnels: true,
        accepted: None,
        regret: None,
        distances: distances.collect(),
    }
}

/// Checks the gain of a link to node 0, which reports these metrics.
#[track_caller]
fn check(metrics: &[u16], link: u32, reported: Option<&[u16]>, expected: Option<u64>) {
    let view = reported.map(|reported| view(0, reported));
    let gain = gain(&routes(metrics), peer(0), link, view.as_ref());
    assert_eq!(gain.map(|gain| gain.total), expected);
}

#[test]
fn without_a_view_both_ends_gain_the_route_between_them() {
    check(&[100, 50], 40, None, Some(120));
}

#[test]
fn a_link_that_is_hardly_shorter_than_the_route_gains_nothing() {
    check(&[100], 100, None, None);
    check(&[100], 95, None, None);
    check(&[100], 93, None, Some(14));
}

#[test]
fn with_a_view_all_routes_count_that_become_shorter_at_either_end() {
    // We save 90 - (10 + 40) to node 1; node 0 saves 120 - (30 + 40) to node 2; both save 60 to each other.
    check(&[100, 90, 30], 40, Some(&[0, 10, 120]), Some(40 + 50 + 120));
}

#[test]
fn the_nodes_of_a_view_stand_for_all_nodes() {
    check(
        &[100, 90, 30, 30, 30],
        40,
        Some(&[0, 10]),
        Some(4 * 40 + 120),
    );
}

#[test]
fn in_a_sampled_table_all_routes_but_the_one_between_the_ends_count_several_times() {
    let view = view(0, &[0, 10, 120]);
    let routes = routes(&[100, 90, 30]).sampled(7);
    let gain = gain(&routes, peer(0), 40, Some(&view));
    assert_eq!(gain.map(|gain| gain.total), Some(7 * (40 + 50) + 120));
}

#[test]
fn at_most_five_candidates_are_asked_and_those_with_the_nearest_links() {
    let rtt = |number: u32| CandidateRtt {
        peer: peer(number),
        at: Uptime::default(),
        rtt: (number != 3).then(|| Duration::from_millis(u64::from(20 * number))),
    };
    let candidate_rtts: Vec<_> = (0..8).map(rtt).collect();
    let listed = shortlist(&routes(&[3_000; 8]), &candidate_rtts, LinkCost::default());
    assert_eq!(listed, [0, 1, 2, 4, 5].map(peer));
}

#[test]
fn a_full_peer_and_an_old_measurement_decide_nothing() {
    let measured = CandidateRtt {
        peer: peer(0),
        at: Uptime::from_secs(100),
        rtt: Some(Duration::ZERO),
    };
    let full = [PeerRouteView {
        accepts_tunnels: false,
        ..view(0, &[])
    }];
    let gain = |now, views| {
        let measurements = Measurements::new(
            &[measured],
            views,
            Uptime::from_secs(now),
            Duration::from_secs(60),
        );
        measurements
            .gain(&routes(&[1_000]), peer(0), LinkCost::default())
            .map(|gain| gain.total)
    };
    assert_eq!(gain(50, &full), None);
    assert_eq!(gain(160, &full), Some(2 * (1_000 - 96)));
    assert_eq!(gain(161, &[]), None);
}

#[test]
fn the_regret_that_a_peer_reports_is_bounded_by_ours() {
    let losses = [
        closing_loss(10, None),
        closing_loss(10, Some(7)),
        closing_loss(10, Some(u64::MAX)),
        closing_loss(0, Some(9)),
    ];
    assert_eq!(losses, [20, 17, 50, 0]);
}

#[test]
fn the_required_gain_shrinks_with_each_refresh_without_a_close_and_halves_for_a_crowded_peer() {
    let at_once = |loss, moved| required_gain(loss, moved, 0, false);
    assert_eq!(
        [at_once(0, 0), at_once(100, 0), at_once(100, 240)],
        [1, 41, 51]
    );
    let rested = |crowded| required_gain(100, 240, 4, crowded);
    assert_eq!([rested(false), rested(true)], [43, 22]);
}

#[test]
fn a_fifth_of_the_tunnels_stays_random() {
    assert_eq!(
        [1, 2, 3, 5, 6, 10, 30].map(random_slots),
        [0, 0, 1, 1, 2, 2, 6]
    );
}

proptest! {
    #[test]
    fn no_report_gains_more_than_the_saved_route_between_for_each_node_and_end(
        metrics in proptest::collection::vec(1u16..2_000, 1..20),
        reported in proptest::collection::vec(any::<u16>(), 0..20),
        link in 0u32..2_000,
    ) {
        let view = view(0, &reported);
        let between = u64::from(u32::from(metrics[0]).saturating_sub(link));
        let limit = 2 * between * u64::try_from(metrics.len()).unwrap();
        let gain = gain(&routes(&metrics), peer(0), link, Some(&view));
        prop_assert!(gain.is_none_or(|gain| gain.total <= limit));
    }
}
