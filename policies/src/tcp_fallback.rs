//! Decides when the UDP servers of a peer are tried whose tunnel came up by TCP, because UDP was blocked or the host was offline.

use crate::units::Uptime;
use std::time::Duration;

/// The limits of the waits between two probes.
#[derive(Clone, Copy, Debug)]
pub struct UdpProbeWaits {
    /// The wait before the first probe, once the tunnel is up.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl UdpProbeWaits {
    /// Returns whether a probe is due: the waits begin with the first one and double, up to the longest. `probed_at` is the last probe of
    /// the peer, which may be older than the tunnel.
    pub fn is_due(self, up_since: Uptime, probed_at: Option<Uptime>, now: Uptime) -> bool {
        let last = probed_at.map_or(up_since, |at| at.max(up_since));
        let wait = last.since(up_since).max(self.first).min(self.max);
        now.since(last) >= wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_begin_with_the_first_one_and_double_up_to_the_longest() {
        let waits = UdpProbeWaits {
            first: Duration::from_secs(10),
            max: Duration::from_secs(60),
        };
        let up_since = Uptime::from_secs(100);
        // The peer was probed before the tunnel came up.
        let mut probed_at = Some(Uptime::from_secs(99));
        let mut seconds = Vec::new();
        for second in 100..320 {
            let now = Uptime::from_secs(second);
            if waits.is_due(up_since, probed_at, now) {
                probed_at = Some(now);
                seconds.push(second - 100);
            }
        }
        assert_eq!(seconds, [10, 20, 40, 80, 140, 200]);
    }
}
