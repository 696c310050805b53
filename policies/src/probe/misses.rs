//! Counts probes that were not answered in time, and notices that nothing at all is received.

use super::{MAX_SAMPLE_AGE, Probing, SILENCE_TIME};
use crate::units::Uptime;
use std::time::Duration;

impl Probing {
    /// The number of probes in a row that are missed, and the moment at which the first of them was sent.
    pub(super) fn missed(&self, now: Uptime) -> (usize, Option<Uptime>) {
        let timeout = self.timeout();
        let is_missed = |sent: &Uptime| *sent > self.answered_until && now.since(*sent) >= timeout;
        let sent = self.outstanding.iter().map(|(_, sent)| *sent);
        let mut missed = sent.filter(is_missed);
        let first = missed.next();
        (usize::from(first.is_some()) + missed.count(), first)
    }

    /// Returns whether recent counters show that nothing at all was received.
    pub(super) fn is_silent(&self, now: Uptime) -> bool {
        self.is_silent_for(SILENCE_TIME, now)
    }

    /// Returns whether recent counters show that nothing at all was received for this long.
    pub(super) fn is_silent_for(&self, time: Duration, now: Uptime) -> bool {
        let sampled = self.last_sample.map(|sample| sample.at).unwrap_or_default();
        let is_recent = now.since(sampled) <= MAX_SAMPLE_AGE;
        let silent_since = self.silent_since;
        is_recent && silent_since.is_some_and(|since| sampled.since(since) >= time)
    }
}
