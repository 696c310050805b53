//! Reads the time. No other module does so, so that tests can replace the clock.

use policies::units::Uptime;
use std::{sync::Arc, time::Duration};

/// Reads the time since boot. Actors receive it as a value, so that a test can pass its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Uptime + Send + Sync>);

impl Clock {
    /// Builds a clock that reads `CLOCK_BOOTTIME`, which continues during suspend and never jumps.
    pub fn boottime() -> Self {
        Self(Arc::new(|| {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
            let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
            Uptime(Duration::new(seconds, nanos))
        }))
    }

    /// Builds a clock that returns what `read` returns.
    pub fn from_fn(read: impl Fn() -> Uptime + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Returns the current time.
    pub fn now(&self) -> Uptime {
        (self.0)()
    }
}

/// Returns the wall clock's time since 1970 UTC. It may jump, so it serves only for timestamps that people read,
/// and for the validity of certificates.
pub fn wall() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Returns the time of the runtime's clock, which a test can pause and advance. It serves only to measure the time
/// between two moments of one process.
#[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
pub fn runtime_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
