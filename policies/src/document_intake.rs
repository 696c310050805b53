//! Decides when an offered document is verified, and when a call about documents is repeated.
//!
//! Documents are written to disk one at a time, and those that arrive meanwhile wait. This module knows nothing of their
//! content.

use crate::{names::Prefix, units::Uptime};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// The time within which [`MAX_PEER_DOCUMENTS`] documents of one peer are verified.
pub const PEER_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of documents of one peer that are verified within [`PEER_INTERVAL`]: one of each kind, since a peer sends
/// both at once to a node that was offline. A verification takes 0.2 ms of CPU time.
pub const MAX_PEER_DOCUMENTS: u8 = 2;
/// Maximum number of documents that wait while another one is written to disk.
pub const MAX_QUEUED_DOCUMENTS: usize = 8;
/// Interval at which versions are compared with a random neighbour, ± 50 %.
pub const COMPARE_INTERVAL: Duration = Duration::from_secs(300);
/// Delay before the first repetition of a failed call to a neighbour, and between two long polls if the first one brought a document.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Maximum delay between two calls to a neighbour that does not answer.
const MAX_CALL_RETRY_DELAY: Duration = Duration::from_secs(60);
/// Delay before a failed long poll is first retried, ± 50 %. It doubles with each failure, up to [`MAX_POLL_RETRY_DELAY`].
const MIN_POLL_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Longest delay before a failed long poll is retried, ± 50 %.
pub const MAX_POLL_RETRY_DELAY: Duration = Duration::from_secs(60);

/// A document, with the peer that sent it; `None` for the registry.
pub type Offer<D> = (D, Option<Prefix>);

/// The documents that wait for the disk, and those that each peer sent lately.
#[derive(Clone, Debug)]
pub struct DocumentIntake<D> {
    waiting: VecDeque<Offer<D>>,
    is_writing: bool,
    /// The start of the current interval of each peer, and the number of its documents in it.
    received: BTreeMap<Prefix, (Uptime, u8)>,
}

impl<D> Default for DocumentIntake<D> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            is_writing: false,
            received: BTreeMap::new(),
        }
    }
}

impl<D> DocumentIntake<D> {
    /// Takes an offered document, and returns the one to verify now. Returns `None` if the document waits, or if its peer
    /// sends too many.
    pub fn offer(&mut self, document: D, from: Option<Prefix>, now: Uptime) -> Option<Offer<D>> {
        if from.is_some_and(|peer| self.sends_too_many(peer, now)) {
            return None;
        }
        if self.is_writing {
            self.waiting
                .truncate(MAX_QUEUED_DOCUMENTS.saturating_sub(1));
            self.waiting.push_back((document, from));
            return None;
        }
        Some((document, from))
    }

    /// Counts a document of a peer.
    fn sends_too_many(&mut self, peer: Prefix, now: Uptime) -> bool {
        self.received
            .retain(|_, (since, _)| now.since(*since) < PEER_INTERVAL);
        let (_, count) = self.received.entry(peer).or_insert((now, 0));
        let is_above_limit = *count >= MAX_PEER_DOCUMENTS;
        *count = count.saturating_add(1);
        is_above_limit
    }

    /// Records that an accepted document is being written to disk.
    pub fn on_write_started(&mut self) {
        self.is_writing = true;
    }

    /// Records that the write has ended. The caller then verifies [`take_next`](Self::take_next) until there is none.
    pub fn on_write_finished(&mut self) {
        self.is_writing = false;
    }

    /// Removes and returns the next waiting document to verify; `None` while another one is written to disk.
    pub fn take_next(&mut self) -> Option<Offer<D>> {
        if self.is_writing {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Returns whether no document waits or is being written.
    pub fn is_idle(&self) -> bool {
        !self.is_writing && self.waiting.is_empty()
    }
}

/// Whether, and after which delay, a failed call to a neighbour is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// Delay before the next call; `None` if there is none.
    retry: Option<Duration>,
}

impl Attempts {
    /// The first of the calls that follow each other until one is answered, or the peer is a neighbour no more.
    pub fn until_answered() -> Self {
        Self {
            retry: Some(RETRY_DELAY),
        }
    }

    /// A call that is not repeated.
    pub fn one() -> Self {
        Self { retry: None }
    }

