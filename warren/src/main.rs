//! The command `warren`: parses its arguments, calls the crate that does the work, and prints the result.

mod check_config_verb;
mod cleanup_verb;
mod control_client;
mod doctor_verb;
mod join_verb;
mod leave_verb;
mod operator_verbs;
mod output;
mod reference_verb;
mod registry_verbs;
mod reload_verb;
mod restart_verb;
mod run_verb;
mod status_verbs;
mod support_bundle_verb;
mod systemd_unit;
mod top_verb;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Shown below the list of verbs.
const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 failure, or not healthy; 2 wrong usage; 3 the daemon is not running;
4 permission denied; 5 timeout; 78 a fault in the configuration, which a restart cannot repair.";

/// The release and the commit of this program.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("WARREN_REVISION"),
    ")"
);

/// A self-repairing private IPv6 network over OpenVPN and babeld.
#[derive(Parser)]
#[command(name = "warren", version = VERSION, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make this machine a node of a network, with an invitation
    Join(join_verb::JoinArgs),
    /// Print a certificate request, for a machine that cannot reach the registry
    Request(join_verb::RequestArgs),
    /// Make this machine a node with the file that `warren registry sign` printed
    Install(join_verb::InstallArgs),
    /// Remove this machine from its network: stop it, revoke its certificate, remove its identity
    Leave(leave_verb::LeaveArgs),
    /// Run this machine's node until SIGTERM
    Run(run_verb::RunArgs),
    /// Apply the changed configuration to the running node
    Reload(reload_verb::ReloadArgs),
    /// Replace the running daemon by the installed program, without touching a tunnel
    Restart(restart_verb::RestartArgs),
    /// Remove what a killed daemon left on this machine, without starting it again
    Cleanup(cleanup_verb::CleanupArgs),
    /// Show how the node does, and what to do; exits with 1 if it is not healthy
    Status(status_verbs::ShowArgs),
    /// Examine the host and the node, also before joining: what is wrong, and what to do
    Doctor(doctor_verb::DoctorArgs),
    /// Read the configuration as the daemon does, and print what is wrong with it
    CheckConfig(check_config_verb::CheckConfigArgs),
    /// Collect what others need to find a fault, without secrets, in one archive
    SupportBundle(support_bundle_verb::SupportBundleArgs),
    /// List the tunnels: traffic, round trip, loss, and whether the policy keeps them
    Tunnels(status_verbs::ShowArgs),
    /// List the peers that the node could dial
    Peers(status_verbs::ShowArgs),
    /// List babeld's neighbours and routes
    Routes(status_verbs::ShowArgs),
    /// Print the names and addresses of nodes as lines for /etc/hosts
    Hosts(status_verbs::HostsArgs),
    /// Explain why tunnels were opened and closed, and what would close the present ones
    Why(status_verbs::WhyArgs),
    /// Show what changed lately; with --follow, also what changes from now on
    Events(status_verbs::EventsArgs),
    /// Send echo requests to a node; exits with 1 if none is answered
    Ping(status_verbs::PingArgs),
    /// Show each node on the path to a node, with round trip and loss; exits with 1 if it does not answer
    Trace(status_verbs::TraceArgs),
    /// Draw the network as this node knows it, as SVG: warren map > map.svg
    Map(status_verbs::ShowArgs),
    /// Show the tunnels live: rates, round trip, loss, and the latest decisions
    Top(top_verb::TopArgs),
    /// Open a tunnel to a node now, as root
    Dial(operator_verbs::OrderArgs),
    /// Close a tunnel that this node dialled, once its traffic has moved away, as root
    Close(operator_verbs::OrderArgs),
    /// Keep the tunnels to a node: the policy never closes them, as root
    Pin(operator_verbs::OrderArgs),
    /// Let the policy close tunnels to a node again, as root
    Unpin(operator_verbs::OrderArgs),
    /// Create and run a network's registry, and let nodes in
    Registry(registry_verbs::Args),
    /// Write manual pages and completions, for the package
    #[command(hide = true)]
    GenerateReference(reference_verb::ReferenceArgs),
}

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Join(args) => join_verb::join(&args),
        Verb::Request(args) => join_verb::request(&args),
        Verb::Install(args) => join_verb::install(&args),
        Verb::Leave(args) => leave_verb::leave(&args),
        Verb::Run(args) => run_verb::run(&args),
        Verb::Reload(args) => reload_verb::reload(&args),
        Verb::Restart(args) => restart_verb::restart(&args),
        Verb::Cleanup(args) => cleanup_verb::cleanup(&args),
        Verb::Status(args) => status_verbs::status(&args),
        Verb::Doctor(args) => doctor_verb::doctor(&args),
        Verb::CheckConfig(args) => check_config_verb::check_config(&args),
        Verb::SupportBundle(args) => support_bundle_verb::support_bundle(&args),
        Verb::Tunnels(args) => status_verbs::tunnels(&args),
        Verb::Peers(args) => status_verbs::peers(&args),
        Verb::Routes(args) => status_verbs::routes(&args),
        Verb::Hosts(args) => status_verbs::hosts(&args),
        Verb::Why(args) => status_verbs::why(&args),
        Verb::Events(args) => status_verbs::events(&args),
        Verb::Ping(args) => status_verbs::ping(&args),
        Verb::Trace(args) => status_verbs::trace(&args),
        Verb::Map(args) => status_verbs::map(&args),
        Verb::Top(args) => top_verb::top(&args),
        Verb::Dial(args) => operator_verbs::dial(&args),
        Verb::Close(args) => operator_verbs::close(&args),
        Verb::Pin(args) => operator_verbs::pin(&args),
        Verb::Unpin(args) => operator_verbs::unpin(&args),
        Verb::Registry(args) => registry_verbs::main(&args),
        Verb::GenerateReference(args) => reference_verb::generate_reference(&Cli::command(), &args),
    }
}
