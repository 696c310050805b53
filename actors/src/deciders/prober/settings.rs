//! The settings and dependencies of the prober.

use super::*;

/// The settings of the prober.
#[derive(Clone, Copy, Debug)]
pub struct ProberSettings {
    /// The prefix of this node.
    pub me: Prefix,
    /// The network, which maps prefixes to addresses.
    pub network: Network,
    /// The intervals at which tunnels are probed; a new network document replaces them.
    pub pace: ProbePace,
    /// Whether this node is metered, so that it probes seldom, and announces that to its neighbours.
    pub is_metered: bool,
    /// The user of OpenVPN, whose packets' route is meant where the MTU of a path is reduced.
    pub openvpn_uid: u32,
}

/// The dependencies of the prober.
#[derive(Clone)]
pub struct ProberDeps {
    /// The prefix of this node, its network, and the intervals of its probes.
    pub settings: ProberSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The queue of link orders.
    pub links: LinkOrderQueue,
    /// The receiver of orders to close a tunnel.
    pub orders: Recipient<Ordered>,
    /// The receivers of readings of all probes.
    pub readers: Vec<Recipient<ProbesRead>>,
}
