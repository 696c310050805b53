//! The parts of a snapshot that describe the node, its decisions and its calls to the registry.

use crate::messages::HostCompared;
use os::kernel::Repair;
use policies::{
    names::{Prefix, Slot},
    units::Uptime,
};
use std::{collections::VecDeque, net::IpAddr};
use wire::overlay::Network;

/// Number of repairs of the host whose time is kept.
pub const REPAIRS_KEPT: usize = 16;

/// What other programs did to the node's part of the host.
#[derive(Clone, Debug, Default)]
pub struct HostRecord {
    /// The last comparison.
    pub comparison: HostCompared,
    /// When something was last restored, and what; at most `REPAIRS_KEPT` moments.
    pub repairs: VecDeque<(Uptime, Vec<Repair>)>,
}

/// Number of nodes whose key two machines share that are remembered.
pub const SHARED_KEYS_KEPT: usize = 16;

/// What is known of the node when the daemon starts. Only `dry_run` can change later.
#[derive(Clone, Debug)]
pub struct NodeDescription {
    /// The prefix of this node.
    pub prefix: Prefix,
    /// The network of this node.
    pub network: Network,
    /// The version of the software.
    pub software: &'static str,
    /// The commit that the software was built from, or `unknown`.
    pub revision: &'static str,
    /// The names of all guarded actors, so that their restarts are counted from 0.
    pub actors: Vec<&'static str>,
    /// Whether the planner's orders are only logged.
    pub dry_run: bool,
    /// Configured ports at which the node accepts no tunnels, each with the reason.
    pub unused_ports: Vec<String>,
    /// When the daemon started.
    pub started: Uptime,
}

/// An entry of the log for `warren why`: a decision, or the close of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of the entry, counted from 1.
    pub number: u64,
    /// When the decision was made, or the tunnel closed.
    pub at: Uptime,
    /// The decided order, `open`, `drain`, `undrain` or `close`; `closed` for a tunnel that has closed, `reconnected` for one
    /// that came up again.
    pub order: &'static str,
    /// The slot that the order concerns.
    pub slot: Slot,
    /// The peer of the tunnel, if known.
    pub peer: Option<Prefix>,
    /// The label of the reason.
    pub reason: &'static str,
    /// The values that led to the decision.
    pub terms: String,
}

/// The last call to the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryContact {
    /// When the registry was last called.
    pub called_at: Option<Uptime>,
    /// When the registry last answered.
    pub answered_at: Option<Uptime>,
    /// The error of the last call, if it failed.
    pub failure: Option<String>,
    /// When the first call after the last answer failed.
    pub failing_since: Option<Uptime>,
    /// Whether the last call failed because the registry does not accept the node's certificate.
    pub is_certificate_rejected: bool,
    /// The number of other nodes in the registry's last answer; `None` before its first one.
    pub listed_peers: Option<usize>,
    /// How many seconds the registry's clock was ahead of this host's at its last answer.
    pub clock_offset_s: Option<i64>,
    /// The number of nodes whose private endpoints the registry does not show to this node.
    pub hidden_nodes: u32,
    /// The address of another machine that announces itself with this node's certificate.
    pub other_machine: Option<IpAddr>,
}

/// When readings were last taken; `None` before the first one. A reading that fails leaves the time as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadTimes {
    /// The counters of links.
    pub links: Option<Uptime>,
    /// The tables of babeld.
    pub routes: Option<Uptime>,
    /// The results of probes.
    pub probes: Option<Uptime>,
    /// The states of processes.
    pub processes: Option<Uptime>,
}

/// The routes through one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Number of nodes to which an installed route leads through the slot.
    pub nodes: u64,
    /// Number of routes through the slot, installed or not.
    pub routes: u64,
}
