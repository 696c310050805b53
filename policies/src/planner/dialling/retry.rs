//! Decides when a peer that could not be dialled is tried again.

use crate::{observation::Candidate, rng::Rng, units::Uptime};
use std::time::Duration;

/// Delay before a failed peer is dialled again; it doubles with each failure, and up to half of it is added at random.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(2);
/// Longest delay before a failed peer is dialled again, without the random part.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(600);

/// The moment from which a failed peer may be dialled again; `None` if it has not failed.
pub(super) fn retry_at(candidate: &Candidate, salt: u64) -> Option<Uptime> {
    let doubled = 2u32
        .checked_pow(candidate.failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    let delay = MIN_RETRY_DELAY.saturating_mul(doubled).min(MAX_RETRY_DELAY);
    // The delay is the same in each plan, but differs by peer and number of failures.
    let seed = u64::from(candidate.peer.number()) << 32 | u64::from(candidate.failures);
    let delay = Rng::new(seed ^ salt).span(delay, delay.saturating_add(delay / 2));
    candidate.failed_at.map(|failed| failed + delay)
}
