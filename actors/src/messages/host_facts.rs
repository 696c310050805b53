//! What other programs do to the parts of the host that the node needs, and what a second machine with the same key does.

use actix::Message;
use os::kernel::Repair;
use policies::{names::Prefix, units::Uptime};
use std::net::IpAddr;

/// Something that another program had removed or changed was restored.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct HostRepaired {
    /// When it was restored.
    pub at: Uptime,
    /// What was restored; never empty.
    pub repairs: Vec<Repair>,
}

/// The host was compared with what the node needs there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct HostCompared {
    /// Why something could not be compared or restored; `None` if all is as it should be.
    pub failure: Option<String>,
    /// The priorities of other programs' rules that are consulted before the node's, in order.
    pub earlier_rules: Vec<u32>,
    /// What happens to packets to a node for which babeld has a route, unless they leave by a tunnel.
    pub diversion: Option<String>,
    /// The user of another program that shares babeld's port; `None` if there is none.
    pub other_babel_uid: Option<u32>,
    /// Whether the host drops what the node should forward for others, so that the node carries no transit traffic.
    pub is_transit_blocked: bool,
    /// The network's IPv4 range, and what it overlaps on this host, so that the node has no IPv4: `10.0.0.0/8 overlaps 10.0.2.0/24 (eth0)`.
    pub ipv4_overlap: Option<String>,
}

/// An uplink of the host has come back, or got an address or a default route.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct UplinkRestored;

/// Two machines have dialled this node in turn with the key of one node.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct KeyShared {
    /// When the second one was rejected.
    pub at: Uptime,
    /// The node that both claim to be.
    pub peer: Prefix,
    /// The addresses of the machine that came first and keeps its tunnel, and of the one that was rejected.
    pub addresses: [IpAddr; 2],
}
