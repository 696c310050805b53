//! Runs a network of planners through churn, deaths, partitions, flapping peers and liars.

use crate::{
    chance::{below, sample, unit},
    net::{Happened, Net},
    num::{index, many, number, real, round_to_u32, share},
    output::Progress,
    paths::Paths,
};
use policies::rng::Rng;
use serde::Serialize;

/// The faults of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// The number of refreshes.
    pub rounds: u64,
    /// The share of the nodes that fail in each round, and start again in the next.
    pub churn: f64,
    /// In that round so many of the nodes (a share) die for good.
    pub mass_death: Option<(u64, f64)>,
    /// The first round of a partition into two halves, and its length in rounds.
    pub partition: Option<(u64, u64)>,
    /// Share of the nodes that lose all their tunnels in every second round, at random.
    pub flapping: f64,
}

/// The results of one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    /// The number of the round.
    pub round: u64,
    /// The mean length of the shortest paths between living nodes.
    pub mean: f64,
    /// The share of the pairs of living nodes that have no path.
    pub torn: f64,
    /// The number of tunnels.
    pub tunnels: usize,
    /// The number of tunnels closed by plan.
    pub closed: u64,
    /// The number of dials that were given up.
    pub given_up: u64,
    /// Dials, and those that were refused because the peer was full.
    pub dials: u64,
    /// The dials that the peer refused.
    pub refused: u64,
    /// The number of paths that used a tunnel when it was closed.
    pub disturbed: u64,
}

/// The results of all rounds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Course {
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Each round, the state before the first at the front.
    pub rounds: Vec<Round>,
    /// The largest number of planned closes on one slot within any hour.
    pub max_closings_per_slot_and_hour: usize,
    /// Dials that were refused, as a part of all.
    pub refused_share: f64,
    /// The largest number of tunnels of one node at the end of any round, as a share of its limit.
    pub fullest: f64,
    /// The paths that end at a liar instead of their target, as a share of all: before the first
    /// round, and at the
    /// end.
    pub through_liars: (f64, f64),
}

/// Runs all rounds with their faults.
pub fn run(net: &mut Net, fate: Fate, seed: u64, per_ms: f64) -> Course {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let nodes = net.space.nodes();
    let mut progress = Progress::new("run", usize::try_from(fate.rounds).unwrap_or(usize::MAX));
    let flappers: Vec<_> = some(&mut rng, nodes, fate.flapping);
    let mut course = Course {
        nodes,
        ..Course::default()
    };
    let paths = net.paths();
    course.through_liars.0 = through_liars(net, &paths);
    course
        .rounds
        .push(summarize(net, &paths, 0, Happened::default(), per_ms));
    let mut gone: Vec<u32> = Vec::new();
    for round in 1..=fate.rounds {
        let back = std::mem::take(&mut gone);
        if let Some((_, dying)) = fate.mass_death.filter(|(at, _)| *at == round) {
            for node in some(&mut rng, nodes, dying) {
                net.die(node);
            }
        }
        if let Some((from, length)) = fate.partition {
            if from == round {
                net.part_in_two((0..nodes).map(|_| below(&mut rng, 2) == 1).collect());
            } else if from + length == round {
                net.sides = None;
            }
        }
        for node in some(&mut rng, nodes, fate.churn) {
            if net.lives(node) {
                net.die(node);
                gone.push(node);
            }
        }
        back.into_iter().for_each(|node| net.start(node));
        for node in &flappers {
            if net.lives(*node) && unit(&mut rng) < 0.5 {
                net.overlay.isolate(*node);
            }
        }
        let happened = net.round();
        let paths = net.paths();
        course
            .rounds
            .push(summarize(net, &paths, round, happened, per_ms));
        course.fullest = course.fullest.max(fullest(net));
        if round == fate.rounds {
            course.through_liars.1 = through_liars(net, &paths);
        }
        progress.step();
    }
    course.max_closings_per_slot_and_hour = net.max_closings_per_hour();
    let sum = |what: fn(&Round) -> u64| course.rounds.iter().map(what).sum::<u64>();
    course.refused_share = share(sum(|round| round.refused), sum(|round| round.dials));
    course
}

/// A share of all nodes, at random.
fn some(rng: &mut Rng, nodes: usize, share: f64) -> Vec<u32> {
    let count = index(round_to_u32(many(nodes) * share));
    sample(rng, nodes, count).into_iter().map(number).collect()
}

fn summarize(net: &Net, paths: &Paths, round: u64, happened: Happened, per_ms: f64) -> Round {
    let (mean, torn) = paths.mean(|node| net.lives(node));
    let Happened {
        closed,
        given_up,
        disturbed,
        dials,
        refused,
    } = happened;
    let tunnels = net.overlay.count();
    Round {
        round,
        mean: mean / per_ms,
        torn,
        tunnels,
        closed,
        given_up,
        dials,
        refused,
        disturbed,
    }
}