    /// Returns the delay after a failed call, and the call that follows it; `None` if it is not repeated. The delay is
    /// [`RETRY_DELAY`] at first, and doubles up to a minute. Versions are compared with each new neighbour, so nothing is lost when
    /// calls end with a neighbour that is gone.
    pub fn after_failure(self, is_neighbour: bool) -> Option<(Duration, Self)> {
        let delay = self.retry.filter(|_| is_neighbour)?;
        let next = delay.saturating_mul(2).min(MAX_CALL_RETRY_DELAY);
        Some((delay, Self { retry: Some(next) }))
    }
}

/// The outcome of a long poll at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollOutcome {
    /// The registry sent a document.
    Document,
    /// The registry had no news until the end of the poll.
    NoNews,
    /// The registry did not answer, or answered with an error.
    Failed,
}

/// The delays between long polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollDelays {
    retry: Duration,
}

impl Default for PollDelays {
    fn default() -> Self {
        Self {
            retry: MIN_POLL_RETRY_DELAY,
        }
    }
}

impl PollDelays {
    /// Returns the mean delay before the poll that follows one with this outcome.
    pub fn after(&mut self, outcome: PollOutcome) -> Duration {
        match outcome {
            PollOutcome::Document => {
                self.retry = MIN_POLL_RETRY_DELAY;
                // If we reject the document, the next poll returns it again at once; the pause limits that.
                RETRY_DELAY
            }
            PollOutcome::NoNews => {
                self.retry = MIN_POLL_RETRY_DELAY;
                Duration::ZERO
            }
            PollOutcome::Failed => {
                let delay = self.retry;
                self.retry = delay.saturating_mul(2).min(MAX_POLL_RETRY_DELAY);
                delay
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Option<Prefix> {
        Prefix::new(number, 16)
    }

    fn at(millis: u64) -> Uptime {
        Uptime::from_secs(1_000) + Duration::from_millis(millis)
    }

    #[test]
    fn a_document_waits_for_the_disk_and_those_behind_it_are_not_forgotten() {
        let mut intake = DocumentIntake::default();
        assert_eq!(intake.offer('a', peer(2), at(0)), Some(('a', peer(2))));
        intake.on_write_started();
        for (document, from) in [('b', peer(3)), ('c', peer(4)), ('d', None)] {
            assert_eq!(intake.offer(document, from, at(1)), None);
        }
        assert_eq!(intake.take_next(), None);
        intake.on_write_finished();
        assert_eq!(intake.take_next(), Some(('b', peer(3))));
        assert_eq!(intake.take_next(), Some(('c', peer(4))));
        intake.on_write_started();
        assert_eq!(intake.take_next(), None);
        assert!(!intake.is_idle());
        intake.on_write_finished();
        assert_eq!(intake.take_next(), Some(('d', None)));
        assert!(intake.is_idle());
    }

    #[test]
    fn a_peer_may_send_one_document_of_each_kind_at_once_and_is_heard_again_after_the_interval() {
        let mut intake = DocumentIntake::default();
        let mut is_taken = |millis| intake.offer('a', peer(2), at(millis)).is_some();
        assert_eq!([is_taken(0), is_taken(0), is_taken(1)], [true, true, false]);
        // A peer that goes on sending is not ignored for ever.
        let taken = (1..=20).filter(|step| is_taken(step * 100)).count();
        assert_eq!(taken, 7);
        assert!(intake.offer('a', None, at(1)).is_some());
    }

    #[test]
    fn the_queue_is_bounded_and_its_last_place_is_for_the_latest() {
        let mut intake = DocumentIntake::default();
        intake.on_write_started();
        for number in 0..20 {
            assert_eq!(intake.offer(number, None, at(0)), None);
        }
        intake.on_write_finished();
        let waiting: Vec<_> = std::iter::from_fn(|| intake.take_next()).collect();
        assert_eq!(waiting.len(), MAX_QUEUED_DOCUMENTS);
        assert_eq!(waiting.last(), Some(&(19, None)));
    }

    #[test]
    fn a_failed_call_is_repeated_while_the_peer_is_a_neighbour_and_polls_back_off() {
        let (mut attempts, mut waited) = (Attempts::until_answered(), Vec::new());
        for _ in 0..8 {
            let (delay, next) = attempts.after_failure(true).unwrap();
            waited.push(delay.as_secs());
            attempts = next;
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(Attempts::until_answered().after_failure(false), None);
        assert_eq!(Attempts::one().after_failure(true), None);

        let mut delays = PollDelays::default();
        let failed = [0; 8].map(|_| delays.after(PollOutcome::Failed).as_secs());
        assert_eq!(failed, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(delays.after(PollOutcome::NoNews), Duration::ZERO);
        assert_eq!(delays.after(PollOutcome::Document), RETRY_DELAY);
        assert_eq!(delays.after(PollOutcome::Failed), MIN_POLL_RETRY_DELAY);
    }
}
