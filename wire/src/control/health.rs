//! The parts of the status document about the health of the node, and about its endpoints.

use serde::{Deserialize, Serialize};

/// The state of a healthy node.
pub const HEALTHY: &str = "healthy";
/// The state of a node that works, and lacks something.
pub const DEGRADED: &str = "degraded";
/// The state of a node that does not do its work.
pub const NOT_READY: &str = "not_ready";

/// Whether the node is healthy, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthReport {
    /// [`HEALTHY`], [`DEGRADED`] or [`NOT_READY`].
    pub state: String,
    /// The findings, the worst first.
    pub findings: Vec<FindingEntry>,
}

/// One finding about the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingEntry {
    /// Which finding it is, as the metrics' label `finding`.
    pub id: String,
    /// `error`, `degraded` or `information`.
    pub severity: String,
    /// The number of tunnels, peers, restarts or keys that the finding is about.
    pub count: Option<u64>,
    /// How long it has lasted, or how long something will last; negative if it lies behind.
    pub seconds: Option<f64>,
    /// What was seen, for people.
    pub seen: String,
    /// What to do, for people.
    pub advice: String,
}

/// An endpoint that the node announces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnEndpointEntry {
    /// The endpoint: `udp:192.0.2.7:1194`.
    pub endpoint: String,
    /// How the node learnt it: `configured`, `port-mapping`, `host-address` or, for a link without a default route, `other-link`.
    pub source: String,
    /// Whether its address is private.
    pub is_private: bool,
    /// How long ago a tunnel by its transport, from an address of its kind (private or public), was last up; `None` if
    /// none has been since the daemon started.
    pub reached_seconds_ago: Option<f64>,
    /// What other nodes found that were asked to try it: `confirmed`, `silent` or `unchecked`. Private endpoints are not checked.
    #[serde(default)]
    pub reachability: String,
}
