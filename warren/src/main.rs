//! The command `warren`: parses, calls, prints; knows nothing of how a network works.

mod join_verb;
mod output;
mod registry_verbs;
mod run_verb;
mod status_verbs;
mod systemd_unit;

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
    /// Make a key for a machine without a way to the registry; prints a request to be signed there
    Request(join_verb::RequestArgs),
    /// Make this machine a node with what `warren registry sign` printed
    Install(join_verb::InstallArgs),
    /// Run this machine's node until SIGTERM
    Run(run_verb::Args),
    /// The node at a glance
    Status(status_verbs::AskArgs),
    /// One line a tunnel
    Tunnels(status_verbs::AskArgs),
    /// Whom the node could dial
    Peers(status_verbs::AskArgs),
    /// babeld's neighbours and routes
    Routes(status_verbs::AskArgs),
    /// Why tunnels were opened and closed, and what is thought of those that stand
    Why(status_verbs::WhyArgs),
    /// Make and run a network's registry, and let nodes in
    Registry(registry_verbs::Args),
}

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Join(args) => join_verb::main(&args),
        Verb::Request(args) => join_verb::request(&args),
        Verb::Install(args) => join_verb::install(&args),
        Verb::Run(args) => run_verb::main(&args),
        Verb::Status(args) => status_verbs::status(&args),
        Verb::Tunnels(args) => status_verbs::tunnels(&args),
        Verb::Peers(args) => status_verbs::peers(&args),
        Verb::Routes(args) => status_verbs::routes(&args),
        Verb::Why(args) => status_verbs::why(&args),
        Verb::Registry(args) => registry_verbs::main(&args),
    }
}
