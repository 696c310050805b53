//! The part of the state of a node about paths through NATs.

use serde::{Deserialize, Serialize};

/// The attempts to reach nodes behind NATs by sending from both sides at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolePunchingState {
    /// How the NAT in front of this node maps ports, as the last attempt showed: `endpoint_independent`, `endpoint_dependent` (a symmetric
    /// NAT), `unknown` (fewer than two nodes have seen the same socket).
    pub nat_mapping: String,
    /// The nodes with which the last attempt failed, sorted by prefix.
    pub failed: Vec<FailedPunchEntry>,
}

/// A node to which no path could be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedPunchEntry {
    /// The node's prefix.
    pub prefix: String,
    /// Its name; `None` if it has none, or it is not known.
    pub name: Option<String>,
    /// The result, as the label of the metric.
    pub result: String,
}
