//! The one place that reads time.

use policies::units::Uptime;
use std::{sync::Arc, time::Duration};

/// Reads the time since boot; a value that is handed around, so that tests can supply their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Uptime + Send + Sync>);

impl Clock {
    /// `CLOCK_BOOTTIME`: goes on during suspend, never jumps with the wall clock.
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

    /// Returns the present moment.
    pub fn now(&self) -> Uptime {
        (self.0)()
    }
}

/// The wall clock's time since 1970 UTC, for time stamps that people read, and for the lives of
/// certificates; it may jump, so nothing else is decided by it.
pub fn wall() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The runtime's clock, which a test can pause and advance; for spans between two moments of one
/// process.
#[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
pub fn runtime_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
