//! A better candidate takes the place of the tunnel that is missed least.

use super::looks::{ACCEPT, DIAL, candidate, link, peer, planner, world};
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
use std::{collections::BTreeSet, time::Duration};

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

/// Three old dialled tunnels, to 2, 3 and 4; each is installed for its own peer, and every node has
/// another way. Without it the ways grow by 10, 20 and 30 to the peers; node 8 is far from all.
fn three(loss: [u16; 3], rtt_ms: Option<u64>, views: Vec<PeerRouteView>) -> Observation {
    let links: Vec<LinkReading> = (0..3)
        .map(|n| link(DIAL[n], u32::try_from(n).unwrap() + 2, Phase::Up, 1))
        .collect();
    let links = [links, vec![link(ACCEPT, 5, Phase::Up, 1)]].concat();
    let mut routes = vec![route(5, ACCEPT, true, 96), route(5, DIAL[0], false, 900)];
    for (n, loss) in loss.into_iter().enumerate() {
        let node = u32::try_from(n).unwrap() + 2;
        routes.push(route(node, DIAL[n], true, 96));
        routes.push(route(node, ACCEPT, false, 96 + loss));
    }
    routes.extend([
        route(8, ACCEPT, true, 3_000),
        route(8, DIAL[1], false, 3_001),
    ]);
    let sounding = CandidateRtt {
        peer: peer(8),
        at: Uptime::from_secs(AT),
        rtt: rtt_ms.map(Duration::from_millis),
    };
    Observation {
        candidate_rtts: vec![sounding],
        views,
        ..world(AT, links, routes, vec![candidate(8, Some(1))])
    }
}

fn view(of: u32, accepts_tunnels: bool, regret: Option<u64>) -> PeerRouteView {
    PeerRouteView {
        peer: peer(of),
        at: Uptime::from_secs(AT),
        accepts_tunnels,
        accepted: None,
        regret,
        distances: Vec::new(),
    }
}

/// What one refresh of this world closes; no refresh is more than ten minutes away.
fn refresh(world: &Observation) -> Vec<(Order, String)> {
    refresh_of(planner(1, &[]), world)
}

fn refresh_of(mut planner: Planner, world: &Observation) -> Vec<(Order, String)> {
    let look = |second: u64| {
        // The readings stay as fresh as they are at first.
        let mut world = world.clone();
        world.at = Uptime::from_secs(AT + second);
        world
            .candidate_rtts
            .iter_mut()
            .for_each(|sounding| sounding.at = world.at);
        world.views.iter_mut().for_each(|view| view.at = world.at);
        let Plan { decisions, .. } = planner.plan(&world, true);
        decisions
    };
    let all: Vec<_> = (0..600).step_by(10).flat_map(look).collect();
    all.into_iter()
        .map(|decision| (decision.order, decision.terms))
        .take(1)
        .collect()
}

/// What the three would be missed by: that on `slot`, and the others.
fn losses(slot: Slot, its: u16, others: u16) -> [u16; 3] {
    std::array::from_fn(|at| if DIAL[at] == slot { its } else { others })
}

