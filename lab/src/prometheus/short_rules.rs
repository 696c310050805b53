//! Shortens the shipped rules, so that alerts fire and end within minutes.

use super::shipped_rules;
use crate::Lab;
use anyhow::Result;
use std::{fs, path::PathBuf};

/// What each `for` becomes, in seconds.
pub const SHORT_FOR_S: u64 = 5;
/// A range of ten minutes or more becomes a tenth, within these limits, in seconds.
const MIN_RANGE_S: u64 = 60;
const MAX_RANGE_S: u64 = 120;
/// Ranges shorter than this stay, in seconds.
const LONG_RANGE_S: u64 = 600;

/// Writes the shipped rules with a `for` of 5 s for each alert, and with short ranges: 10 m become 60 s, and 30 m and
/// more become 120 s. Thresholds and all else are as shipped.
///
/// # Errors
/// Fails if a file cannot be read or written.
pub fn short_rules(lab: &Lab) -> Result<PathBuf> {
    let file = lab.folder().join("short.rules.yml");
    fs::write(&file, shortened(&fs::read_to_string(shipped_rules())?))?;
    Ok(file)
}

fn shortened(rules: &str) -> String {
    let line = |line: &str| match line.split_once("for: ") {
        Some((indentation, _)) if indentation.trim().is_empty() => {
            format!("{indentation}for: {SHORT_FOR_S}s\n")
        }
        Some(_) | None => format!("{}\n", with_short_ranges(line)),
    };
    rules.lines().map(line).collect()
}

/// The line with shorter ranges, such as `[6h]`.
fn with_short_ranges(line: &str) -> String {
    let mut parts = line.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let short = part.split_once(']').and_then(|(range, rest)| {
            let seconds = seconds(range).filter(|seconds| *seconds >= LONG_RANGE_S)?;
            let short = (seconds / 10).clamp(MIN_RANGE_S, MAX_RANGE_S);
            Some(format!("{short}s]{rest}"))
        });
        text + "[" + &short.unwrap_or_else(|| part.to_owned())
    })
}

/// The seconds of a range such as `10m`; `None` for anything else.
fn seconds(range: &str) -> Option<u64> {
    let unit = range.chars().next_back()?;
    let number: u64 = range.strip_suffix(unit)?.parse().ok()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        assert_eq!(shortened(line), format!("{expected}\n"));
    }

    #[test]
    fn waiting_times_and_long_ranges_become_short_and_nothing_else_changes() {
        check("        for: 30m", "        for: 5s");
        check("increase(a[10m]) > 2", "increase(a[60s]) > 2");
        check("increase(a[6h]) / b[30m]", "increase(a[120s]) / b[120s]");
        check("rate(a{b=~\"[0-9]\"}[5m])", "rate(a{b=~\"[0-9]\"}[5m])");
        check("'waiting for: an hour'", "'waiting for: an hour'");
    }
}
