//! YAML and arguments to [`Settings`]; every complaint names file, line, key, value and what would
//! be right.

mod error;
mod keys;
mod lines;
pub mod paths;
mod read;
mod sources;
mod template;
mod tree;

pub use error::{Complaint, ConfigError, EXIT_CODE};
pub use keys::{Effect, KEYS, Key};
use policies::{
    gain::Rule,
    names::{Endpoint, Prefix},
    node_reference::NodeReference,
    observation::INFINITY,
};
pub use read::{load, parse};
pub use sources::drop_ins;
use std::{net::SocketAddr, path::PathBuf};
pub use template::template;
pub use wire::endpoints::PrivateEndpointUse;

/// A node's configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `https://HOST:PORT` of the registry.
    pub registry: String,
    /// The port of our UDP server, then further ports that lead to it; empty to accept no tunnels by UDP.
    pub listen_udp: Vec<u16>,
    /// The port of our TCP server, then further ports that lead to it; empty to accept no tunnels by TCP.
    pub listen_tcp: Vec<u16>,
    /// Endpoints to announce in place of those that are found.
    pub endpoints: Vec<Endpoint>,
    /// Pinned peers, whose tunnels are always kept.
    pub neighbours: Vec<Prefix>,
    /// Links on which babeld itself speaks.
    pub interfaces: Vec<String>,
    /// Which traffic of other nodes this node carries.
    pub transit: Transit,
    /// Whether the node's uplink is metered, so that it sends as little as it can.
    pub metered: bool,
    /// Act as an exit gateway by the host's own default route, if the network document names this node as one.
    pub gateway: bool,
    /// The rule by which the policy chooses tunnels.
    pub policy: Rule,
    /// Whether the policy only logs its decisions, and opens and closes no tunnel.
    pub dry_run: bool,
    /// The local limit of accepted tunnels, which can only lower the network's.
    pub max_accepted: Option<u16>,
    /// The local limit of dialled tunnels, which can only lower the network's.
    pub tunnels_to_dial: Option<u16>,
    /// The user of OpenVPN processes.
    pub openvpn_user: ChildUser,
    /// The user of babeld.
    pub babeld_user: ChildUser,
    /// Whether the router is asked for port mappings.
    pub upnp: bool,
    /// Whether the LANs of the host are searched for other nodes.
    pub lan_discovery: bool,
    /// Which private addresses are announced and dialled as endpoints.
    pub private_endpoints: PrivateEndpointUse,
    /// The addresses at which metrics are served; none if they are turned off.
    pub metrics: Vec<MetricsAddress>,
    /// The nodes that may read metrics at the node's own address in the network; all members if there is none.
    pub metrics_from: Vec<NodeReference>,
    /// The filter of log lines: a level, or `target=level` joined by commas.
    pub log: String,
}

/// Tunnels that a metered node dials, unless its configuration says otherwise.
const METERED_TUNNELS: u16 = 2;

impl Settings {
    /// The most tunnels that the node dials, if it lowers the network's limit.
    pub fn dialled_limit(&self) -> Option<u16> {
        self.tunnels_to_dial
            .or(self.metered.then_some(METERED_TUNNELS))
    }

    /// The most tunnels that the node accepts, if it lowers the network's limit. A metered node accepts none unless its
    /// configuration says otherwise.
    pub fn accepted_limit(&self) -> Option<u16> {
        self.max_accepted.or(self.metered.then_some(0))
    }

    /// The cost that is added to the metric of others' routes when we announce them. A metered node announces none.
    pub fn transit_cost(&self) -> u16 {
        match self.metered {
            true => INFINITY,
            false => self.transit.price(),
        }
    }
}

/// The readiness of a node to carry the traffic of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transit {
    /// Carries others' traffic like any node.
    #[default]
    Normal,
    /// Carries others' traffic only where no other route is left.
    Avoid,
    /// Never carries the traffic of others.
    Leaf,
}

impl Transit {
    /// Returns the cost that is added to the metric of others' routes when we announce them; at
    /// [`INFINITY`] we do not announce them.
    ///
    /// 10,000 is about the cost of two of the most expensive links (5,096 each, beyond 500 ms),
    /// and six such nodes in a row still form a usable route.
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
    /// The name of a user, which is looked up at the start.
    Name(String),
    /// A number, which is used as both uid and gid.
    Id(u32),
}

/// An address at which metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// HTTP on TCP.
    Tcp(SocketAddr),
    /// HTTP on this TCP port of the node's own address in the network.
    Overlay(u16),
    /// HTTP on a Unix socket.
    Unix(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_metered_node_dials_two_tunnels_accepts_none_and_carries_no_transit_unless_its_limits_are_given()
     {
        let limits = |text: &str| {
            let settings = parse(
                Path::new("w.yaml"),
                format!("registry: https://a:1\n{text}").as_bytes(),
            )
            .unwrap();
            let limits = (settings.dialled_limit(), settings.accepted_limit());
            (limits, settings.transit_cost())
        };
        assert_eq!(limits(""), ((None, None), 0));
        let leaf = u16::MAX;
        assert_eq!(limits("metered: true\n"), ((Some(2), Some(0)), leaf));
        assert_eq!(
            limits("metered: true\nmax-accepted: 3\ntunnels-to-dial: 1\n"),
            ((Some(1), Some(3)), leaf)
        );
        let contradiction = b"registry: https://a:1\nmetered: true\ngateway: true\n";
        assert!(parse(Path::new("w.yaml"), contradiction).is_err());
    }
}
