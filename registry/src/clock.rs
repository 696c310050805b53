//! The wall clock of a registry: the life of a certificate is judged by it.

use std::sync::Arc;
use time::OffsetDateTime;

/// Reads the wall clock in seconds since 1970 UTC; tests supply their own.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The system's wall clock.
pub fn system_clock() -> WallClock {
    Arc::new(|| OffsetDateTime::now_utc().unix_timestamp())
}
