//! Counts probes over the last minute and the last ten minutes.

use crate::{observation::ProbeCounts, units::Uptime};
use std::{collections::BTreeMap, time::Duration};

/// Loss is judged over this span, less up to a step: ten minutes hold 33 to 40 probes of an idle tunnel.
pub const LOSS_SPAN: Duration = Duration::from_secs(600);
/// The loss that operators see is counted over this span, less up to a step.
const SHORT_SPAN: Duration = Duration::from_secs(60);
/// Steps that a span is divided into; the oldest is dropped as a whole.
const STEPS: u8 = 6;

/// The counts of probes over both spans.
#[derive(Clone, Debug)]
pub(crate) struct ProbeHistory {
    minute: SlidingCount,
    ten_minutes: SlidingCount,
}

impl Default for ProbeHistory {
    fn default() -> Self {
        Self {
            minute: SlidingCount::new(SHORT_SPAN),
            ten_minutes: SlidingCount::new(LOSS_SPAN),
        }
    }
}

impl ProbeHistory {
    /// Counts probes that were sent, or found to be lost, now.
    pub(crate) fn count(&mut self, now: Uptime, sent: u32, lost: u32) {
        self.minute.count(now, sent, lost);
        self.ten_minutes.count(now, sent, lost);
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
