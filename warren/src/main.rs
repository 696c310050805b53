//! The command `warren`: parses, calls, prints; knows nothing of how a network works.

mod join_verb;
mod output;
mod registry_verbs;
mod run_verb;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A self-mending IPv6 network over OpenVPN and babeld.
#[derive(Parser)]
#[command(name = "warren", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make this machine a node of a network
    Join(join_verb::Args),
    /// Run this machine's node until SIGTERM
    Run(run_verb::Args),
    /// Make and run a network's registry, and let nodes in
    Registry(registry_verbs::Args),
}

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Join(args) => join_verb::main(&args),
        Verb::Run(args) => run_verb::main(&args),
        Verb::Registry(args) => registry_verbs::main(&args),
    }
}
