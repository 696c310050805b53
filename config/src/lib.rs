//! YAML and arguments to [`Settings`]; every complaint names file, line, key, value and what would
//! be right.

mod error;
mod lines;
pub mod paths;
mod read;
mod template;
mod tree;

pub use error::{Complaint, ConfigError, EXIT_CODE};
use policies::{
    gain::Rule,
    names::{Endpoint, Prefix},
    observation::INFINITY,
};
pub use read::{load, parse};
use std::{net::SocketAddr, path::PathBuf};
pub use template::template;

/// A node's configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `https://HOST:PORT` of the registry.
    pub registry: String,
    /// Our servers' port for UDP; 0: do not accept.
    pub listen_udp: u16,
    /// Our servers' port for TCP; 0: do not accept.
    pub listen_tcp: u16,
    /// Addresses that others shall dial, when the operator knows better.
    pub endpoints: Vec<Endpoint>,
    /// Pinned peers: always kept.
    pub neighbours: Vec<Prefix>,
    /// Links on which babeld itself speaks.
    pub interfaces: Vec<String>,
    /// Whether others may route through us.
    pub transit: Transit,
    /// Carry others' packets out of the network, by the host's own default route, where the network names us a gateway.
    pub gateway: bool,
    /// By what the policy chooses tunnels.
    pub policy: Rule,
    /// The policy decides and logs, but opens and closes no tunnel.
    pub dry_run: bool,
    /// Only to lower what the network says.
    pub max_accepted: Option<u16>,
    /// Only to lower what the network says.
    pub tunnels_to_dial: Option<u16>,
    /// Who OpenVPN runs as.
    pub openvpn_user: ChildUser,
    /// Who babeld runs as.
    pub babeld_user: ChildUser,
    /// Ask the gateway for port mappings.
    pub upnp: bool,
    /// Believe peers' private addresses.
    pub private_endpoints: bool,
    /// Where metrics are served.
    pub metrics: Metrics,
    /// The filter of log lines: a level, or `target=level` joined by commas.
    pub log: String,
}

/// Whether others may route through us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transit {
    /// As any node.
    #[default]
    Normal,
    /// Only where nothing else is left.
    Avoid,
    /// Never.
    Leaf,
}

impl Transit {
    /// What is added to the metric of others' routes when we tell of them. [`INFINITY`]: they are not told of.
    ///
    /// 10,000 is about the cost of two links at the dearest (5,096 each, beyond 500 ms), and six nodes in a row
    /// that are to be avoided still make a way.
    pub fn price(self) -> u16 {
        match self {
            Self::Normal => 0,
            Self::Avoid => 10_000,
            Self::Leaf => INFINITY,
        }
    }
}

/// An unprivileged user, by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildUser {
    /// Looked up at start.
    Name(String),
    /// Used as both uid and gid.
    Id(u32),
}

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// HTTP on TCP.
    Tcp(SocketAddr),
    /// HTTP on a Unix socket.
    Unix(PathBuf),
    /// Nowhere.
    Off,
}
