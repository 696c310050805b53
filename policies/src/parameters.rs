//! Numbers that steer a node, with their defaults. The registry signs the network's, the node's
//! configuration may lower some (`docs/OPERATIONS.md` lists them).

use std::time::Duration;

/// Network parameters, one value each for the whole network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Babel's hello interval, 0.5 s to 15 s. 1 s costs about 0.2 kB/s a tunnel and direction.
    pub hello_interval: Duration,
    /// Babel's update interval, 4 s to 120 s; large, since routes are asked for when a tunnel comes up
    /// or a way is lost.
    pub update_interval: Duration,
    /// Tunnels that a node dials, 1 to 30.
    pub tunnels_to_dial: u16,
    /// Tunnels that a node accepts, 0 to 250.
    pub max_accepted: u16,
    /// How often the policy may close one tunnel and dial others (± 10 %), 30 s to 1 h.
    pub refresh: Duration,
    /// Younger tunnels are spared: they have no history.
    pub min_age: Duration,
    /// Between two probes of a tunnel that payload uses, or whose peer is suspected; 0.25 s to 5 s. A peer is dead
    /// after four misses.
    pub probe: Duration,
    /// Between two probes of an idle tunnel, 1 s to 5 min.
    pub idle_probe: Duration,
    /// The network carries IPv4, too: babeld tells of twice as many routes.
    pub ipv4: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            hello_interval: Duration::from_secs(1),
            update_interval: Duration::from_secs(30),
            tunnels_to_dial: 10,
            max_accepted: 30,
            refresh: Duration::from_secs(300),
            min_age: Duration::from_secs(600),
            probe: Duration::from_millis(250),
            idle_probe: Duration::from_secs(15),
            ipv4: false,
        }
    }
}

/// A tunnel that has not moved its traffic after this long is kept.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
