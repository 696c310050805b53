//! Which nodes may read metrics at the node's own address in the network.

use crate::sinks::telemetry::Snapshot;
use policies::node_reference::NodeReference;
use std::net::IpAddr;

/// The nodes that may read metrics by the network; all members may if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers(pub Vec<NodeReference>);

impl Readers {
    /// Whether the address belongs to a node that may read: to its own range of the network.
    pub(super) fn admit(&self, from: IpAddr, node: &Snapshot) -> bool {
        let IpAddr::V6(from) = from else {
            return self.0.is_empty();
        };
        let network = node.identity.network;
        let own = network.node_address(node.identity.prefix);
        let has_range = |reference: &NodeReference| match reference {
            NodeReference::Prefix(prefix) => network.node_range(*prefix).contains(&from),
            NodeReference::Name(name) => node.names.nodes().any(|prefix| {
                node.names.get(prefix) == Some(name) && network.node_range(prefix).contains(&from)
            }),
        };
        self.0.is_empty() || from == own || self.0.iter().any(has_range)
    }
}
