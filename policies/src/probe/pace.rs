//! The intervals at which a tunnel is probed: the network's, and longer ones where bytes count more.

use crate::{
    parameters::{METERED_HELLO_INTERVAL, Parameters},
    usage::Floor,
};
use std::time::Duration;

/// babeld sends a hello at most 1.5 hello intervals after the last one: 1.25 by its timer, and 0.25 by its buffer. The path
/// and the sampler add at most this. An idle tunnel is probed if no hello has come by then.
const HELLO_DELAY: Duration = Duration::from_secs(2);
/// Interval between two probes of a tunnel in use of which one end is metered.
const METERED_BUSY_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between two probes of an idle tunnel whose loss nobody has to know.
const RARE_IDLE_INTERVAL: Duration = Duration::from_secs(300);

/// The intervals at which tunnels are probed.
#[derive(Clone, Copy, Debug)]
pub struct ProbePace {
    /// The frames that Babel alone sends over a link; more than that is payload.
    pub(super) floor: Floor,
    /// Interval between two probes of a busy or suspected tunnel.
    pub(super) busy: Duration,
    /// Interval between two probes of an idle tunnel.
    pub(super) idle: Duration,
    /// An idle tunnel is probed once nothing was received for this long.
    pub(super) max_silence: Duration,
}

impl ProbePace {
    /// The network's pace, if routes to `routes` nodes are announced over each link.
    pub fn new(parameters: &Parameters, routes: usize) -> Self {
        Self {
            floor: Floor::new(parameters, routes),
            busy: parameters.probe,
            idle: parameters.idle_probe,
            max_silence: max_silence(parameters.hello_interval),
        }
    }

    /// The pace of the end that accepted a tunnel. Only the other end, which may close it by plan, has to know how much
    /// it loses while it is idle.
    #[must_use]
    pub fn accepted(self) -> Self {
        Self {
            idle: self.idle.max(RARE_IDLE_INTERVAL),
            ..self
        }
    }

    /// The pace of a tunnel of which one end is metered.
    #[must_use]
    pub fn metered(self) -> Self {
        Self {
            busy: self.busy.max(METERED_BUSY_INTERVAL),
            idle: self.idle.max(RARE_IDLE_INTERVAL),
            max_silence: self.max_silence.max(max_silence(METERED_HELLO_INTERVAL)),
            ..self
        }
    }
}

/// Returns how long nothing may be received from a peer that sends a hello in each `hello_interval`; more shows that the peer
/// is probably lost.
pub fn max_silence(hello_interval: Duration) -> Duration {
    hello_interval.saturating_mul(3) / 2 + HELLO_DELAY
}
