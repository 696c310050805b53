//! Converts numbers to the signed integers of Prometheus and SQLite.

/// Returns the number, or the largest signed one if it is greater; no count or version comes near that limit.
pub(crate) fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
