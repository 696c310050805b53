//! The command `rotate`: simulates how long a whole change of the CA takes, with the daemon's rolling restarts and restart locks.
//!
//! Every drain ends, since a node has other routes as soon as a drain has started; so no drain is given up. The tunnels are those
//! of a random overlay, and do not change.

mod node;
mod routes;
mod world;

use crate::{
    Degree, chance, cost,
    num::{index, many, number},
    output,
    overlay::Overlay,
    space::Space,
};
use anyhow::Context;
use clap::Args;
use policies::{
    link_cost::LinkCost, names::Prefix, rng::Rng, rolling_restart::FilesChanged, units::Uptime,
};
use std::time::{Duration, Instant};
use world::{Counts, World};

/// The length of all prefixes.
const PREFIX_LENGTH: u8 = 20;
/// From a command at the registry until a node has the document.
const DOCUMENT_DELAY: Duration = Duration::from_secs(2);
/// A renewal at the registry takes this long.
const RENEWAL_TIME: Duration = Duration::from_secs(1);
/// Spread of restarts and renewals for each node of the network, and the longest one, as in the daemon.
const SPREAD: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(600));
/// A drain of seven hellos, a wait of 15 s for the peers, and the calls for the locks.
const LONGEST_RESTART: Duration = Duration::from_secs(25);
/// A node restarts its server, and as a rule at most two groups of dialled tunnels.
const RESTARTS_PER_NODE: u32 = 3;
/// No restart is forced during the simulation.
const FORCE_AFTER: Duration = Duration::from_secs(90 * 86_400);

/// The steps of a change of the CA; whether nodes renew their certificates first.
const STEPS: [(&str, bool); 3] = [("stage", false), ("activate", true), ("retire", false)];

/// The prefix of this node.
fn prefix(node: u32) -> Prefix {
    // All nodes above the limit, which the command checks, are the same.
    Prefix::new(node, PREFIX_LENGTH).unwrap_or_else(|| prefix(0))
}

#[derive(Args)]
pub(super) struct Rotate {
    /// The number of nodes.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    #[command(flatten)]
    degree: Degree,
    /// Chance; the same seed gives the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One line of JSON at the end.
    #[arg(long)]
    json: bool,
}

/// The result of one step.
#[derive(serde::Serialize)]
struct StepResult {
    step: &'static str,
    /// Seconds after which half of the nodes were ready.
    half_s: f64,
    /// Seconds after which nine of ten nodes were ready.
    most_s: f64,
    /// Seconds after which all nodes were ready.
    all_s: f64,
    #[serde(flatten)]
    counts: Counts,
}

/// The times that a step takes at most.
#[derive(serde::Serialize)]
struct Bounds {
    /// If all neighbours of a node share its lock: each neighbour restarts once before the node.
    shared_s: f64,
    /// If none do: each node within two tunnels restarts once before the node.
    unshared_s: f64,
}

impl Bounds {
    /// The bounds for these tunnels.
    fn new(overlay: &Overlay, spread: Duration) -> Self {
        let (mut neighbours, mut within_two) = (0, 0);
        for node in 0..number(overlay.nodes()) {
            let near = overlay.links(node).iter().map(|(far, _)| *far);
            let far = near.clone().flat_map(|near| overlay.links(near));
            let mut all: Vec<_> = far.map(|(far, _)| *far).chain(near).collect();
            all.sort_unstable();
            all.dedup();
            all.retain(|other| *other != node);
            neighbours = neighbours.max(overlay.links(node).len());
            within_two = within_two.max(all.len());
        }
        let first = DOCUMENT_DELAY + RENEWAL_TIME + 2 * spread;
        let after = |others: usize| {
            let restarts = number(others + 1) * RESTARTS_PER_NODE;
            (first + LONGEST_RESTART * restarts).as_secs_f64()
        };
        Self {
            shared_s: after(neighbours),
            unshared_s: after(within_two),
        }
    }
}

impl Rotate {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (2..1 << PREFIX_LENGTH).contains(&self.nodes),
            "at least 2 nodes, and fewer than 2^{PREFIX_LENGTH}"
        );
        let (began, mut rng) = (Instant::now(), Rng::new(self.seed));
        let space = Space::synthetic(self.nodes, self.seed);
        let overlay = Overlay::random(&space, self.degree.limits(), LinkCost::default(), &mut rng);
        let (per_node, longest) = SPREAD;
        let spread = per_node.saturating_mul(number(self.nodes)).min(longest);
        let delays: Vec<_> = (0..self.nodes)
            .map(|_| spread.mul_f64(chance::unit(&mut rng)))
            .collect();
        let mut world = World::new(&space, &overlay, self.seed);
        let results = STEPS.map(|step| change(&mut world, step, &delays));
        let results: Vec<_> = results.into_iter().collect::<Result<_, _>>()?;
        let bounds = Bounds::new(&overlay, spread);
        output::say(&table(&results))?;
        let total: f64 = results.iter().map(|result| result.all_s).sum();
        let tunnels = 2.0 * many(overlay.count()) / many(self.nodes);
        output::say(&format!(
            "{} nodes with {tunnels:.1} tunnels each: {:.2} hours for all steps; bound of a step: {:.0} s if neighbours share locks, {:.0} s if none do",
            self.nodes,
            total / 3_600.0,
            bounds.shared_s,
            bounds.unshared_s
        ))?;
        cost(began)?;
        if self.json {
            output::say(&serde_json::to_string(&(&results, bounds))?)?;
        }
        Ok(())
    }
}

/// Simulates one step; `delays` are those of each node before it renews its certificate, and before its first restart.
fn change(
    world: &mut World<'_>,
    (step, is_renewed): (&'static str, bool),
    delays: &[Duration],
) -> anyhow::Result<StepResult> {
    let change = |node: u32, start: Uptime| {
        let start_after = delays.get(index(node)).copied().unwrap_or_default();
        let renewal = if is_renewed {
            start_after + RENEWAL_TIME
        } else {
            Duration::ZERO
        };
        FilesChanged {
            at: start + DOCUMENT_DELAY + renewal,
            network_version: 2,
            servers: true,
            dials: true,
            start_after,
            force_after: FORCE_AFTER,
        }
    };
    let finished = world.change_files(change);
    let (ready, counts) =
        finished.with_context(|| format!("{step}: some nodes run with old files after a day"))?;
    let after = |tenths: usize| {
        let last = ready.get((ready.len() * tenths).div_ceil(10).saturating_sub(1));
        last.map_or(0.0, Duration::as_secs_f64)
    };
    Ok(StepResult {
        step,
        half_s: after(5),
        most_s: after(9),
        all_s: after(10),
        counts,
    })
}

fn table(results: &[StepResult]) -> String {
    let header = [
        "step",
        "half ready s",
        "9 of 10 ready s",
        "all ready s",
        "servers",
        "dials",
        "lock requests",
        "rejected",
    ];
    let rows = results.iter().map(|result| {
        let counts = &result.counts;
        vec![
            result.step.to_owned(),
            format!("{:.0}", result.half_s),
            format!("{:.0}", result.most_s),
            format!("{:.0}", result.all_s),
            counts.servers.to_string(),
            counts.dials.to_string(),
            counts.requests.to_string(),
            counts.rejections.to_string(),
        ]
    });
    output::table(&header.map(str::to_owned), rows)
}
