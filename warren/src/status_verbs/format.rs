//! Formats numbers with their units, times and tables, for people.

use comfy_table::{CellAlignment, Table, presets};
use std::{fmt::Display, ops::Range, time::Duration};

/// Shown while the daemon only logs what its policy orders.
pub(super) const DRY_RUN: &str = "dry run: decisions are logged and not carried out";

/// Returns an empty table without a frame.
pub(super) fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Aligns the numbers in these columns.
pub(super) fn align_right(table: &mut Table, columns: Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Shows a dash for an unknown value.
pub(super) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// Shows a node by its name and prefix, or by its prefix alone.
pub(crate) fn node(prefix: &str, name: Option<&str>) -> String {
    name.map_or_else(
        || prefix.to_owned(),
        |name| printable(&format!("{name} ({prefix})")),
    )
}

/// Shows `yes`, or a dash.
pub(super) fn yes_or_dash(is_true: bool) -> String {
    if is_true { "yes" } else { "-" }.to_owned()
}

/// Replaces control characters, so that a text from another node cannot steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Splits a text of the policy into the sentence for people and the numbers (`name=value …`) after it.
pub(super) fn split_numbers(text: &str) -> (&str, &str) {
    let Some((before, _)) = text.split_once('=') else {
        return (text, "");
    };
    let name_start = before.rfind(' ').map_or(0, |blank| blank + 1);
    let (sentence, numbers) = text.split_at(name_start);
    (sentence.trim_end_matches([';', ':', ' ']), numbers)
}

/// Shows a Babel metric, with a word for infinity (RFC 8966, section 3.5.2).
pub(super) fn metric(metric: u16) -> String {
    if metric == u16::MAX {
        "unreachable".to_owned()
    } else {
        metric.to_string()
    }
}

/// Shows a time in UTC, down to seconds.
pub(crate) fn utc_time(time: impl Display) -> String {
    let text = time.to_string();
    let (seconds, _) = text.split_once('.').unwrap_or((&text, ""));
    let (date, clock) = seconds.split_once(' ').unwrap_or((seconds, ""));
    format!("{date} {clock:0>8}Z")
}

/// Shows seconds as milliseconds.
pub(crate) fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1_000.0)
}

/// Shows the two largest parts of a time span, such as `3h 20m`.
pub(super) fn time_span(seconds: f64) -> String {
    let total = Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .as_secs();
    let (days, hours) = (total / 86_400, total / 3_600 % 24);
    let (minutes, seconds) = (total / 60 % 60, total % 60);
    if days > 0 {
        format!("{days}d {hours}h")
    } else if hours > 0 {
        format!("{hours}h {minutes}m")
    } else if minutes > 0 {
        format!("{minutes}m {seconds}s")
    } else {
        format!("{seconds}s")
    }
}

/// Shows a ratio from 0 to 1 as a percentage.
pub(crate) fn percent(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

/// Converts a counter for display; exact up to 2^53.
pub(super) fn float(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_two_digits_for_its_hour() {
        assert_eq!(
            utc_time("2023-11-14 0:37:17.5 +00:00:00"),
            "2023-11-14 00:37:17Z"
        );
        assert_eq!(
            utc_time("2023-11-14 22:13:20.0 +00:00:00"),
            "2023-11-14 22:13:20Z"
        );
    }

    #[test]
    fn a_time_span_shows_its_two_largest_parts() {
        let shown = [7.9, 61.0, 4_000.0, 90_000.0].map(time_span);
        assert_eq!(shown, ["7s", "1m 1s", "1h 6m", "1d 1h"]);
    }

    #[test]
    fn a_text_of_the_policy_is_split_before_its_first_number() {
        assert_eq!(
            split_numbers("kept: fair share; carried=1 B rate=2 B/s"),
            ("kept: fair share", "carried=1 B rate=2 B/s")
        );
        assert_eq!(split_numbers("usage=3 B/s"), ("", "usage=3 B/s"));
        assert_eq!(split_numbers("kept"), ("kept", ""));
    }
}
