//! Points in time, and the wall clock by which a registry judges certificates.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A point in time: whole seconds since 1970-01-01 00:00:00 UTC, without leap seconds.
///
/// It is displayed in RFC 3339, or as seconds where the calendar of RFC 3339 (years 0 to 9999) does not reach.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    /// Returns the moment this many seconds later, or the last one that can be represented.
    pub const fn saturating_add_s(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Returns the moment this many seconds earlier, or the first one that can be represented.
    pub const fn saturating_sub_s(self, seconds: i64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }

    /// Returns the seconds from `earlier` to this moment; negative if this moment is the earlier one.
    pub const fn seconds_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the moment as a date and time in UTC; `None` beyond the calendar.
    pub fn to_utc(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(self.0).ok()
    }
}

impl From<OffsetDateTime> for UnixSeconds {
    fn from(moment: OffsetDateTime) -> Self {
        Self(moment.unix_timestamp())
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_utc().and_then(|utc| utc.format(&Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} s", self.0),
        }
    }
}

/// Reads the wall clock; tests supply their own.
pub type WallClock = Arc<dyn Fn() -> UnixSeconds + Send + Sync>;

/// Returns the wall clock of the system.
pub fn system_clock() -> WallClock {
    Arc::new(|| OffsetDateTime::now_utc().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds: i64, displayed: &str) {
        assert_eq!(UnixSeconds(seconds).to_string(), displayed);
    }

    #[test]
    fn a_moment_is_displayed_in_rfc_3339_and_beyond_the_calendar_in_seconds() {
        check(0, "1970-01-01T00:00:00Z");
        check(1_795_000_000, "2026-11-18T11:06:40Z");
        check(-1, "1969-12-31T23:59:59Z");
        check(i64::MAX, "9223372036854775807 s");
        check(i64::MIN, "-9223372036854775808 s");
    }

    #[test]
    fn additions_and_differences_stop_at_the_first_and_last_moment() {
        let (first, last) = (UnixSeconds(i64::MIN), UnixSeconds(i64::MAX));
        assert_eq!(last.saturating_add_s(1), last);
        assert_eq!(first.saturating_sub_s(1), first);
        assert_eq!(last.seconds_since(first), i64::MAX);
        assert_eq!(UnixSeconds(7).seconds_since(UnixSeconds(9)), -2);
    }

    #[test]
    fn a_moment_is_a_plain_number_in_json() {
        assert_eq!(serde_json::to_string(&UnixSeconds(5)).unwrap(), "5");
        assert_eq!(
            serde_json::from_str::<UnixSeconds>("5").unwrap(),
            UnixSeconds(5)
        );
    }
}
