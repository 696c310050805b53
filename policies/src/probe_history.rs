//! Counts the probes of one tunnel: over the last minute, over the last ten minutes, and all of them.

use crate::{
    histogram::{Histogram, RTT_BOUNDS},
    observation::ProbeCounts,
    units::Uptime,
};
use std::{collections::BTreeMap, time::Duration};

/// Loss is judged over this span, less up to a step: ten minutes hold 33 to 40 probes of an idle tunnel.
pub const LOSS_SPAN: Duration = Duration::from_secs(600);
/// The loss that operators see is counted over this span, less up to a step.
const SHORT_SPAN: Duration = Duration::from_secs(60);
/// Steps that a span is divided into; the oldest is dropped as a whole.
const STEPS: u8 = 6;

/// All probes of one tunnel, or of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTotals {
    /// Number of probes sent.
    pub sent: u64,
    /// Number of these that were not answered in time.
    pub lost: u64,
    /// The round trips of those that were answered.
    pub rtt: Histogram,
}

impl Default for ProbeTotals {
    fn default() -> Self {
        Self {
            sent: 0,
            lost: 0,
            rtt: Histogram::new(RTT_BOUNDS),
        }
    }
}

impl ProbeTotals {
    /// Adds the probes of other tunnels.
    pub fn add(&mut self, other: &Self) {
        self.sent = self.sent.saturating_add(other.sent);
        self.lost = self.lost.saturating_add(other.lost);
        self.rtt.add(&other.rtt);
    }
}

/// The counts of probes over both spans, and since the tunnel came up.
#[derive(Clone, Debug)]
pub(crate) struct ProbeHistory {
    minute: SlidingCount,
    ten_minutes: SlidingCount,
    totals: ProbeTotals,
}

impl Default for ProbeHistory {
    fn default() -> Self {
        Self {
            minute: SlidingCount::new(SHORT_SPAN),
            ten_minutes: SlidingCount::new(LOSS_SPAN),
            totals: ProbeTotals::default(),
        }
    }
}

impl ProbeHistory {
    /// Counts probes that were sent, or found to be lost, now.
    pub(crate) fn count(&mut self, now: Uptime, sent: u32, lost: u32) {
        self.minute.count(now, sent, lost);
        self.ten_minutes.count(now, sent, lost);
        self.totals.sent = self.totals.sent.saturating_add(u64::from(sent));
        self.totals.lost = self.totals.lost.saturating_add(u64::from(lost));
    }

    /// Counts the round trip of a probe that was answered.
    pub(crate) fn count_rtt(&mut self, rtt: Duration) {
        self.totals.rtt.observe(rtt);
    }

    /// The counts since the tunnel came up.
    pub(crate) fn totals(&self) -> &ProbeTotals {
        &self.totals
    }

    /// The counts of the last minute.
    pub(crate) fn minute(&self, now: Uptime) -> ProbeCounts {
        self.minute.sum(now)
    }

    /// The counts of the last [`LOSS_SPAN`].
    pub(crate) fn ten_minutes(&self, now: Uptime) -> ProbeCounts {
        self.ten_minutes.sum(now)
    }
}

/// Counts over the latest span, kept in [`STEPS`] steps.
#[derive(Clone, Debug)]
struct SlidingCount {
    step: Duration,
    counts: BTreeMap<u128, ProbeCounts>,
}

impl SlidingCount {
    fn new(span: Duration) -> Self {
        Self {
            step: span / u32::from(STEPS),
            counts: BTreeMap::new(),
        }
    }

    fn step_at(&self, now: Uptime) -> u128 {
        let step = self.step.as_millis();
        now.0.as_millis().checked_div(step).unwrap_or(0)
    }

    fn count(&mut self, now: Uptime, sent: u32, lost: u32) {
        let step = self.step_at(now);
        self.counts.retain(|old, _| *old + u128::from(STEPS) > step);
        let counts = self.counts.entry(step).or_default();
        counts.sent = counts.sent.saturating_add(sent);
        counts.lost = counts.lost.saturating_add(lost);
    }

    fn sum(&self, now: Uptime) -> ProbeCounts {
        let step = self.step_at(now);
        let recent = self
            .counts
            .iter()
            .filter(|(old, _)| **old + u128::from(STEPS) > step);
        recent.fold(ProbeCounts::default(), |sum, (_, counts)| ProbeCounts {
            sent: sum.sent.saturating_add(counts.sent),
            lost: sum.lost.saturating_add(counts.lost),
        })
    }
}
