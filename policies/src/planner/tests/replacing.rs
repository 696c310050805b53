//! A better candidate takes the place of the tunnel with the least loss.

use super::fixtures::{ACCEPT, DIAL, candidate, link, observation, peer, planner};
use crate::{
    gain::Rule,
    names::Slot,
    observation::{
        CandidateRtt, LinkReading, Observation, PeerRouteView, Phase, ProbeCounts, ProbeReading,
        Route,
    },
    orders::{CloseReason, OpenReason, Order},
    parameters::Parameters,
    planner::{Plan, Planner, PlannerSettings},
    units::Uptime,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const AT: u64 = 10_000;

fn route(node: u32, slot: Slot, installed: bool, metric: u16) -> Route {
    Route {
        node: peer(node),
        slot,
        via: peer(node),
        installed,
        metric,
        refmetric: 0,
    }
}

/// Three old dialled tunnels, to 2, 3 and 4. Each is installed for its own peer, and every node has another route,
/// which is longer by the regret of the tunnel. Node 8 is far from all.
fn three(regrets: [u16; 3], rtt_ms: Option<u64>, views: Vec<PeerRouteView>) -> Observation {
    let links: Vec<LinkReading> = (0..3)
        .map(|n| link(DIAL[n], u32::try_from(n).unwrap() + 2, Phase::Up, 1))
        .collect();
    let links = [links, vec![link(ACCEPT, 5, Phase::Up, 1)]].concat();
    let mut routes = vec![route(5, ACCEPT, true, 96), route(5, DIAL[0], false, 900)];
    for (n, regret) in regrets.into_iter().enumerate() {
        let node = u32::try_from(n).unwrap() + 2;
        routes.push(route(node, DIAL[n], true, 96));
        routes.push(route(node, ACCEPT, false, 96 + regret));
    }
    routes.extend([
        route(8, ACCEPT, true, 3_000),
        route(8, DIAL[1], false, 3_001),
    ]);
    let measured = CandidateRtt {
        peer: peer(8),
        at: Uptime::from_secs(AT),
        rtt: rtt_ms.map(Duration::from_millis),
    };
    Observation {
        candidate_rtts: vec![measured],
        views,
        ..observation(AT, links, routes, vec![candidate(8, Some(1))])
    }
}

/// The route view of that peer.
fn view(number: u32, accepts_tunnels: bool, regret: Option<u64>) -> PeerRouteView {
    PeerRouteView {
        peer: peer(number),
        at: Uptime::from_secs(AT),
        accepts_tunnels,
        accepted: None,
        regret,
        distances: Vec::new(),
    }
}

/// The first order within ten minutes, in which a refresh falls.
fn refresh(observation: &Observation) -> Vec<(Order, String)> {
    refresh_of(planner(1, &[]), observation)
}

fn refresh_of(mut planner: Planner, observation: &Observation) -> Vec<(Order, String)> {
    let plan = |second: u64| {
        // The readings stay as recent as they are at first.
        let mut observation = observation.clone();
        observation.at = Uptime::from_secs(AT + second);
        observation
            .candidate_rtts
            .iter_mut()
            .for_each(|measured| measured.at = observation.at);
        observation
            .views
            .iter_mut()
            .for_each(|view| view.at = observation.at);
        let Plan { decisions, .. } = planner.plan(&observation, true);
        decisions
    };
    let decisions: Vec<_> = (0..600).step_by(10).flat_map(plan).collect();
    decisions
        .into_iter()
        .map(|decision| (decision.order, decision.terms))
        .take(1)
        .collect()
}

/// The regrets of the three tunnels: `regret` for that on `slot`, and that of the others.
fn regrets(slot: Slot, regret: u16, others: u16) -> [u16; 3] {
    std::array::from_fn(|n| if DIAL[n] == slot { regret } else { others })
}

/// Checks which slot's tunnel is replaced for a gain of 2 × (3000 - link).
#[track_caller]
fn check(regrets: [u16; 3], rtt_ms: Option<u64>, views: Vec<PeerRouteView>, replaced: &[Slot]) {
    let orders = refresh(&three(regrets, rtt_ms, views));
    let drain = |(order, _): &(Order, String)| match order {
        Order::Drain {
            slot,
            reason: CloseReason::Replaced,
        } => *slot,
        Order::Drain { .. } | Order::Open { .. } | Order::Undrain { .. } | Order::Close { .. } => {
            panic!("{order:?}")
        }
    };
    assert_eq!(
        orders.iter().map(drain).collect::<Vec<_>>(),
        replaced,
        "{orders:?}"
    );
}

/// The slots that are not left to chance: those replaced when their regret is the least.
fn replaceable() -> Vec<Slot> {
    let least = [[1, 900, 900], [900, 1, 900], [900, 900, 1]];
    let replaced = |regrets| match refresh(&three(regrets, Some(20), Vec::new())).first() {
        Some((Order::Drain { slot, .. }, _)) => *slot,
        other => panic!("{other:?}"),
    };
    let mut slots: Vec<_> = least.into_iter().map(replaced).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

#[test]
fn the_tunnel_with_the_least_regret_is_replaced_but_never_the_one_left_to_chance() {
    let slots = replaceable();
    assert_eq!(slots.len(), 2, "one of three is left to chance: {slots:?}");
}

#[test]
fn a_gain_must_reach_two_fifths_of_the_loss_and_pay_for_the_routes_that_move() {
    // The gain is 2 × (3000 - 198) = 5604. The loss of both ends is 2 × regret, and the route of 96 that moves counts
    // one part in 24.
    let least = replaceable()[0];
    check(regrets(least, 6_999, 9_000), Some(20), Vec::new(), &[least]);
    check(regrets(least, 7_000, 9_000), Some(20), Vec::new(), &[]);
}

#[test]
fn a_candidate_that_is_full_or_unmeasured_or_no_nearer_replaces_nothing() {
    check([1, 1, 1], Some(20), vec![view(8, false, None)], &[]);
    check([1, 1, 1], None, Vec::new(), &[]);
    check([1, 1, 1], Some(300), Vec::new(), &[]);
}

#[test]
fn the_regret_of_the_peer_counts_too() {
    let slots = replaceable();
    let peer_of = |slot: Slot| DIAL.iter().position(|dial| *dial == slot).unwrap() + 2;
    let views = vec![
        view(u32::try_from(peer_of(slots[0])).unwrap(), true, Some(400)),
        view(u32::try_from(peer_of(slots[1])).unwrap(), true, Some(0)),
    ];
    check([100, 100, 100], Some(20), views, &[slots[1]]);
}

/// The views of all peers, of which the one on `slot` is changed.
fn views_of_peers(slot: Slot, change: impl Fn(&mut PeerRouteView)) -> Vec<PeerRouteView> {
    let mut views: Vec<_> = (2..5).map(|number| view(number, true, None)).collect();
    let position = DIAL.iter().position(|dial| *dial == slot).unwrap();
    change(&mut views[position]);
    views
}

#[test]
fn a_tunnel_to_a_peer_that_few_dialled_is_not_replaced() {
    let [first, second] = replaceable()[..] else {
        panic!("not two")
    };
    let regrets = regrets(first, 1, 100);
    let accepted = |accepted| views_of_peers(first, |view| view.accepted = accepted);
    // Each node dials three.
    check(regrets, Some(20), accepted(None), &[first]);
    check(regrets, Some(20), accepted(Some(3)), &[first]);
    check(regrets, Some(20), accepted(Some(2)), &[second]);
}

#[test]
fn a_tunnel_to_a_peer_without_room_is_replaced_for_half_the_gain() {
    let [first, _] = replaceable()[..] else {
        panic!("not two")
    };
    let regrets = regrets(first, 8_000, 9_000);
    let room = |room| views_of_peers(first, |view| view.accepts_tunnels = room);
    check(regrets, Some(20), room(true), &[]);
    check(regrets, Some(20), room(false), &[first]);
}

#[test]
fn room_is_filled_by_chance_first_and_then_by_what_gains_most() {
    let links = vec![link(DIAL[0], 2, Phase::Up, 1)];
    let mut routes: Vec<_> = (2..10)
        .map(|node| route(node, DIAL[0], true, 3_000))
        .collect();
    routes.push(route(2, DIAL[1], false, 3_000));
    let measured = |(number, rtt_ms)| CandidateRtt {
        peer: peer(number),
        at: Uptime::from_secs(AT),
        rtt: Some(Duration::from_millis(rtt_ms)),
    };
    let candidate_rtts = (3..10)
        .map(|number| (number, 10 * u64::from(number)))
        .map(measured)
        .collect();
    let candidates = (3..10).map(|number| candidate(number, Some(1))).collect();
    let observation = Observation {
        candidate_rtts,
        ..observation(AT, links, routes, candidates)
    };
    let mut planner = planner(1, &[]);
    let mut seen = Vec::new();
    for decision in planner.plan(&observation, true).decisions {
        let Order::Open { peer, reason, .. } = decision.order else {
            panic!("{decision:?}")
        };
        seen.push((peer.number(), reason));
    }
    // The existing tunnel came by chance, and one of three is left to chance.
    assert_eq!(seen, [(3, OpenReason::Gain), (4, OpenReason::Gain)]);
}

/// The observation with `lost` of a hundred probes lost on the slot.
fn lossy(observation: Observation, slot: Slot, lost: u32) -> Observation {
    let recent = ProbeCounts { sent: 100, lost };
    let (rtt, jitter) = (Some(Duration::from_millis(10)), Duration::ZERO);
    let probe = ProbeReading {
        slot,
        rtt,
        jitter,
        sent: 4,
        lost: 0,
        recent,
        rx_frames: 0,
        tx_frames: 0,
        full_size: crate::path_mtu::FullSize::Carried,
    };
    Observation {
        probes: vec![probe],
        ..observation
    }
}

#[test]
fn a_tunnel_that_loses_much_is_replaced_for_less_gain() {
    let [least, second] = replaceable()[..] else {
        panic!("not two")
    };
    // The loss is 2 × 30,000 for both ends, of which 0.25 and 0.16 are left.
    let three = || three(regrets(least, 30_000, 36_000), Some(20), Vec::new());
    let replaced = |lost: u32, slot: Slot| {
        let orders = refresh(&lossy(three(), slot, lost));
        orders.into_iter().next().map(|(order, terms)| {
            let Order::Drain {
                slot,
                reason: CloseReason::Replaced,
            } = order
            else {
                panic!("{order:?}")
            };
            assert!(terms.contains(&format!("probe_loss={lost} %")), "{terms}");
            slot
        })
    };
    assert_eq!(replaced(0, least), None);
    assert_eq!(replaced(50, least), None);
    assert_eq!(replaced(60, least), Some(least));
    assert_eq!(
        replaced(75, second),
        Some(second),
        "the regret is greater, but more is lost"
    );
}

#[test]
fn a_lossy_tunnel_that_is_the_only_route_or_pinned_or_young_stays() {
    let [least, _] = replaceable()[..] else {
        panic!("not two")
    };
    let number = DIAL.iter().position(|slot| *slot == least).unwrap() + 2;
    let number = u32::try_from(number).unwrap();
    let observation = || lossy(three([9_000; 3], Some(20), Vec::new()), least, 90);
    let drained = |planner: Planner, observation: &Observation| {
        let orders = refresh_of(planner, observation)
            .into_iter()
            .map(|(order, _)| order);
        orders
            .filter(|order| matches!(order, Order::Drain { .. }))
            .count()
    };
    assert_eq!(drained(planner(1, &[]), &observation()), 1);
    assert_eq!(drained(planner(1, &[number]), &observation()), 0, "pinned");
    let mut only = observation();
    only.babel
        .iter_mut()
        .for_each(|table| Arc::make_mut(table).routes.push(route(9, least, true, 96)));
    assert_eq!(drained(planner(1, &[]), &only), 0, "the only route");
    let mut young = observation();
    let born = Uptime::from_secs(AT);
    young
        .links
        .iter_mut()
        .filter(|link| link.tunnel.slot == least)
        .for_each(|link| {
            (link.tunnel.since, link.tunnel.up_since) = (born, Some(born));
        });
    assert_eq!(drained(planner(1, &[]), &young), 0, "too young");
}

#[test]
fn the_random_rule_closes_any_tunnel_whatever_its_regret() {
    let by_lot = |seed| {
        let parameters = Parameters {
            tunnels_to_dial: 3,
            ..Parameters::default()
        };
        let settings = PlannerSettings {
            parameters,
            pinned: BTreeSet::new(),
            rule: Rule::Random,
            seed,
        };
        let orders = refresh_of(
            Planner::new(peer(1), settings),
            &three([1, 900, 900], Some(20), Vec::new()),
        );
        match orders.first() {
            Some((
                Order::Drain {
                    slot,
                    reason: CloseReason::Rotation,
                },
                _,
            )) => *slot,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (0..30).map(by_lot).collect::<BTreeSet<_>>(),
        DIAL[..3].iter().copied().collect()
    );
}

#[test]
fn the_random_rule_fills_by_chance_alone() {
    let parameters = Parameters {
        tunnels_to_dial: 3,
        ..Parameters::default()
    };
    let settings = PlannerSettings {
        parameters,
        pinned: BTreeSet::new(),
        rule: Rule::Random,
        seed: 1,
    };
    let observation = Observation {
        links: Vec::new(),
        free_slots: vec![DIAL[0]],
        ..three([1, 1, 1], Some(20), Vec::new())
    };
    let reasons = Planner::new(peer(1), settings)
        .plan(&observation, true)
        .decisions;
    let fills = |order: &Order| {
        matches!(
            order,
            Order::Open {
                reason: OpenReason::Fill,
                ..
            }
        )
    };
    assert!(
        reasons.len() == 1 && reasons.iter().all(|decision| fills(&decision.order)),
        "{reasons:?}"
    );
}
