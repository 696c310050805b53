//! The document from which the map of a network is drawn, by a node or by the registry.

use crate::control::TunnelEntry;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The path of [`MapDocument`] on the control socket.
pub const MAP_DOCUMENT_PATH: &str = "/v1/map";
/// The path of the page with the map, on the control socket and where metrics are served.
pub const MAP_PAGE_PATH: &str = "/map";
/// The path from which the page gets what has changed.
pub const MAP_UPDATE_PATH: &str = "/map/update";

/// A network as one node or the registry knows it: who looks at it, and the others in groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapDocument {
    /// The version of the document: [`VERSION`](crate::control::VERSION).
    pub version: u32,
    /// The time at which the document was created.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The network's range: `fd12:3456:789a::/48`.
    pub network: String,
    /// Who looks at the network: the node, or the registry, whose prefix is empty.
    pub viewer: MapNode,
    /// One line for people: how many nodes there are, and how the viewer does.
    pub summary: String,
    /// The other nodes, in groups; a node can be in several.
    pub groups: Vec<MapGroup>,
}

/// Nodes that belong together: those that are reached by one tunnel, or those in one state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapGroup {
    /// What the nodes have in common, for people; of a group with a tunnel it is the slot.
    pub title: String,
    /// The tunnel by which they are reached; `None` if they have something else in common.
    pub tunnel: Option<TunnelEntry>,
    /// Whether the nodes cannot be reached, or are silent.
    pub is_lost: bool,
    /// The nodes, sorted by prefix; the peer of the tunnel is not among them.
    pub nodes: Vec<MapNode>,
}

/// A node of the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapNode {
    /// Its prefix: `9/16`.
    pub prefix: String,
    /// Its name; `None` if it has none, or it is not known.
    pub name: Option<String>,
    /// The metric of the installed route to it; `None` if there is none.
    pub metric: Option<u16>,
}
