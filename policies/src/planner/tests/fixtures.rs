//! Small planners, tunnels, routes and observations for the tests.

use crate::{
    gain::Rule,
    names::{Prefix, Slot, Transport},
    observation::{
        BabelTable, Candidate, LinkCounters, LinkReading, Observation, Phase, Route, TunnelReading,
    },
    orders::{Decision, Order},
    parameters::Parameters,
    planner::{Planner, PlannerSettings},
    units::Uptime,
};
use std::sync::Arc;

pub(super) fn peer(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

/// A planner of node `me` that dials three, with these pinned peers.
pub(super) fn planner(me: u32, pinned: &[u32]) -> Planner {
    let parameters = Parameters {
        tunnels_to_dial: 3,
        ..Parameters::default()
    };
    let pinned = pinned.iter().map(|number| peer(*number)).collect();
    Planner::new(
        peer(me),
        PlannerSettings {
            parameters,
            pinned,
            rule: Rule::Gain,
            seed: 1,
        },
    )
}

/// A link whose tunnel has been in `phase` since that second.
pub(super) fn link(slot: Slot, number: u32, phase: Phase, since: u64) -> LinkReading {
    let since = Uptime::from_secs(since);
    let up_since = (phase != Phase::Connecting).then_some(since);
    let tunnel = TunnelReading {
        slot,
        peer: peer(number),
        phase,
        since,
        up_since,
        endpoint: None,
    };
    LinkReading {
        tunnel,
        counters: LinkCounters::default(),
    }
}

/// A route to a neighbour, one hop away.
pub(super) fn route(number: u32, slot: Slot, installed: bool) -> Route {
    Route {
        node: peer(number),
        slot,
        via: peer(number),
        installed,
        metric: 96,
        refmetric: 0,
    }
}

/// A candidate that has never failed, confirmed at that second.
pub(super) fn candidate(number: u32, confirmed: Option<u64>) -> Candidate {
    Candidate {
        peer: peer(number),
        endpoints: vec!["udp:192.0.2.1:1194".parse().unwrap()],
        on_lan: 0,
        confirmed_at: confirmed.map(Uptime::from_secs),
        failed_at: None,
        failures: 0,
        transit_cost: 0,
    }
}

/// All dialling slots of the node.
pub(super) const DIAL: [Slot; 5] = [
    Slot::Dialling(0),
    Slot::Dialling(1),
    Slot::Dialling(2),
    Slot::Dialling(3),
    Slot::Dialling(4),
];
/// An accepting slot.
pub(super) const ACCEPT: Slot = Slot::Accepting(Transport::Udp, 2);

/// An observation at that second; all other dialling slots are free.
pub(super) fn observation(
    at: u64,
    links: Vec<LinkReading>,
    routes: Vec<Route>,
    candidates: Vec<Candidate>,
) -> Observation {
    let taken = |slot: &Slot| links.iter().any(|link| link.tunnel.slot == *slot);
    let free_slots = DIAL.into_iter().filter(|slot| !taken(slot)).collect();
    let babel = Some(BabelTable {
        neighbours: Vec::new(),
        routes,
    });
    Observation {
        at: Uptime::from_secs(at),
        links,
        babel: babel.map(Arc::new),
        candidates,
        free_slots,
        ..Observation::default()
    }
}

/// All orders but those to dial.
pub(super) fn orders_but_dials(planner: &mut Planner, observation: &Observation) -> Vec<Order> {
    let decisions = decisions_but_dials(planner, observation).into_iter();
    decisions.map(|decision| decision.order).collect()
}

/// The decisions of one plan, dials left out.
pub(super) fn decisions_but_dials(
    planner: &mut Planner,
    observation: &Observation,
) -> Vec<Decision> {
    let decisions = planner.plan(observation, true).decisions.into_iter();
    decisions
        .filter(|decision| !matches!(decision.order, Order::Open { .. }))
        .collect()
}
