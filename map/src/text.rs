//! Makes texts safe to be drawn, and shows numbers with their units.

use std::time::Duration;

/// Longest text of a label, in characters; the title of its node has all of it.
const MAX_LABEL_CHARS: usize = 16;

/// Escapes a text for an element or an attribute of XML. Characters that XML forbids, that steer a terminal or that change the
/// direction of writing become `?`.
pub fn escaped(text: &str) -> String {
    let is_unsafe = |c: char| {
        let changes_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c.is_control() || changes_direction || matches!(c, '\u{fffe}' | '\u{ffff}')
    };
    let safe: String = text
        .chars()
        .map(|c| if is_unsafe(c) { '?' } else { c })
        .collect();
    xml::escape::escape_str_attribute(&safe).into_owned()
}

/// Shortens a text to what a label has room for.
pub(crate) fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_LABEL_CHARS {
        return text.to_owned();
    }
    let kept: String = text.chars().take(MAX_LABEL_CHARS - 1).collect();
    format!("{kept}…")
}

/// Shows a number of bytes with a decimal prefix.
pub fn bytes(count: f64) -> String {
    if count < 1_000.0 {
        return format!("{count:.0} B");
    }
    let mut scaled = count / 1_000.0;
    for unit in ["kB", "MB", "GB"] {
        if scaled < 1_000.0 {
            return format!("{scaled:.1} {unit}");
        }
        scaled /= 1_000.0;
    }
    format!("{scaled:.1} TB")
}

/// Shows seconds as milliseconds.
pub(crate) fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1_000.0)
}

/// Shows a time span by its largest part.
pub(crate) fn time_span(seconds: f64) -> String {
    let total = Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .as_secs();
    match total {
        0..60 => format!("{total} s"),
        60..3_600 => format!("{} min", total / 60),
        3_600..86_400 => format!("{} h", total / 3_600),
        _ => format!("{} d", total / 86_400),
    }
}

/// Converts a counter for display; exact up to 2^53.
pub(crate) fn float(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_leave_its_element_or_attribute() {
        let hostile = "</text><script>alert('x')</script>\" onload=\"\u{202e}\u{1}&";
        let text = escaped(hostile);
        assert!(
            !text.contains(['<', '>', '"', '\'', '\u{202e}', '\u{1}']),
            "{text}"
        );
        assert!(text.ends_with("??&amp;"), "{text}");
        assert_eq!(escaped("printer (9/16)"), "printer (9/16)");
    }

    #[test]
    fn a_long_label_is_shortened_between_characters() {
        assert_eq!(shortened("printer"), "printer");
        assert_eq!(shortened(&"ü".repeat(20)), format!("{}…", "ü".repeat(15)));
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!(
            [0.0, 999.0, 1_500.0, 2.5e6, 3e9, 4e12].map(bytes),
            ["0 B", "999 B", "1.5 kB", "2.5 MB", "3.0 GB", "4.0 TB"]
        );
        assert_eq!(
            [7.9, 61.0, 4_000.0, 90_000.0].map(time_span),
            ["7 s", "1 min", "1 h", "1 d"]
        );
    }
}