/// Which slot a gain of 2 × (3000 - link) replaces.
#[track_caller]
fn check(loss: [u16; 3], rtt_ms: Option<u64>, views: Vec<PeerRouteView>, replaced: &[Slot]) {
    let orders = refresh(&three(loss, rtt_ms, views));
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

/// The slots that are not left to chance, by the losses that make them the least missed.
fn replaceable() -> Vec<Slot> {
    let least = [[1, 900, 900], [900, 1, 900], [900, 900, 1]];
    let replaced = |loss| match refresh(&three(loss, Some(20), Vec::new())).first() {
        Some((Order::Drain { slot, .. }, _)) => *slot,
        other => panic!("{other:?}"),
    };
    let mut slots: Vec<_> = least.into_iter().map(replaced).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

#[test]
fn the_tunnel_that_is_missed_least_gives_way_but_never_the_one_left_to_chance() {
    let slots = replaceable();
    assert_eq!(slots.len(), 2, "one of three is left to chance: {slots:?}");
}

#[test]
fn a_gain_must_reach_two_fifths_of_the_loss_and_pay_for_the_ways_that_move() {
    // Gain 2 × (3000 - 198) = 5604; loss of both ends 2 × regret, and the way of 96 that moves counts one part in 24.
    let least = replaceable()[0];
    check(losses(least, 6_999, 9_000), Some(20), Vec::new(), &[least]);
    check(losses(least, 7_000, 9_000), Some(20), Vec::new(), &[]);
}

#[test]
fn what_is_full_or_unmeasured_or_no_shorter_replaces_nothing() {
    check([1, 1, 1], Some(20), vec![view(8, false, None)], &[]);
    check([1, 1, 1], None, Vec::new(), &[]);
    check([1, 1, 1], Some(300), Vec::new(), &[]);
}

#[test]
fn what_the_peer_would_lose_counts_too() {
    let slots = replaceable();
    let peer_of = |slot: Slot| DIAL.iter().position(|dial| *dial == slot).unwrap() + 2;
    let views = vec![
        view(u32::try_from(peer_of(slots[0])).unwrap(), true, Some(400)),
        view(u32::try_from(peer_of(slots[1])).unwrap(), true, Some(0)),
    ];
    check([100, 100, 100], Some(20), views, &[slots[1]]);
}

/// The views of all peers, of which that on `slot` says what `change` makes of it.
fn views_of_peers(slot: Slot, change: impl Fn(&mut PeerRouteView)) -> Vec<PeerRouteView> {
    let mut views: Vec<_> = (2..5).map(|number| view(number, true, None)).collect();
    let at = DIAL.iter().position(|dial| *dial == slot).unwrap();
    change(&mut views[at]);
    views
}

#[test]
fn a_tunnel_to_a_peer_that_few_dialled_is_not_replaced() {
    let [one, other] = replaceable()[..] else {
        panic!("two")
    };
    let losses = losses(one, 1, 100);
    let accepted = |accepted| views_of_peers(one, |view| view.accepted = accepted);
    // Three are to be dialled by each.
    check(losses, Some(20), accepted(None), &[one]);
    check(losses, Some(20), accepted(Some(3)), &[one]);
    check(losses, Some(20), accepted(Some(2)), &[other]);
}

#[test]
fn a_tunnel_to_a_peer_without_room_gives_way_for_half_the_gain() {
    let [one, _] = replaceable()[..] else {
        panic!("two")
    };
    let losses = losses(one, 8_000, 9_000);
    let room = |room| views_of_peers(one, |view| view.accepts_tunnels = room);
    check(losses, Some(20), room(true), &[]);
    check(losses, Some(20), room(false), &[one]);
}

#[test]
fn room_is_filled_by_chance_first_and_then_by_what_gains_most() {
    let links = vec![link(DIAL[0], 2, Phase::Up, 1)];
    let mut routes: Vec<_> = (2..10)
        .map(|node| route(node, DIAL[0], true, 3_000))
        .collect();
    routes.push(route(2, DIAL[1], false, 3_000));
    let sounding = |(number, rtt_ms)| CandidateRtt {
        peer: peer(number),
        at: Uptime::from_secs(AT),
        rtt: Some(Duration::from_millis(rtt_ms)),
    };
    let candidate_rtts = (3..10)
        .map(|number| (number, 10 * u64::from(number)))
        .map(sounding)
        .collect();
    let candidates = (3..10).map(|number| candidate(number, Some(1))).collect();
    let world = Observation {
        candidate_rtts,
        ..world(AT, links, routes, candidates)
    };
    let mut planner = planner(1, &[]);
    let mut seen = Vec::new();
    for decision in planner.plan(&world, true).decisions {
        let Order::Open { peer, reason, .. } = decision.order else {
            panic!("{decision:?}")
        };
        seen.push((peer.number(), reason));
    }
    // The tunnel that stands came by chance; of three, one is left to it.
    assert_eq!(seen, [(3, OpenReason::Gain), (4, OpenReason::Gain)]);
}

/// This share of a hundred probes is lost on the slot.
fn lossy(world: Observation, slot: Slot, lost: u32) -> Observation {
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
    };
    Observation {
        probes: vec![probe],
        ..world
    }
}

#[test]
fn a_tunnel_that_loses_much_gives_way_to_a_gain_that_would_not_replace_it_otherwise() {
    let [least, other] = replaceable()[..] else {
        panic!("two")
    };
    // A loss of 2 × 30,000 for both ends, of which 0.25 and 0.16 are left.
    let three = || three(losses(least, 30_000, 36_000), Some(20), Vec::new());
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
            assert!(terms.contains(&format!("lost={lost} %")), "{terms}");
            slot
        })
    };
    assert_eq!(replaced(0, least), None);
    assert_eq!(replaced(50, least), None);
    assert_eq!(replaced(60, least), Some(least));
    assert_eq!(
        replaced(75, other),
        Some(other),
        "the greater regret, but less of it arrives"
    );
}

#[test]
fn a_lossy_tunnel_that_is_the_only_route_or_pinned_or_young_stays() {
    let [least, _] = replaceable()[..] else {
        panic!("two")
    };
    let number = DIAL.iter().position(|slot| *slot == least).unwrap() + 2;
    let number = u32::try_from(number).unwrap();
    let world = || lossy(three([9_000; 3], Some(20), Vec::new()), least, 90);
    let drained = |planner: Planner, world: &Observation| {
        let orders = refresh_of(planner, world)
            .into_iter()
            .map(|(order, _)| order);
        orders
            .filter(|order| matches!(order, Order::Drain { .. }))
            .count()
    };
    assert_eq!(drained(planner(1, &[]), &world()), 1);
    assert_eq!(drained(planner(1, &[number]), &world()), 0, "pinned");
    let mut only = world();
    only.babel
        .iter_mut()
        .for_each(|table| table.routes.push(route(9, least, true, 96)));
    assert_eq!(drained(planner(1, &[]), &only), 0, "the only way");
    let mut young = world();
    let born = Uptime::from_secs(AT);
    young
        .links
        .iter_mut()
        .filter(|one| one.tunnel.slot == least)
        .for_each(|one| {
            (one.tunnel.since, one.tunnel.up_since) = (born, Some(born));
        });
    assert_eq!(drained(planner(1, &[]), &young), 0, "too young");
}

#[test]
fn the_random_rule_lets_the_lot_fall_whatever_a_tunnel_is_worth() {
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
    let world = Observation {
        links: Vec::new(),
        free_slots: vec![DIAL[0]],
        ..three([1, 1, 1], Some(20), Vec::new())
    };
    let reasons = Planner::new(peer(1), settings).plan(&world, true).decisions;
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
