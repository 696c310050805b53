//! Remembers which processes could not be drained, and when each is tried again.

use crate::{
    names::{Slot, Transport},
    units::Uptime,
};
use std::{collections::BTreeMap, time::Duration};

/// A process that could not be drained is tried again after this time, which doubles with each further attempt.
const RETRY_DELAY: Duration = Duration::from_secs(10);
/// The delay doubles this often at most, to about an hour and a half.
const MAX_DOUBLINGS: u32 = 9;

/// A process that was to restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Attempted {
    /// The server of this transport.
    Server(Transport),
    /// The dialled tunnel on this slot.
    Dial(Slot),
}

/// The attempts that failed since the files changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts(BTreeMap<Attempted, (Uptime, u32)>);

impl Attempts {
    /// Notes an attempt that failed, or that must not be repeated at once.
    pub(super) fn note(&mut self, process: Attempted, now: Uptime) {
        let count = self.0.get(&process).map_or(0, |(_, count)| *count);
        self.0.insert(process, (now, count.saturating_add(1)));
    }

    /// Returns whether the process can be tried now.
    pub(super) fn is_due(&self, process: Attempted, now: Uptime) -> bool {
        self.0.get(&process).is_none_or(|(last, count)| {
            let doublings = count.saturating_sub(1).min(MAX_DOUBLINGS);
            now.since(*last) >= RETRY_DELAY.saturating_mul(1 << doublings)
        })
    }

    /// Forgets all attempts, since the files have changed again.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_with_each_attempt_up_to_an_hour_and_a_half() {
        let (mut attempts, process) = (Attempts::default(), Attempted::Server(Transport::Udp));
        let mut now = Uptime::from_secs(100);
        assert!(attempts.is_due(process, now));
        for delay in [10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 5_120] {
            attempts.note(process, now);
            let before = now + Duration::from_secs(delay - 1);
            assert!(!attempts.is_due(process, before), "{delay}");
            now = now + Duration::from_secs(delay);
            assert!(attempts.is_due(process, now), "{delay}");
        }
        let other = Attempted::Server(Transport::Tcp);
        assert!(attempts.is_due(other, Uptime::default()));
    }
}
