//! Counts durations by their size, as Prometheus' histograms do.

use std::time::Duration;

/// The bounds of round trips: those of a LAN up to those of a satellite, or of a line with full buffers.
pub const RTT_BOUNDS: &[Duration] = &[
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
];

/// The bounds of set-up times and of healing: from a handshake in a LAN up to half a minute.
pub const SPAN_BOUNDS: &[Duration] = &[
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// How many durations were observed, and how many of them are at most as long as each bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: &'static [Duration],
    /// For each bound, the number of durations up to it that are longer than the bound before it. Durations above the last bound
    /// are in `count` only.
    counts: Vec<u64>,
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// Creates an empty histogram with these bounds, which must ascend.
    pub fn new(bounds: &'static [Duration]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len()],
            count: 0,
            sum: Duration::ZERO,
        }
    }

    /// Counts one duration.
    pub fn observe(&mut self, duration: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < duration);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(duration);
    }

    /// Adds the durations of another histogram with the same bounds.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Returns each bound with the number of durations that are at most as long, in ascending order. Durations above the last
    /// bound are in [`Self::count`] only.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut sum = 0_u64;
        self.bounds
            .iter()
            .zip(&self.counts)
            .map(move |(bound, count)| {
                sum = sum.saturating_add(*count);
                (*bound, sum)
            })
    }

    /// Returns the number of all durations, including those above the last bound.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the sum of all durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn of(millis: &[u64]) -> Histogram {
        let mut histogram = Histogram::new(RTT_BOUNDS);
        millis.iter().for_each(|span| histogram.observe(MS(*span)));
        histogram
    }

    #[test]
    fn a_bucket_counts_all_durations_up_to_its_bound() {
        let histogram = of(&[0, 1, 2, 6, 25, 9_000]);
        let buckets: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(buckets, [2, 3, 5, 5, 5, 5, 5]);
        assert_eq!((histogram.count(), histogram.sum()), (6, MS(9_034)));
    }

    #[test]
    fn a_sum_of_histograms_has_the_durations_of_both() {
        let mut sum = of(&[1, 30]);
        sum.add(&of(&[30, 9_000]));
        assert_eq!(sum, of(&[1, 30, 30, 9_000]));
    }
}
