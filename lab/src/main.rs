//! The command `warren-lab`: builds a network on this machine, shows it, and measures it.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lab::{
    Options, demo, lab_run,
    measure::{self, recover::Fault, rotate::Change, tell},
};
use serde::Serialize;
use std::{io::Write, process::ExitCode};

/// A whole network in namespaces on this machine, with real processes. Needs root.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build a network and leave it running until Ctrl-C.
    Up {
        /// How many nodes.
        #[arg(long, default_value_t = 8)]
        nodes: usize,
        /// Tunnels that each node dials.
        #[arg(long)]
        dial: Option<u16>,
        /// Leave the files of the run behind.
        #[arg(long)]
        keep: bool,
    },
    /// Show what a network does, and what was measured.
    Demo {
        /// Stay until Ctrl-C, to look around.
        #[arg(long)]
        keep: bool,
    },
    /// Measure one thing. The last line of the output is JSON.
    Measure {
        #[command(subcommand)]
        what: What,
    },
    /// Remove what dead runs have left.
    Clean,
}

#[derive(Subcommand)]
enum What {
    /// From starting all nodes at once until every pair answers.
    Converge {
        /// How many nodes.
        #[arg(long, default_value_t = 8)]
        nodes: usize,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// Memory, CPU and bytes of a network that carries nothing.
    Idle {
        /// How many nodes.
        #[arg(long, default_value_t = 8)]
        nodes: usize,
        /// How long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// Packets lost by planned closings.
    Drain {
        /// Closings by planners that are waited for.
        #[arg(long, default_value_t = 10)]
        closings: usize,
        /// Nodes that are stopped orderly afterwards.
        #[arg(long, default_value_t = 3)]
        stops: usize,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// Certificates that one token gives to many who claim at once.
    ClaimRace {
        /// How many claims.
        #[arg(long, default_value_t = 50)]
        claims: usize,
        /// How often; half of the rounds kill the registry meanwhile.
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// Wrong tokens that are taken, and how many can be tried.
    Guess {
        /// Wrong tokens with the limits off.
        #[arg(long, default_value_t = 1_000_000)]
        guesses: u64,
        /// How long each attacker tries with the limits on.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// Certificates lost or doubled by a registry that is killed at random moments.
    RegistryCrash {
        /// Certificates to be issued.
        #[arg(long, default_value_t = 10_000)]
        issues: usize,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// Good claims and renewals a second among slow connections and hostile requests.
    RegistryLoad {
        /// Slow connections.
        #[arg(long, default_value_t = 200)]
        slow: usize,
        /// Odd requests.
        #[arg(long, default_value_t = 100_000)]
        odd: u64,
        /// How long good claims are made.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// Mean round trips between nodes that lie unequally far apart, before and after some rounds of the
    /// policy, and beside chance.
    Rtt {
        /// How many nodes.
        #[arg(long, default_value_t = 12)]
        nodes: usize,
        /// Refreshes between before and after.
        #[arg(long, default_value_t = 10)]
        rounds: u32,
        /// What the round trips between the nodes are drawn by.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// By which kind of link three nodes accept tunnels here.
    Slots {
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// How soon a newcomer gets its first answer.
    Join {
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// Thirty days without the registry, in scaled time.
    RegistryAway {
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// What is lost while certificates, the CA and keys are changed.
    Rotate {
        /// What is changed, in this order.
        #[arg(long = "only", value_enum, value_delimiter = ',', default_values = ["certificates", "ca", "tls-crypt", "babel"])]
        changes: Vec<Change>,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// How soon a revoked node is gone, and what the others lose.
    Revoke {
        /// How many nodes.
        #[arg(long, default_value_t = 16)]
        nodes: usize,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
    /// Time without each other after a sudden death.
    Recover {
        /// What dies.
        #[arg(long, value_enum)]
        fault: Fault,
        /// JSON only.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match done(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What failed because a signal takes the lab down is no failure of its own.
            lab::signal_cleanup::end_if_interrupted();
            // Nobody who closed our stderr wants to hear of it.
            writeln!(std::io::stderr(), "warren-lab: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn done(verb: Verb) -> Result<()> {
    match verb {
        Verb::Up { nodes, dial, keep } => up(nodes, dial, keep),
        Verb::Demo { keep } => demo::show(keep),
        Verb::Measure { what } => measured(what),
        Verb::Clean => {
            for name in lab_run::clean() {
                print(format!("removed what run {name} had left"))?;
            }
            Ok(())
        }
    }
}

fn up(nodes: usize, dial: Option<u16>, keep_files: bool) -> Result<()> {
    let dial = dial.or(Some(measure::dial(nodes)));
    let lab = measure::prepare(Options {
        nodes,
        dial,
        keep_files,
        ..Options::default()
    })?;
    measure::start_whole(&lab)?;
    for line in demo::how_to_look_around(&lab) {
        tell(line);
    }
    demo::stay()
}

fn measured(what: What) -> Result<()> {
    match what {
        What::Converge { nodes, json } => result(&measure::converge::measure(nodes)?, json),
        What::Idle {
            nodes,
            seconds,
            json,
        } => result(&measure::idle::measure(nodes, seconds)?, json),
        What::Drain {
            closings,
            stops,
            json,
        } => result(&measure::drain::measure(closings, stops)?, json),
        What::ClaimRace {
            claims,
            rounds,
            json,
        } => result(&measure::claim_race::measure(claims, rounds)?, json),
        What::Guess {
            guesses,
            seconds,
            json,
        } => result(&measure::token_guessing::measure(guesses, seconds)?, json),
        What::RegistryCrash { issues, json } => {
            result(&measure::registry_crash::measure(issues)?, json)
        }
        What::RegistryLoad {
            slow,
            odd,
            seconds,
            json,
        } => result(&measure::registry_load::measure(slow, odd, seconds)?, json),
        What::Rtt {
            nodes,
            rounds,
            seed,
            json,
        } => result(&measure::rtt::measure(nodes, rounds, seed)?, json),
        What::Slots { json } => result(&measure::accepting_slots::measure()?, json),
        What::Join { json } => result(&measure::join::measure()?, json),
        What::RegistryAway { json } => result(&measure::registry_outage::measure()?, json),
        What::Rotate { changes, json } => result(&measure::rotate::measure(&changes)?, json),
        What::Revoke { nodes, json } => result(&measure::revoke::measure(nodes)?, json),
        What::Recover { fault, json } => result(&measure::recover::measure(fault)?, json),
    }
}

/// JSON as the last line; for people, each figure on a line of its own before.
fn result(result: &impl Serialize, json: bool) -> Result<()> {
    let value = serde_json::to_value(result).context("the result is no JSON")?;
    if let (false, Some(figures)) = (json, value.as_object()) {
        for (name, figure) in figures {
            print(format!("{name}: {figure}"))?;
        }
    }
    print(serde_json::to_string(result).context("the result is no JSON")?)
}

fn print(line: String) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to the standard output")
}
