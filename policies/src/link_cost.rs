//! Computes what babeld will make a link cost from its round trip.

use std::time::Duration;

/// The cost of a link by its round trip, in Babel's metric: a hop, and a penalty that grows linearly between two
/// round trips.
///
/// babeld is configured with the same numbers (`rtt-min` and so on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkCost {
    /// Metric of a link without penalty, when all hellos arrive.
    pub hop: u16,
    /// Up to this round trip there is no penalty.
    pub rtt_min: Duration,
    /// From this round trip on the penalty is full; above `rtt_min`.
    pub rtt_max: Duration,
    /// The full penalty, in metric.
    pub max_penalty: u16,
}

impl LinkCost {
    /// The metric of a link with that round trip.
    pub fn metric(self, rtt: Duration) -> u32 {
        let width = self.rtt_max.saturating_sub(self.rtt_min).as_micros().max(1);
        let above = rtt.saturating_sub(self.rtt_min).as_micros().min(width);
        let penalty = u128::from(self.max_penalty) * above / width;
        u32::from(self.hop).saturating_add(u32::try_from(penalty).unwrap_or(u32::MAX))
    }
}

impl Default for LinkCost {
    fn default() -> Self {
        Self {
            hop: 96,
            rtt_min: Duration::from_millis(10),
            rtt_max: Duration::from_millis(500),
            max_penalty: 5000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rtt_ms: u64, expected: u32) {
        let metric = LinkCost::default().metric(Duration::from_millis(rtt_ms));
        assert_eq!(metric, expected);
    }

    #[test]
    fn the_penalty_begins_at_ten_milliseconds_and_is_full_at_half_a_second() {
        check(0, 96);
        check(10, 96);
        check(20, 96 + 102);
        check(255, 96 + 2500);
        check(500, 5096);
        check(9_000, 5096);
    }
}
