//! Names of nodes: one label of DNS each, compared without regard to case.

/// Most characters of a name (RFC 1035, section 2.3.4).
const MAX_LENGTH: usize = 63;

/// Digits of a serial number in hex, by which nodes can be named too.
const SERIAL_DIGITS: usize = 32;

/// A valid name, in words.
pub const VALID_NAME: &str = "one DNS label: 1 to 63 of a-z, 0-9 and '-', no hyphen at either end, and not the 32 hex digits of a serial number";

/// Returns whether a name is one label of DNS in lower case.
pub fn is_valid(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_serial =
        name.len() == SERIAL_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (1..=MAX_LENGTH).contains(&name.len())
        && name.bytes().all(is_allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !is_serial
}

/// Folds a name to lower case; `None` if it is no valid name.
pub fn normalize(name: &str) -> Option<String> {
    Some(name.to_ascii_lowercase()).filter(|name| is_valid(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<&str>) {
        assert_eq!(normalize(name).as_deref(), expected, "{name:?}");
    }

    #[test]
    fn a_name_is_one_label_of_dns_and_folded_to_lower_case() {
        check("a", Some("a"));
        check("printer", Some("printer"));
        check("Printer-2", Some("printer-2"));
        check("7", Some("7"));
        check("a--b", Some("a--b"));
        check("xn--prfstelle-75a", Some("xn--prfstelle-75a"));
        check(&"A".repeat(63), Some("a".repeat(63).as_str()));
        check(&"0".repeat(31), Some("0".repeat(31).as_str()));
        check(&"g".repeat(32), Some("g".repeat(32).as_str()));
    }

    #[test]
    fn what_is_no_label_of_dns_is_no_name() {
        for name in [
            "",
            "-",
            "-a",
            "a-",
            "a b",
            "a.b",
            "a_b",
            "a/16",
            "7/16",
            "ä",
            "Ä",
            "a\n",
            "a\0",
            " a",
            "\u{202e}a",
        ] {
            check(name, None);
        }
        check(&"a".repeat(64), None);
        check(&"0".repeat(32), None);
        check(&"AbCdEf01".repeat(4), None);
        // The long s and the Kelvin sign have counterparts in ASCII, but only for Unicode.
        check("\u{17f}", None);
        check("\u{212a}", None);
    }

    #[test]
    fn a_name_that_is_not_normalized_is_not_valid() {
        assert!(is_valid("printer") && !is_valid("Printer") && !is_valid("a.b"));
    }
}
