//! Laws that hold for any observation, possible or not.

use super::fixtures::{candidate, link, peer};
use crate::{
    gain::Rule,
    names::{Role, Slot, Transport},
    observation::{
        BabelTable, CandidateRtt, INFINITY, LinkReading, Observation, PeerRouteView, Phase, Route,
    },
    orders::{CloseReason, Order},
    parameters::Parameters,
    planner::{Plan, Planner, PlannerSettings},
    units::Uptime,
};
use proptest::prelude::*;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const PINNED: u32 = 3;
const WANTED: u16 = 3;

fn slot(number: u16) -> Slot {
    if number < 5 {
        Slot::Dialling(number)
    } else {
        Slot::Accepting(Transport::Udp, number)
    }
}

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        1 => Just(Phase::Connecting),
        8 => Just(Phase::Up),
        1 => proptest::sample::select(CloseReason::ALL).prop_map(|reason| Phase::Draining { reason }),
        1 => Just(Phase::Closing)
    ]
}

fn links() -> impl Strategy<Value = Vec<LinkReading>> {
    let drawn = (0u16..10, 1u32..9, phase(), 1u64..2_000);
    proptest::collection::vec(drawn, 0..10).prop_map(|drawn| {
        let mut taken = BTreeSet::new();
        let mut links: Vec<_> = drawn
            .into_iter()
            .map(|(n, p, phase, at)| link(slot(n), p, phase, at))
            .collect();
        links.retain(|link| taken.insert(link.tunnel.slot));
        links
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let metric = prop_oneof![5 => 1u16..6_000, 1 => Just(INFINITY)];
    let route = (1u32..10, 0u16..10, any::<bool>(), metric).prop_map(
        |(node, number, installed, metric)| Route {
            node: peer(node),
            slot: slot(number),
            via: peer(node),
            installed,
            metric,
            refmetric: 0,
        },
    );
    proptest::collection::vec(route, 0..40)
}

fn candidate_rtts() -> impl Strategy<Value = Vec<CandidateRtt>> {
    proptest::collection::btree_map(
        1u32..14,
        (1u64..4_000, proptest::option::of(0u64..600)),
        0..12,
    )
    .prop_map(|drawn| {
        let measured = |(number, (at, rtt)): (u32, (u64, Option<u64>))| CandidateRtt {
            peer: peer(number),
            at: Uptime::from_secs(at),
            rtt: rtt.map(Duration::from_millis),
        };
        drawn.into_iter().map(measured).collect()
    })
}

fn views() -> impl Strategy<Value = Vec<PeerRouteView>> {
    let distances = proptest::collection::vec((1u32..14, any::<u16>()), 0..10);
    let report = (
        any::<bool>(),
        proptest::option::of(0u16..8),
        any::<Option<u64>>(),
    );
    let drawn = (1u32..14, 1u64..4_000, report, distances);
    let view = drawn.prop_map(
        |(number, at, (accepts_tunnels, accepted, regret), distances)| PeerRouteView {
            peer: peer(number),
            at: Uptime::from_secs(at),
            accepts_tunnels,
            accepted,
            regret,
            distances: distances
                .into_iter()
                .map(|(number, metric)| (peer(number), metric))
                .collect(),
        },
    );
    proptest::collection::vec(view, 0..8).prop_map(|mut views| {
        let mut seen = BTreeSet::new();
        views.retain(|view| seen.insert(view.peer));
        views
    })
}

fn observations() -> impl Strategy<Value = Observation> {
    let known = proptest::collection::btree_map(1u32..14, proptest::option::of(1u64..2_000), 0..12);
    let parts = (
        proptest::option::weighted(0.9, routes()),
        known,
        candidate_rtts(),
        views(),
    );
    (links(), parts).prop_map(|(links, (routes, known, candidate_rtts, views))| {
        let taken: BTreeSet<_> = links.iter().map(|link| link.tunnel.slot).collect();
        Observation {
            punched: Vec::new(),
            at: Uptime::from_secs(2_000),
            links,
            babel: routes.map(|routes| {
                let neighbours = Vec::new();
                BabelTable { neighbours, routes }.into()
            }),
            probes: Vec::new(),
            candidate_rtts,
            views,
            candidates: known
                .into_iter()
                .map(|(number, confirmed)| candidate(number, confirmed))
                .collect(),
            free_slots: (0..5)
                .map(slot)
                .filter(|slot| !taken.contains(slot))
                .collect(),
        }
    })
}

/// Plans for the same tunnels every half minute of an hour and a half, which contains many refreshes.
fn plans(observation: &Observation, seed: u64) -> Vec<(Observation, Plan)> {
    let parameters = Parameters {
        tunnels_to_dial: WANTED,
        ..Parameters::default()
    };
    let settings = PlannerSettings {
        parameters,
        pinned: BTreeSet::from([peer(PINNED)]),
        rule: Rule::Gain,
        seed,
    };
    let mut planner = Planner::new(peer(2), settings);
    let plan = |step: u64| {
        let observation = Observation {
            at: Uptime::from_secs(2_000 + 30 * step),
            ..observation.clone()
        };
        let plan = planner.plan(&observation, seed.is_multiple_of(2));
        (observation, plan)
    };
    (0..180).map(plan).collect()
}

fn dialled(observation: &Observation) -> usize {
    let counts = |link: &&LinkReading| {
        link.tunnel.role() == Role::Dialled && link.tunnel.phase != Phase::Closing
    };
    observation.links.iter().filter(counts).count()
}

/// Returns whether some node has a finite route by the slot, and none by another tunnel that is up.
fn only_route(observation: &Observation, slot: Slot) -> bool {
    let finite: Vec<_> = observation
        .babel
        .iter()
        .flat_map(|table| &table.routes)
        .collect();
    let finite: Vec<_> = finite
        .into_iter()
        .filter(|r| r.metric != INFINITY && r.node != peer(2))
        .collect();
    let up = |other: Slot| {
        observation
            .links
            .iter()
            .any(|l| l.tunnel.slot == other && l.tunnel.phase == Phase::Up)
    };
    finite
        .iter()
        .filter(|route| route.slot == slot)
        .any(|route| {
            !finite
                .iter()
                .any(|other| other.node == route.node && other.slot != slot && up(other.slot))
        })
}

#[track_caller]
fn check(observation: &Observation, plan: &Plan) {
    let mut drains = 0;
    let (mut peers, mut slots) = (BTreeSet::new(), BTreeSet::new());
    for decision in &plan.decisions {
        match &decision.order {
            Order::Open {
                slot,
                peer: other,
                endpoints,
                ..
            } => {
                assert!(*other != peer(2) && !endpoints.is_empty());
                assert!(
                    observation.free_slots.contains(slot)
                        && slots.insert(*slot)
                        && peers.insert(*other)
                );
                assert!(
                    observation
                        .links
                        .iter()
                        .all(|link| link.tunnel.peer != *other),
                    "already a tunnel"
                );
            }
            Order::Drain { slot, reason } => {
                drains += 1;
                let link = observation
                    .links
                    .iter()
                    .find(|link| link.tunnel.slot == *slot)
                    .unwrap();
                let age = observation.at.since(link.tunnel.up_since.unwrap());
                assert_eq!((slot.role(), link.tunnel.phase), (Role::Dialled, Phase::Up));
                assert!(!only_route(observation, *slot), "the only route");
                assert!(observation.babel.is_some(), "closed blindly");
                if *reason != CloseReason::Duplicate {
                    assert!(age >= Parameters::default().min_age, "too young");
                    assert_ne!(link.tunnel.peer, peer(PINNED), "pinned");
                }
            }
            Order::Close { slot, .. } | Order::Undrain { slot, .. } => {
                assert!(
                    observation
                        .links
                        .iter()
                        .any(|link| link.tunnel.slot == *slot && slot.role() == Role::Dialled)
                );
            }
        }
    }
    assert!(drains <= 1, "two planned closings at once");
    let draining = observation
        .links
        .iter()
        .any(|l| l.tunnel.role() == Role::Dialled && l.tunnel.phase.is_draining());
    assert!(drains == 0 || !draining, "a second closing beside a drain");
    // A pinned peer is dialled all the same.
    let others = peers.iter().filter(|other| **other != peer(PINNED)).count();
    let above = dialled(observation) + others > usize::from(WANTED) + 1;
    assert!(!above || others == 0, "above the limit");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_observation_makes_the_planner_break_its_laws(observation in observations(), seed in any::<u64>()) {
        for (observation, plan) in plans(&observation, seed) {
            check(&observation, &plan);
        }
    }

    #[test]
    fn the_order_of_entries_decides_nothing(observation in observations(), seed in any::<u64>()) {
        let mut reversed = observation.clone();
        reversed.links.reverse();
        reversed.candidates.reverse();
        reversed.free_slots.reverse();
        reversed.candidate_rtts.reverse();
        reversed.views.reverse();
        reversed.babel.iter_mut().for_each(|table| Arc::make_mut(table).routes.reverse());
        let only_plans = |observation: &Observation| -> Vec<Plan> {
            plans(observation, seed).into_iter().map(|(_, plan)| plan).collect()
        };
        prop_assert_eq!(only_plans(&observation), only_plans(&reversed));
        prop_assert_eq!(only_plans(&observation), only_plans(&observation));
    }
}
