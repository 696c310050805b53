//! The delays between calls to the registry.

use std::time::Duration;

/// Delay after the first request for peers. It doubles with each request that is answered.
const MIN_REQUEST_DELAY: Duration = Duration::from_secs(1);

/// Maximum delay between two requests for peers that were answered. Peers are requested after each announcement, too.
const MAX_REQUEST_DELAY: Duration = Duration::from_secs(600);

/// Delay after the first call that failed. It doubles with each further call that fails, and starts over with an answer.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Maximum delay after a call that failed.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The next delays, each of which the caller spreads at random. An answer and a failure do not lengthen each other's
/// delay: after hours of answers one failed call must not delay the next one by a minute.
#[derive(Debug)]
pub(super) struct CallDelays {
    request: Duration,
    retry: Duration,
}

impl Default for CallDelays {
    fn default() -> Self {
        Self {
            request: MIN_REQUEST_DELAY,
            retry: MIN_RETRY_DELAY,
        }
    }
}

impl CallDelays {
    /// Notes that the registry answered, whatever was called.
    pub(super) fn note_answer(&mut self) {
        self.retry = MIN_RETRY_DELAY;
    }

    /// Returns the mean delay from an answered request for peers to the next one.
    pub(super) fn after_answered_request(&mut self) -> Duration {
        self.note_answer();
        take_and_double(&mut self.request, MAX_REQUEST_DELAY)
    }

    /// Returns the mean delay from a call that failed to the next one of its kind.
    pub(super) fn after_failure(&mut self) -> Duration {
        take_and_double(&mut self.retry, MAX_RETRY_DELAY)
    }
}

fn take_and_double(delay: &mut Duration, max: Duration) -> Duration {
    let doubled = (*delay * 2).min(max);
    std::mem::replace(delay, doubled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds<const N: usize>(mut next: impl FnMut() -> Duration) -> [u64; N] {
        std::array::from_fn(|_| next().as_secs())
    }

    #[test]
    fn the_delays_of_requests_and_of_failed_calls_double_up_to_their_own_limits() {
        let mut delays = CallDelays::default();
        let requests = seconds::<11>(|| delays.after_answered_request());
        assert_eq!(requests, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
        let retries = seconds::<8>(|| delays.after_failure());
        assert_eq!(retries, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn an_answer_ends_the_delay_of_failures_and_a_failure_does_not_shorten_that_of_requests() {
        let mut delays = CallDelays::default();
        seconds::<5>(|| delays.after_failure());
        delays.note_answer();
        assert_eq!(seconds(|| delays.after_failure()), [1, 2]);
        assert_eq!(seconds(|| delays.after_answered_request()), [1, 2]);
        assert_eq!(seconds(|| delays.after_failure()), [1]);
        assert_eq!(seconds(|| delays.after_answered_request()), [4]);
    }
}
