//! Kills a share of all nodes at once, and counts the others that still reach each other before
//! any repair.

use crate::{
    chance::{interval, sample},
    compare::LATENCY,
    net::{Net, NetSettings, PARTS},
    num::{index, many, number, share},
    output::{self, Progress, Series},
    overlay::{Limits, Overlay},
    rules::{Rule, Ruled},
    space::Space,
};
use policies::rng::Rng;
use serde::Serialize;

/// The settings of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Limits of each node.
    pub limits: Limits,
    /// Refreshes before the death.
    pub rounds: usize,
    /// Deaths for each share that lives.
    pub trials: usize,
    /// Networks that each policy makes of different random overlays.
    pub networks: u64,
    /// The seed of the random numbers.
    pub seed: u64,
}

/// One share that lives: for each policy the chance that two living nodes cannot talk, and half the
/// width of its confidence interval.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The share of nodes that are alive.
    pub alive: f64,
    /// Left as chance made it.
    pub random: (f64, f64),
    /// The results of warren's overlay.
    pub warren: (f64, f64),
    /// The fewest-routes rule.
    pub fewest_routes: (f64, f64),
    /// Ours less random, death by death; its interval.
    pub difference: (f64, f64),
}

/// The chance that two of the living nodes cannot talk.
fn torn(overlay: &Overlay, alive: &[bool]) -> f64 {
    let lives = |node: u32| alive.get(index(node)).copied().unwrap_or_default();
    let mut seen = vec![false; overlay.nodes()];
    let (mut living, mut together) = (0u64, 0u64);
    for node in (0..number(overlay.nodes())).filter(|node| lives(*node)) {
        living += 1;
        let mut size = 0u64;
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            let Some(place) = seen.get_mut(index(node)).filter(|place| !**place) else {
                continue;
            };
            *place = true;
            size += 1;
            open.extend(
                overlay
                    .links(node)
                    .iter()
                    .map(|(far, _)| *far)
                    .filter(|far| lives(*far)),
            );
        }
        together += size * size.saturating_sub(1);
    }
    1.0 - if living < 2 {
        1.0
    } else {
        share(together, living * (living - 1))
    }
}

/// The overlays that the policies make of one random overlay: random, ours, fewest routes.
fn overlays(space: &Space, plan: Plan, seed: u64, progress: &mut Progress) -> [Overlay; 3] {
    let random = Overlay::random(space, plan.limits, LATENCY, &mut Rng::new(seed));
    let settings = NetSettings {
        cost: LATENCY,
        targets: space.nodes().min(512),
        parts: PARTS,
        seed,
    };
    let mut ours = Net::new(space.clone(), random.clone(), settings);
    let mut fewest = Ruled::new(space.clone(), random.clone(), Rule::FewestRoutes, seed);
    for _ in 0..plan.rounds {
        ours.round();
        fewest.round();
        progress.step();
    }
    [random, ours.overlay, fewest.overlay]
}

/// All shares from 20 % to 90 %.
pub fn resilience(space: &Space, plan: Plan) -> Vec<Row> {
    let networks = usize::try_from(plan.networks).unwrap_or(1);
    let mut progress = Progress::new("resilience", plan.rounds * networks);
    let made: Vec<_> = (0..plan.networks)
        .map(|at| overlays(space, plan, plan.seed + at, &mut progress))
        .collect();
    let row = |percent: usize| {
        let mut rng = Rng::new(plan.seed ^ u64::from(number(percent)) << 32);
        let mut chances: [Vec<f64>; 3] = Default::default();
        let mut differences = Vec::new();
        for overlays in &made {
            for _ in 0..plan.trials {
                let mut alive = vec![false; space.nodes()];
                for node in sample(&mut rng, space.nodes(), space.nodes() * percent / 100) {
                    if let Some(place) = alive.get_mut(node) {
                        *place = true;
                    }
                }
                let [random, ours, fewest] =
                    overlays.each_ref().map(|overlay| torn(overlay, &alive));
                differences.push(ours - random);
                for (all, one) in chances.iter_mut().zip([random, ours, fewest]) {
                    all.push(one);
                }
            }
        }
        let [random, warren, fewest_routes] = chances.map(|all| interval(&all));
        Row {
            alive: many(percent) / 100.0,
            random,
            warren,
            fewest_routes,
            difference: interval(&differences),
        }
    };
    (2..=9).map(|tenth| row(tenth * 10)).collect()
}

/// One line a share.
pub fn table(rows: &[Row]) -> String {
    let header = [
        "alive",
        "random",
        "warren",
        "fewest-routes",
        "warren - random",
    ]
    .map(str::to_owned);
    let shown =
        |(mean, interval): (f64, f64)| format!("{:.4} ± {:.4} %", mean * 100.0, interval * 100.0);
    let row = |row: &Row| {
        let all = [row.random, row.warren, row.fewest_routes, row.difference].map(shown);
        std::iter::once(format!("{:.0} %", row.alive * 100.0))
            .chain(all)
            .collect()
    };
    output::table(&header, rows.iter().map(row))
}

/// The chances as a plot.
pub fn plot(rows: &[Row]) -> String {
    let series = |name: &str, chance: fn(&Row) -> f64| Series {
        name: name.to_owned(),
        points: rows.iter().map(|row| (row.alive, chance(row))).collect(),
    };
    let all = [
        series("random", |row| row.random.0),
        series("warren", |row| row.warren.0),
        series("fewest-routes", |row| row.fewest_routes.0),
    ];
    output::svg(
        "Two living nodes cannot talk",
        "share alive",
        "chance",
        &all,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tunnels: &[(u32, u32)], alive: &[bool], expected: f64) {
        let space = Space::synthetic(alive.len(), 1);
        let mut overlay = Overlay::new(alive.len(), Limits { dial: 9, degree: 9 }, LATENCY);
        for (a, b) in tunnels {
            assert!(overlay.dial(&space, *a, *b, policies::units::Uptime::default()));
        }
        assert!((torn(&overlay, alive) - expected).abs() < 1e-9);
    }

    #[test]
    fn two_nodes_cannot_talk_where_no_living_node_joins_them() {
        let line = [(0, 1), (1, 2), (2, 3)];
        check(&line, &[true; 4], 0.0);
        check(&line, &[true, false, true, true], 2.0 / 3.0);
        check(&line, &[true, false, false, false], 0.0);
        check(&[], &[true, true], 1.0);
    }
}
