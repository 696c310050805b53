//! The parts of a snapshot that are not readings: the node itself, decisions, the registry.

use policies::{
    names::{Prefix, Slot},
    units::Uptime,
};
use wire::overlay::Network;

/// The facts that never change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The prefix of this node.
    pub prefix: Prefix,
    /// The network of this node.
    pub network: Network,
    /// Version of the software.
    pub software: &'static str,
    /// Commit that the software was built from, or `unknown`.
    pub revision: &'static str,
    /// Names of all guarded actors, so that their restarts are counted from 0.
    pub actors: Vec<&'static str>,
    /// Orders of the policy are logged only.
    pub dry_run: bool,
    /// The time at which the daemon started.
    pub started: Uptime,
}

/// A decision, or the end of a tunnel, as the log for `warren why` holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counts from 1.
    pub number: u64,
    /// The time of the decision.
    pub at: Uptime,
    /// `open`, `drain`, `undrain`, `close`, or `closed` for the end itself.
    pub order: &'static str,
    /// The slot that the order concerns.
    pub slot: Slot,
    /// The peer of the tunnel, if known.
    pub peer: Option<Prefix>,
    /// The label of the reason.
    pub reason: &'static str,
    /// The terms that led to the decision.
    pub terms: String,
}

/// The outcome of the last call to the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryContact {
    /// The time of the last call.
    pub asked: Option<Uptime>,
    /// The time of the last answer.
    pub answered: Option<Uptime>,
    /// The error of the last call, if it failed.
    pub failure: Option<String>,
}

/// The routes through one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Nodes that installed routes reach through it.
    pub nodes: u64,
    /// All routes through it, installed or not.
    pub routes: u64,
}