fn fullest(net: &Net) -> f64 {
    let part = |node: u32| {
        many(net.overlay.links(node).len()) / many(net.overlay.limits().degree).max(1.0)
    };
    (0..number(net.space.nodes())).map(part).fold(0.0, f64::max)
}

/// The paths that a liar draws to itself: if the path to the target is longer than that to a liar,
/// the liar's announcement wins.
fn through_liars(net: &Net, paths: &Paths) -> f64 {
    let (mut caught, mut all) = (0u64, 0u64);
    if net.liars.is_empty() {
        return 0.0;
    }
    for (place, target) in paths
        .targets()
        .iter()
        .enumerate()
        .filter(|(_, to)| !net.liars.contains(to))
    {
        for node in (0..number(net.space.nodes())).filter(|node| node != target) {
            let end = paths.end(node, place);
            all += u64::from(end != node);
            caught += u64::from(end != node && net.liars.contains(&end));
        }
    }
    share(caught, all)
}

/// Each round, a line.
pub fn csv(course: &Course) -> String {
    let mut text = "round,mean,torn,tunnels,closed,given_up,dials,refused,disturbed\n".to_owned();
    for round in &course.rounds {
        let Round {
            round,
            mean,
            torn,
            tunnels,
            closed,
            given_up,
            dials,
            refused,
            disturbed,
        } = round;
        text.push_str(&format!(
            "{round},{mean:.3},{torn:.6},{tunnels},{closed},{given_up},{dials},{refused},{disturbed}\n"
        ));
    }
    text
}

/// A table of at most thirty rounds.
pub fn table(course: &Course, unit: &str) -> String {
    let header = [
        "round", unit, "torn", "tunnels", "closed", "given up", "dials", "refused",
    ]
    .map(str::to_owned);
    let step = course.rounds.len().div_ceil(30).max(1);
    let last = course.rounds.len().saturating_sub(1);
    let shown = course
        .rounds
        .iter()
        .enumerate()
        .filter(|(at, _)| at % step == 0 || *at == last);
    let row = |(_, round): (usize, &Round)| {
        vec![
            round.round.to_string(),
            format!("{:.1}", round.mean),
            format!("{:.4} %", round.torn * 100.0),
            round.tunnels.to_string(),
            format!(
                "{} ({:.1} %)",
                round.closed,
                real(round.closed) / many(round.tunnels).max(1.0) * 100.0
            ),
            round.given_up.to_string(),
            round.dials.to_string(),
            round.refused.to_string(),
        ]
    };
    crate::output::table(&header, shown.map(row))
}

/// The maximum memory of this process so far, in bytes; `None` if the kernel does not say.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::LATENCY,
        net::NetSettings,
        overlay::{Limits, Overlay},
        space::Space,
    };

    /// 40 nodes live through it; the course, and the share of pairs torn at the end.
    #[track_caller]
    fn check(fate: Fate, torn: f64) -> Course {
        let space = Space::synthetic(40, 1);
        let limits = Limits {
            dial: 4,
            degree: 14,
        };
        let overlay = Overlay::random(&space, limits, LATENCY, &mut Rng::new(1));
        let settings = NetSettings {
            cost: LATENCY,
            targets: 40,
            parts: 4,
            seed: 1,
        };
        let mut net = Net::new(space, overlay, settings);
        let course = run(&mut net, fate, 1, 10.0);
        assert_eq!(
            course.rounds.len(),
            usize::try_from(fate.rounds).unwrap() + 1
        );
        assert!(
            course.fullest <= 1.0 && course.max_closings_per_slot_and_hour <= 2,
            "{course:?}"
        );
        assert_eq!(course.rounds.last().unwrap().torn, torn);
        course
    }

    #[test]
    fn a_network_lives_through_churn_and_flapping_peers() {
        check(
            Fate {
                rounds: 14,
                churn: 0.02,
                flapping: 0.05,
                ..Fate::default()
            },
            0.0,
        );
    }

    #[test]
    fn survivors_reconnect_after_half_of_the_nodes_died() {
        let course = check(
            Fate {
                rounds: 8,
                mass_death: Some((2, 0.5)),
                ..Fate::default()
            },
            0.0,
        );
        assert!(course.rounds.last().unwrap().tunnels >= 20 * 4 - 10);
    }

    #[test]
    fn two_halves_merge_after_a_partition() {
        let course = check(
            Fate {
                rounds: 12,
                partition: Some((3, 3)),
                ..Fate::default()
            },
            0.0,
        );
        assert!(course.rounds[4].torn > 0.4, "{course:?}");
    }
}
