//! Prints lines of progress on the standard error, and rounds numbers for people.

use std::{
    fmt::Display,
    io::Write,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Prints one line of progress on the standard error, after the seconds since the first line.
pub fn progress(line: impl Display) {
    static START: OnceLock<Instant> = OnceLock::new();
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs_f64();
    // A user who closed our standard error does not want these lines.
    writeln!(std::io::stderr(), "{seconds:7.1} s  {line}").ok();
}

/// The span in seconds, rounded to milliseconds.
pub fn seconds(span: Duration) -> f64 {
    round(span.as_secs_f64(), 3)
}

/// The number rounded to that many decimal places.
pub fn round(number: f64, decimal_places: i32) -> f64 {
    let scale = 10f64.powi(decimal_places);
    (number * scale).round() / scale
}
