//! Waits: for a condition, or for a span of time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Pause between two evaluations of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Evaluates `check` every 10 ms until it returns a value; returns `None` after `timeout`.
///
/// `check` runs at least once, even with a timeout of zero.
pub fn wait_until<T>(timeout: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let result = check();
        if result.is_some() || Instant::now() >= deadline {
            return result;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Blocks the calling thread for this span.
pub fn pause(span: Duration) {
    thread::sleep(span);
}
