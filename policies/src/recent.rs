//! Counts probes over the last minute and the last ten.

use crate::{observation::ProbeCounts, units::Uptime};
use std::{collections::BTreeMap, time::Duration};

/// Loss is judged over this, less up to a step: ten minutes hold 33 to 40 probes of an idle tunnel.
pub const LOSS_SPAN: Duration = Duration::from_secs(600);
/// What operators see of loss is counted over this, less up to a step.
const SHORT_SPAN: Duration = Duration::from_secs(60);

/// Probes counted over both spans.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    minute: Recent,
    lately: Recent,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            minute: Recent::over(SHORT_SPAN),
            lately: Recent::over(LOSS_SPAN),
        }
    }
}

impl Counted {
    /// Counts probes that were sent, or found to be lost, now.
    pub(crate) fn count(&mut self, now: Uptime, sent: u32, lost: u32) {
        self.minute.count(now, sent, lost);
        self.lately.count(now, sent, lost);
    }

    /// Of the last minute.
    pub(crate) fn minute(&self, now: Uptime) -> ProbeCounts {
        self.minute.sums(now)
    }

    /// Of [`LOSS_SPAN`].
    pub(crate) fn lately(&self, now: Uptime) -> ProbeCounts {
        self.lately.sums(now)
    }
}

/// Counts of a recent span, kept in [`STEPS`].
#[derive(Clone, Debug)]
struct Recent {
    step: Duration,
    counts: BTreeMap<u128, ProbeCounts>,
}

/// Steps of a recent span; the oldest is forgotten as a whole.
const STEPS: u8 = 6;

impl Recent {
    fn over(span: Duration) -> Self {
        Self {
            step: span / u32::from(STEPS),
            counts: BTreeMap::new(),
        }
    }

    fn step_of(&self, now: Uptime) -> u128 {
        now.0
            .as_millis()
            .checked_div(self.step.as_millis())
            .unwrap_or(0)
    }

    fn count(&mut self, now: Uptime, sent: u32, lost: u32) {
        let step = self.step_of(now);
        self.counts.retain(|old, _| *old + u128::from(STEPS) > step);
        let entry = self.counts.entry(step).or_default();
        entry.sent = entry.sent.saturating_add(sent);
        entry.lost = entry.lost.saturating_add(lost);
    }

    fn sums(&self, now: Uptime) -> ProbeCounts {
        let step = self.step_of(now);
        let recent = self
            .counts
            .iter()
            .filter(|(old, _)| **old + u128::from(STEPS) > step);
        recent.fold(ProbeCounts::default(), |sum, (_, one)| ProbeCounts {
            sent: sum.sent.saturating_add(one.sent),
            lost: sum.lost.saturating_add(one.lost),
        })
    }
}
