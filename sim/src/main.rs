//! `warren-sim`: the policies of the daemon on simulated networks, deterministic by seed.

mod chance;
mod compare;
mod distance;
mod net;
mod num;
mod output;
mod overlay;
mod paths;
mod replay;
mod resilience;
mod rotate;
mod rules;
mod run;
mod run_command;
mod space;
mod tables;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use overlay::Limits;
use policies::{link_cost::LinkCost, rng::Rng};
use run_command::Run;
use space::Space;
use std::{path::PathBuf, time::Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates networks of nodes that decide by warren's own policies.
#[derive(Parser)]
#[command(name = "warren-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Let several policies improve the same random overlay, side by side.
    Compare(Compare),
    /// Count hops in random overlays: re6stnet's table.
    Distance(Distance),
    /// Kill a part of all nodes at once: who of the others can still talk?
    Resilience(Resilience),
    /// Let a network live through churn, deaths, partitions, flapping peers and liars.
    Run(Run),
    /// Replace the CA of a network: how long do the rolling restarts take?
    Rotate(rotate::Rotate),
    /// Ask the planner what it would have ordered at a real node, by a recording of what that node saw.
    Replay(replay::Replay),
}

/// The positions of the nodes.
#[derive(Args)]
struct Place {
    /// Square matrix of round trips in milliseconds, one row a line.
    #[arg(long, value_name = "FILE", conflicts_with = "synthetic")]
    latency: Option<PathBuf>,
    /// So many nodes in a made-up space with clusters, access delays and detours.
    #[arg(long, value_name = "NODES", default_value_t = 490)]
    synthetic: usize,
    /// Chance; the same seed gives the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Place {
    fn space(&self) -> anyhow::Result<Space> {
        match &self.latency {
            Some(path) => Space::read(path),
            None => Ok(Space::synthetic(self.synthetic.max(2), self.seed)),
        }
    }
}

/// The number of tunnels of a node.
#[derive(Args)]
struct Degree {
    /// Tunnels that a node dials.
    #[arg(long, default_value_t = 10)]
    k: usize,
    /// Most tunnels of a node, dialled and accepted.
    #[arg(long, default_value_t = 40)]
    max_degree: usize,
}

impl Degree {
    fn limits(&self) -> Limits {
        Limits {
            dial: self.k,
            degree: self.max_degree,
        }
    }
}

/// The cost of a path.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Model {
    /// The sum of round trips.
    Latency,
    /// Babel's metric: 96 a hop, a penalty for round trips from 10 to 500 ms.
    Babel,
    /// One after the other; JSON, CSV and plot are of latency.
    Both,
}

#[derive(Args)]
struct Compare {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    degree: Degree,
    /// The number of refreshes.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// The cost of a path.
    #[arg(long, value_enum, default_value_t = Model::Both)]
    model: Model,
    /// Runs only this policy.
    #[arg(long, value_parser = compare::POLICIES)]
    only: Option<String>,
    /// One line of JSON at the end.
    #[arg(long)]
    json: bool,
    /// Write each round as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a plot.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Compare {
    fn run(&self) -> anyhow::Result<()> {
        let space = self.place.space()?;
        let plan = compare::Plan {
            limits: self.degree.limits(),
            rounds: self.rounds,
            seed: self.place.seed,
        };
        let wanted = |name: &&'static str| self.only.as_ref().is_none_or(|only| only == *name);
        let policies: Vec<_> = compare::POLICIES.into_iter().filter(wanted).collect();
        if self.model != Model::Latency {
            let babel = compare::compare(&space, plan, LinkCost::default(), &policies);
            output::say(&compare::table(&babel, "metric"))?;
        }
        if self.model == Model::Babel {
            return Ok(());
        }
        let latency = compare::compare(&space, plan, compare::LATENCY, &policies);
        output::say(&compare::table(&latency, "ms"))?;
        output::say(&format!(
            "optimum {:.2} ms, direct {:.2} ms",
            latency.optimum_ms, latency.direct_ms
        ))?;
        write(self.csv.as_ref(), || compare::csv(&latency))?;
        write(self.svg.as_ref(), || compare::plot(&latency))?;
        if self.json {
            output::say(&serde_json::to_string(&latency)?)?;
        }
        Ok(())
    }
}

#[derive(Args)]
struct Distance {
    /// The number of nodes.
    #[arg(long)]
    nodes: usize,
    /// The number of nodes that each node dials.
    #[arg(long)]
    k: usize,
    /// Chance; the same seed gives the same overlay.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One line of JSON at the end.
    #[arg(long)]
    json: bool,
}

impl Distance {
    fn run(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.nodes >= 2 && self.k >= 1,
            "at least two nodes that dial one"
        );
        anyhow::ensure!(
            self.nodes.saturating_mul(self.k) <= 1 << 30,
            "more than 2^30 tunnels"
        );
        let began = Instant::now();
        let found = distance::distance(self.nodes, self.k, self.seed, paths::threads());
        output::say(&format!(
            "{} nodes that dial {}: mean {:.4} ± {:.4} hops, at most {}, torn {:.4} %",
            found.nodes,
            found.k,
            found.mean_hops,
            found.interval,
            found.max_hops,
            found.torn * 100.0
        ))?;
        cost(began)?;
        if self.json {
            output::say(&serde_json::to_string(&found)?)?;
        }
        Ok(())
    }
}

#[derive(Args)]
struct Resilience {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    degree: Degree,
    /// Refreshes before the deaths.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Deaths of each network for each share.
    #[arg(long, default_value_t = 100)]
    trials: usize,
    /// Networks of each policy.
    #[arg(long, default_value_t = 3)]
    networks: u64,
    /// One line of JSON at the end.
    #[arg(long)]
    json: bool,
    /// Write a plot.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Resilience {
    fn run(&self) -> anyhow::Result<()> {
        let Self {
            rounds,
            trials,
            networks,
            ..
        } = *self;
        let (limits, seed) = (self.degree.limits(), self.place.seed);
        let plan = resilience::Plan {
            limits,
            rounds,
            trials,
            networks,
            seed,
        };
        let rows = resilience::resilience(&self.place.space()?, plan);
        output::say(
            "chance that two living nodes cannot talk, with its confidence interval of 95 %",
        )?;
        output::say(&resilience::table(&rows))?;
        write(self.svg.as_ref(), || resilience::plot(&rows))?;
        if self.json {
            output::say(&serde_json::to_string(&rows)?)?;
        }
        Ok(())
    }
}

/// Parses a pair of numbers, written `A:B`.
fn pair<T: std::str::FromStr>(text: &str) -> Result<(u64, T), String> {
    let parse = || {
        let (first, second) = text.split_once(':')?;
        Some((first.parse().ok()?, second.parse().ok()?))
    };
    parse().ok_or_else(|| format!("not two numbers with a colon between: {text:?}"))
}

/// Prints the time that the run took and the most memory that it used.
fn cost(began: Instant) -> anyhow::Result<()> {
    let mebibytes =
        run::peak_memory().map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    output::say(&format!(
        "took {:.1} s, at most {mebibytes}",
        began.elapsed().as_secs_f64()
    ))
}

fn write(path: Option<&PathBuf>, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    match path {
        Some(path) => {
            std::fs::write(path, text()).with_context(|| format!("cannot write {}", path.display()))
        }
        None => Ok(()),
    }
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Compare(compare) => compare.run(),
        Command::Distance(distance) => distance.run(),
        Command::Resilience(resilience) => resilience.run(),
        Command::Run(run) => run.run(),
        Command::Rotate(rotate) => rotate.run(),
        Command::Replay(replay) => replay.run(),
    }
}
