//! The part of the state of a node about its LANs.

use serde::{Deserialize, Serialize};

/// The search for other nodes on the LANs of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LanState {
    /// Whether the node searches its LANs.
    pub enabled: bool,
    /// The links that lead to a LAN, sorted by name.
    pub links: Vec<LanLinkEntry>,
    /// The nodes that answer there, sorted by prefix.
    pub nodes: Vec<LanNodeEntry>,
    /// Whether another host on a LAN has this node's prefix and the network's key.
    pub has_copy: bool,
}

/// A link to a LAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanLinkEntry {
    /// The name of the link.
    pub link: String,
    /// Why it cannot be searched; `None` if it is searched.
    pub error: Option<String>,
}

/// A node on a LAN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanNodeEntry {
    /// The node's prefix.
    pub prefix: String,
    /// Its name; `None` if it has none, or it is not known.
    pub name: Option<String>,
    /// The name of the link on which it answers; several are separated by commas.
    pub link: String,
    /// Where it can be dialled there, best first; empty if it accepts no tunnels.
    pub endpoints: Vec<String>,
    /// The time since it last answered.
    pub answered_seconds_ago: f64,
}
