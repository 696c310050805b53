//! Lets several policies improve the same random overlay, side by side.

use crate::{
    net::{Happened, Net, NetSettings, PARTS},
    num::{real, share},
    output::{self, Progress, Series},
    overlay::{Limits, Overlay},
    rules::{Rule, Ruled},
    space::Space,
};
use policies::{link_cost::LinkCost, rng::Rng};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// The settings of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Limits of each node.
    pub limits: Limits,
    /// The number of refreshes.
    pub rounds: usize,
    /// The seed of the random numbers.
    pub seed: u64,
}

/// The results of one policy.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Course {
    /// The mean length of the shortest paths after each round, with the start as round 0; in
    /// milliseconds or as a metric.
    pub mean_ms: Vec<f64>,
    /// The number of paths that used a tunnel when it was closed, summed over all rounds.
    pub disturbed_routes: u64,
    /// The same for each round.
    pub disturbed: Vec<u64>,
    /// Tunnels closed in each round, as a part of all.
    pub replaced_share: Vec<f64>,
    /// Dials in all rounds, and those that were refused.
    pub dials: u64,
    /// The dials that the peer refused, summed over all rounds.
    pub refused_dials: u64,
    /// Closings given up.
    pub given_up: u64,
}

impl Course {
    fn add(&mut self, mean: f64, happened: Happened, tunnels: usize) {
        self.mean_ms.push((mean * 1000.0).round() / 1000.0);
        self.disturbed_routes += happened.disturbed;
        self.disturbed.push(happened.disturbed);
        let tunnels = u64::try_from(tunnels).unwrap_or(u64::MAX);
        self.replaced_share
            .push((share(happened.closed, tunnels) * 1e5).round() / 1e5);
        self.dials += happened.dials;
        self.refused_dials += happened.refused;
        self.given_up += happened.given_up;
    }
}

/// The last line of the output.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The mean length of the shortest paths if every node forwarded for all others: the lower
    /// bound.
    pub optimum_ms: f64,
    /// Mean round trip without an overlay.
    pub direct_ms: f64,
    /// The results by the policy's name.
    pub policies: BTreeMap<&'static str, Course>,
}

/// Pure latency: ten units of metric a millisecond, nothing for a hop.
pub const LATENCY: LinkCost = LinkCost {
    hop: 0,
    rtt_min: Duration::ZERO,
    rtt_max: Duration::from_micros(6_553_000),
    max_penalty: 65_530,
};

/// The policies, ours first.
pub const POLICIES: [&str; 3] = ["warren", "fewest-routes", "random"];

/// Runs all policies on that space; `cost` is [`LATENCY`] or Babel's.
pub fn compare(space: &Space, plan: Plan, cost: LinkCost, policies: &[&'static str]) -> Comparison {
    let (direct_ms, optimum_ms) = space.bounds();
    let per_ms = if cost == LATENCY { 10.0 } else { 1.0 };
    let mut progress = Progress::new("compare", policies.len() * plan.rounds);
    let course = |policy: &&'static str| {
        let overlay = Overlay::random(space, plan.limits, cost, &mut Rng::new(plan.seed));
        let mut course = match *policy {
            "warren" => ours(space, overlay, plan, cost, per_ms, &mut progress),
            "fewest-routes" => ruled(
                space,
                overlay,
                plan,
                Rule::FewestRoutes,
                per_ms,
                &mut progress,
            ),
            _ => ruled(space, overlay, plan, Rule::Random, per_ms, &mut progress),
        };
        // Round 0 has replaced nothing.
        course.replaced_share.remove(0);
        course.disturbed.remove(0);
        (*policy, course)
    };
    Comparison {
        optimum_ms,
        direct_ms,
        policies: policies.iter().map(course).collect(),
    }
}

fn ours(
    space: &Space,
    overlay: Overlay,
    plan: Plan,
    cost: LinkCost,
    per_ms: f64,
    progress: &mut Progress,
) -> Course {
    let settings = NetSettings {
        cost,
        targets: space.nodes(),
        parts: PARTS,
        seed: plan.seed,
    };
    let mut net = Net::new(space.clone(), overlay, settings);
    let mut course = Course::default();
    course.add(
        net.paths().mean(|_| true).0 / per_ms,
        Happened::default(),
        net.overlay.count(),
    );
    for _ in 0..plan.rounds {
        let happened = net.round();
        course.add(
            net.paths().mean(|_| true).0 / per_ms,
            happened,
            net.overlay.count(),
        );
        progress.step();
    }
    course
}

