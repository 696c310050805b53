//! The document of the peers that a node could dial: `warren peers`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Peers that could be dialled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeersDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The time at which the document was created.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Sorted by prefix.
    pub peers: Vec<PeerEntry>,
    /// Private endpoints that are known and not dialled, sorted by the prefix of the peer.
    #[serde(default)]
    pub unused_endpoints: Vec<UnusedEndpointEntry>,
}

/// A private endpoint of a peer that is not dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusedEndpointEntry {
    /// The peer's prefix, such as `9/16`.
    pub prefix: String,
    /// Its name; `None` if it has none, or it is not known.
    #[serde(default)]
    pub name: Option<String>,
    /// The endpoint, such as `udp:192.168.1.2:1194`.
    pub endpoint: String,
    /// The reason, in words.
    pub reason: String,
}

/// A peer of the cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// The peer's prefix, such as `9/16`.
    pub prefix: String,
    /// Its name; `None` if it has none, or it is not known.
    #[serde(default)]
    pub name: Option<String>,
    /// `udp:192.0.2.1:1194` …, best first.
    pub endpoints: Vec<String>,
    /// When its endpoints were last confirmed in this run; `None`: only the disk remembers it.
    pub confirmed_seconds_ago: Option<f64>,
    /// The time since the last dial failed.
    pub failed_seconds_ago: Option<f64>,
    /// Failed dials in a row.
    pub failures: u32,
    /// The cost that the peer adds to the metric of others' routes; 65535 if it announces none.
    #[serde(default)]
    pub transit_cost: u16,
    /// The tunnel to it, where there is one.
    pub slot: Option<String>,
}
