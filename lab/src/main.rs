//! The command `warren-lab`: builds a network on this machine, shows it, and measures it.

mod measurement;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lab::{
    Lab, Options, boards, demo,
    faults::{self, Group},
    lab_run, map_page,
};
use measurement::Measurement;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Builds whole networks in namespaces on this machine, with real processes. Needs root.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build a network and leave it running until Ctrl-C.
    Up {
        /// Number of nodes.
        #[arg(long, default_value_t = 8)]
        nodes: usize,
        /// Tunnels that each node dials [default: 2, or 3 from 12 nodes on].
        #[arg(long)]
        dial: Option<u16>,
        /// Keep the files of the run, as /tmp/warren-kept-NAME.
        #[arg(long)]
        keep: bool,
    },
    /// Show what a network does: convergence, a planned closing, recovery from a fault.
    Demo {
        /// Leave the network running until Ctrl-C, to look around.
        #[arg(long)]
        keep: bool,
    },
    /// Draw the Grafana boards of a network that lives through two faults. No Grafana server is needed.
    Boards {
        /// The boards to draw [default: all of dashboards/].
        boards: Vec<PathBuf>,
        /// The folder for the pictures.
        #[arg(long, default_value = ".")]
        out: PathBuf,
    },
    /// Draw the map of a living network of five nodes, maps of made-up ones of 50 and 500, and screens of `status` and `top`.
    Map {
        /// The folder for the pictures.
        #[arg(long, default_value = ".")]
        out: PathBuf,
    },
    /// Measure one thing. The last line of the output is JSON.
    Measure {
        #[command(subcommand)]
        measurement: Measurement,
        /// Print only the JSON.
        #[arg(long, global = true)]
        json: bool,
    },
    /// Inject faults and attacks, and compare what follows with the promises; takes about half an hour.
    Faults {
        /// The groups of faults [default: all].
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<Group>,
        /// Run the long forms, such as a soak of ten minutes instead of two.
        #[arg(long)]
        long: bool,
        /// How often a member tries each lie.
        #[arg(long, default_value_t = 3)]
        tries: usize,
        /// The seed of the soak's random choices [default: a new one, which is printed].
        #[arg(long)]
        seed: Option<u64>,
        /// Write the results to this page, such as docs/RELIABILITY.md.
        #[arg(long)]
        page: Option<PathBuf>,
    },
    /// Remove what dead runs have left.
    Clean,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If a signal is removing the lab, that is why the command failed, and not worth an error.
            lab::signal_cleanup::block_if_interrupted();
            // A user who closed our standard error does not want the message.
            writeln!(std::io::stderr(), "warren-lab: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up { nodes, dial, keep } => run_network(nodes, dial, keep),
        Command::Demo { keep } => demo::run(keep),
        Command::Boards { boards, out } => draw_boards(boards, &out),
        Command::Map { out } => map_page::run(&out),
        Command::Measure { measurement, json } => print_result(&measurement.run()?, json),
        Command::Faults {
            only,
            long,
            tries,
            seed,
            page,
        } => {
            let extent = faults::Extent {
                is_long: long,
                tries,
                seed: seed.unwrap_or_else(|| fastrand::u64(..)),
            };
            faults::run(&only, extent, page.as_deref(), print)
        }
        Command::Clean => {
            for name in lab_run::remove_dead_runs() {
                print(&format!("removed what run {name} had left"))?;
            }
            Ok(())
        }
    }
}

fn draw_boards(mut boards: Vec<PathBuf>, out: &Path) -> Result<()> {
    if boards.is_empty() {
        boards = boards::all()?;
    }
    boards::run(&boards, out)
}

fn run_network(nodes: usize, dial: Option<u16>, keep_files: bool) -> Result<()> {
    let mut options = Options::with_nodes(nodes);
    options.keep_files = keep_files;
    if dial.is_some() {
        options.tunnels_to_dial = dial;
    }
    let lab = Lab::build_converged(options)?;
    demo::wait_for_signal(&lab)
}

/// Prints JSON as the last line and, unless `json_only`, each figure on a line of its own before.
fn print_result(json: &str, json_only: bool) -> Result<()> {
    if !json_only {
        let figures: BTreeMap<String, Value> = serde_json::from_str(json)?;
        for (name, figure) in figures {
            print(&format!("{name}: {figure}"))?;
        }
    }
    print(json)
}

fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to the standard output")
}