fn ruled(
    space: &Space,
    overlay: Overlay,
    plan: Plan,
    rule: Rule,
    per_ms: f64,
    progress: &mut Progress,
) -> Course {
    let mut net = Ruled::new(space.clone(), overlay, rule, plan.seed);
    let mut course = Course::default();
    course.add(
        net.paths().mean(|_| true).0 / per_ms,
        Happened::default(),
        net.overlay.count(),
    );
    for _ in 0..plan.rounds {
        let happened = net.round();
        course.add(
            net.paths().mean(|_| true).0 / per_ms,
            happened,
            net.overlay.count(),
        );
        progress.step();
    }
    course
}

/// A table of chosen rounds.
pub fn table(comparison: &Comparison, unit: &str) -> String {
    let rounds = comparison
        .policies
        .values()
        .map(|course| course.mean_ms.len())
        .max()
        .unwrap_or(1);
    let chosen = [0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000];
    let chosen: Vec<usize> = chosen.into_iter().filter(|round| *round < rounds).collect();
    let mut header = vec![format!("mean {unit} after round")];
    header.extend(chosen.iter().map(usize::to_string));
    header.extend([
        "disturbed".to_owned(),
        "replaced/round, second half".to_owned(),
        "dials refused".to_owned(),
    ]);
    let row = |(name, course): (&&'static str, &Course)| {
        let mut row = vec![(*name).to_owned()];
        let at = |round: &usize| {
            course
                .mean_ms
                .get(*round)
                .map_or(String::new(), |mean| format!("{mean:.1}"))
        };
        row.extend(chosen.iter().map(at));
        let second_half = course
            .replaced_share
            .get(course.replaced_share.len() / 2..)
            .unwrap_or_default();
        let max_share = second_half.iter().copied().fold(0.0, f64::max);
        row.push(course.disturbed_routes.to_string());
        row.push(format!("at most {:.1} %", max_share * 100.0));
        row.push(format!("{} of {}", course.refused_dials, course.dials));
        row
    };
    output::table(&header, comparison.policies.iter().map(row))
}

/// The courses as a plot.
pub fn plot(comparison: &Comparison) -> String {
    let points = |course: &Course| {
        (0u64..)
            .zip(&course.mean_ms)
            .map(|(round, mean)| (real(round), *mean))
            .collect()
    };
    let mut series: Vec<_> = comparison
        .policies
        .iter()
        .map(|(name, course)| Series {
            name: (*name).to_owned(),
            points: points(course),
        })
        .collect();
    let last = series
        .iter()
        .flat_map(|series| series.points.last())
        .map(|point| point.0)
        .fold(0.0, f64::max);
    let flat = vec![(0.0, comparison.optimum_ms), (last, comparison.optimum_ms)];
    series.push(Series {
        name: "optimum".to_owned(),
        points: flat,
    });
    output::svg("Mean latency of the overlay", "round", "ms", &series)
}

/// Each round of each policy, a line.
pub fn csv(comparison: &Comparison) -> String {
    let mut text = "policy,round,mean_ms,replaced_share,disturbed_routes\n".to_owned();
    for (name, course) in &comparison.policies {
        let replaced = std::iter::once(&0.0).chain(&course.replaced_share);
        let disturbed = std::iter::once(&0).chain(&course.disturbed);
        for (round, ((mean, replaced), disturbed)) in course
            .mean_ms
            .iter()
            .zip(replaced)
            .zip(disturbed)
            .enumerate()
        {
            text.push_str(&format!("{name},{round},{mean},{replaced},{disturbed}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(seed: u64) -> Comparison {
        let plan = Plan {
            limits: Limits {
                dial: 4,
                degree: 12,
            },
            rounds: 6,
            seed,
        };
        compare(&Space::synthetic(60, 1), plan, LATENCY, &POLICIES)
    }

    #[track_caller]
    fn check(comparison: &Comparison, name: &str) -> (f64, f64) {
        let course = &comparison.policies[name];
        assert_eq!((course.mean_ms.len(), course.replaced_share.len()), (7, 6));
        assert!(
            course
                .mean_ms
                .iter()
                .all(|mean| *mean >= comparison.optimum_ms)
        );
        (course.mean_ms[0], course.mean_ms[6])
    }

    #[test]
    fn ours_is_better_than_the_fewest_routes_rule_and_that_is_better_than_chance() {
        let comparison = small(1);
        let (start, warren) = check(&comparison, "warren");
        let (same, fewest) = check(&comparison, "fewest-routes");
        let (_, random) = check(&comparison, "random");
        assert!(start == same && warren < fewest && fewest < random && warren < start * 0.8);
    }

    #[test]
    fn the_same_seed_gives_the_same_course() {
        let plan = |seed| Plan {
            limits: Limits { dial: 3, degree: 9 },
            rounds: 3,
            seed,
        };
        let space = Space::synthetic(30, 1);
        let courses = |seed| {
            serde_json::to_string(&compare(&space, plan(seed), LATENCY, &POLICIES).policies)
                .unwrap()
        };
        assert_eq!(courses(1), courses(1));
        assert_ne!(courses(1), courses(2));
    }
}
