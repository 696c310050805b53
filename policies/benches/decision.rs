//! Measures one plan for 1,000 tunnels and 100,000 routes: at most 10 ms.
//!
//! It prints the least and the median time of 50 plans, at a refresh and between, and fails if the median is above the
//! bound. With `--plans N` it only makes that many plans, whose instructions `policies/benches/count` counts.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark measures time and prints it"
)]

use policies::{
    gain::Rule,
    names::{Prefix, Slot, Transport},
    observation::{
        BabelTable, Candidate, CandidateRtt, LinkCounters, LinkReading, Observation, PeerRouteView,
        Phase, Route, TunnelReading,
    },
    parameters::Parameters,
    planner::{Planner, PlannerSettings},
    rng::Rng,
    units::Uptime,
};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

const TUNNELS: u32 = 1_000;
const NODES: u32 = 10_000;
const ROUTES_PER_NODE: u32 = 10;
const MAX_MEDIAN: Duration = Duration::from_millis(10);
const PLANS: u64 = 50;

fn prefix(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

fn slot(number: u32) -> Slot {
    let number = u16::try_from(number).unwrap();
    if number < 30 {
        Slot::Dialling(number)
    } else {
        Slot::Accepting(Transport::Udp, number)
    }
}

/// 30 dialled and 970 accepted tunnels; the routes are in random order, as a hostile babeld would list them.
fn observation() -> Observation {
    let mut rng = Rng::new(1);
    let mut below = |bound: u64| u32::try_from(rng.below(bound)).unwrap();
    let link = |number: u32| LinkReading {
        tunnel: TunnelReading {
            slot: slot(number),
            peer: prefix(number + 1),
            phase: Phase::Up,
            since: Uptime::from_secs(1),
            up_since: Some(Uptime::from_secs(1)),
            endpoint: Some("udp:192.0.2.1:1194".parse().unwrap()),
        },
        counters: LinkCounters::default(),
    };
    let mut routes = Vec::new();
    for node in 1..=NODES {
        let installed = below(ROUTES_PER_NODE.into());
        for number in 0..ROUTES_PER_NODE {
            let metric =
                u16::try_from(1_000 + below(3_000) + if number == installed { 0 } else { 3_000 })
                    .unwrap();
            let tunnel = (below(100) + number * 100) % TUNNELS;
            let (node, slot, via) = (prefix(node), slot(tunnel), prefix(tunnel + 1));
            routes.push(Route {
                node,
                slot,
                via,
                installed: number == installed,
                metric,
                refmetric: metric / 2,
            });
        }
    }
    Rng::new(2).shuffle(&mut routes);
    let distances: Vec<_> = (1..=NODES)
        .step_by(20)
        .map(|node| (prefix(node), 2_000))
        .collect();
    let strangers = || (0..1_024).map(|number| prefix(TUNNELS + 2 + number * 8));
    let now = Uptime::from_secs(100_000);
    Observation {
        punched: Vec::new(),
        at: now,
        links: (0..TUNNELS).map(link).collect(),
        babel: Some(Arc::new(BabelTable {
            neighbours: Vec::new(),
            routes,
        })),
        probes: Vec::new(),
        candidates: strangers()
            .map(|peer| Candidate {
                peer,
                endpoints: vec!["udp:198.51.100.1:1194".parse().unwrap()],
                on_lan: 0,
                confirmed_at: Some(now),
                failed_at: None,
                failures: 0,
                transit_cost: 0,
            })
            .collect(),
        candidate_rtts: strangers()
            .take(120)
            .map(|peer| CandidateRtt {
                peer,
                at: now,
                rtt: Some(Duration::from_millis(20)),
            })
            .collect(),
        views: strangers()
            .take(10)
            .map(|peer| PeerRouteView {
                peer,
                at: now,
                accepts_tunnels: true,
                accepted: Some(20),
                regret: None,
                distances: distances.clone(),
            })
            .collect(),
        free_slots: Vec::new(),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = arguments.iter().position(|argument| argument == "--plans");
    let plans = option.map_or(PLANS, |option| arguments[option + 1].parse().unwrap());
    let mut observation = observation();
    let parameters = Parameters {
        tunnels_to_dial: 30,
        ..Parameters::default()
    };
    let settings = PlannerSettings {
        parameters,
        pinned: BTreeSet::new(),
        rule: Rule::Gain,
        seed: 1,
    };
    let mut planner = Planner::new(prefix(60_000), settings);
    let mut times = Vec::new();
    let start = observation.at;
    for number in 0..plans {
        // Each plan is late enough for new verdicts, every third for a refresh.
        observation.at = start + Duration::from_secs(110 * number);
        for measured in &mut observation.candidate_rtts {
            measured.at = observation.at;
        }
        for view in &mut observation.views {
            view.at = observation.at;
        }
        let begin = Instant::now();
        let plan = planner.plan(&observation, true);
        times.push(begin.elapsed());
        let verdicts = plan.verdicts.unwrap();
        assert_eq!(verdicts.len(), usize::try_from(TUNNELS).unwrap());
    }
    if option.is_some() {
        return;
    }
    times.sort_unstable();
    let (least, median) = (times.first().unwrap(), times.get(times.len() / 2).unwrap());
    println!("1000 tunnels, 100000 routes: least {least:?}, median {median:?} of {PLANS} plans");
    assert!(*median <= MAX_MEDIAN, "above {MAX_MEDIAN:?}");
}
