//! Decides for how long a network of the host that overlaps the network's IPv4 range counts after it has disappeared.
//!
//! Each change makes babeld restart, so a network that comes and goes, such as one of containers, must not turn IPv4 on and off each time.

use crate::units::Uptime;
use std::time::Duration;

/// Time for which an overlap must be absent after it was there for the first time. It doubles with each further time.
const FIRST_ABSENCE: Duration = Duration::from_secs(10);
/// Maximum of that time.
const MAX_ABSENCE: Duration = Duration::from_secs(600);
/// Absence after which earlier overlaps no longer count.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// What overlaps the range, or did until lately.
#[derive(Clone, Debug, Default)]
pub struct Ipv4Overlap {
    present: Option<String>,
    /// Since when each reading found no overlap; `None` before the first reading, and while there is one.
    absent_since: Option<Uptime>,
    /// How often an overlap appeared.
    appearances: u32,
}

impl Ipv4Overlap {
    /// Returns what counts as overlapping the range.
    pub fn present(&self) -> Option<&str> {
        self.present.as_deref()
    }

    /// Takes a reading into account. One that failed changes nothing, and is not passed.
    pub fn read(&mut self, found: Option<String>, at: Uptime) {
        if let Some(found) = found {
            let absence = self.absent_since.take().map(|since| at.since(since));
            if absence.is_some_and(|absence| absence >= FORGET_AFTER) {
                self.appearances = 0;
            }
            if self.present.replace(found).is_none() {
                self.appearances = self.appearances.saturating_add(1);
            }
            return;
        }
        let since = *self.absent_since.get_or_insert(at);
        if at.since(since) >= self.absence() {
            self.present = None;
        }
    }

    /// The time for which the overlap must be absent.
    fn absence(&self) -> Duration {
        let doublings = self.appearances.saturating_sub(1).min(10);
        let absence = FIRST_ABSENCE.saturating_mul(1 << doublings);
        absence.min(MAX_ABSENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads each second, while a network overlaps the range in these seconds; returns the seconds at which IPv4 goes off and on.
    fn changes(seconds: u64, overlaps: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut overlap = Ipv4Overlap::default();
        let mut changes = Vec::new();
        for second in 0..seconds {
            let before = overlap.present.is_some();
            let found = overlaps(second).then(|| "10.0.2.0/24 (lan0)".to_owned());
            overlap.read(found, Uptime::from_secs(second));
            if overlap.present.is_some() != before {
                changes.push(second);
            }
        }
        changes
    }

    #[test]
    fn ipv4_goes_off_at_once_and_on_after_a_while() {
        assert_eq!(changes(100, |second| (5..20).contains(&second)), [5, 30]);
        assert_eq!(changes(100, |second| second < 20 && second != 7), [0, 30]);
    }

    #[test]
    fn a_network_that_comes_and_goes_keeps_ipv4_off() {
        let flapping = |second: u64| second.is_multiple_of(60) && second < 6000;
        let changes = changes(12_000, flapping);
        assert_eq!(changes, [0, 11, 60, 81, 120, 161, 180, 5941 + 80]);
    }

    #[test]
    fn earlier_overlaps_are_forgotten_after_an_hour() {
        let (early, late) = ([0, 60, 120, 180], 5000);
        let changes = changes(6000, |second| early.contains(&second) || second == late);
        assert_eq!(changes[changes.len() - 2..], [5000, 5011]);
    }
}
