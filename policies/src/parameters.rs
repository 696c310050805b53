//! Numbers that steer a node, with their defaults.
//!
//! The registry signs the network's numbers; a node's configuration may lower some of them
//! (`docs/OPERATIONS.md` lists them).

use std::time::Duration;

/// The network's parameters: one value each for all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Babel's hello interval, 0.5 s to 15 s. Four seconds cost about 40 bytes a second per tunnel and direction.
    pub hello_interval: Duration,
    /// Babel's update interval, 4 s to 120 s. It can be long, since routes are requested when a tunnel comes up or
    /// a route is lost.
    pub update_interval: Duration,
    /// Tunnels that a node dials, 1 to 30.
    pub tunnels_to_dial: u16,
    /// Tunnels that a node accepts, 0 to 250.
    pub max_accepted: u16,
    /// Interval (± 10 %) at which the planner may close one tunnel and dial others, 30 s to 1 h.
    pub refresh: Duration,
    /// Tunnels younger than this are spared, since they have no history.
    pub min_age: Duration,
    /// Interval between two probes of a tunnel that carries payload, or whose peer is suspected; 0.25 s to 5 s. A
    /// peer is dead after four misses.
    pub probe: Duration,
    /// Interval between two probes of an idle tunnel by the node that dialled it, 1 s to 5 min.
    pub idle_probe: Duration,
    /// Whether the network carries IPv4, too; babeld then announces twice as many routes.
    pub ipv4: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            hello_interval: Duration::from_secs(4),
            update_interval: Duration::from_secs(30),
            tunnels_to_dial: 10,
            max_accepted: 30,
            refresh: Duration::from_secs(300),
            min_age: Duration::from_secs(600),
            probe: Duration::from_millis(250),
            idle_probe: Duration::from_secs(20),
            ipv4: false,
        }
    }
}

/// A tunnel whose traffic has not moved away after this time is kept.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// Babel's hello interval on the tunnels of a metered node, at that node's end; longer than the network's. babeld raises the
/// cost of a neighbour from which no hello has arrived for 40 s.
pub const METERED_HELLO_INTERVAL: Duration = Duration::from_secs(30);
