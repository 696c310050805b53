//! The document of all known nodes with their names: `warren hosts`.

use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;
use time::OffsetDateTime;

/// All nodes that this node knows, itself included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The time at which the document was created.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The network's range: `fd12:3456:789a::/48`.
    pub network: String,
    /// Sorted by prefix.
    pub nodes: Vec<NodeNameEntry>,
}

/// A known node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeNameEntry {
    /// The node's prefix, such as `9/16`.
    pub prefix: String,
    /// Its name, as its certificate stated it; `None` if it has none, or it is not known.
    pub name: Option<String>,
    /// Its address in the network.
    pub address: Ipv6Addr,
}
