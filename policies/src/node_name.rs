//! The name that the registry gives to a node: one label of DNS, compared without regard to case.

use crate::names::InvalidName;
use std::{fmt, str::FromStr, sync::Arc};

/// Most characters of a name (RFC 1035, section 2.3.4).
const MAX_LENGTH: usize = 63;

/// Digits of a serial number in hex, by which the registry's operator can name nodes too.
const SERIAL_DIGITS: usize = 32;

/// The name of each host for itself (RFC 6761, section 6.3), which a line in `/etc/hosts` must not lead to a node.
const LOCALHOST: &str = "localhost";

/// A node's name, in lower case. Parsing folds the case; printing and parsing round-trip exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The rule that a name obeys, in words.
    pub const RULE: &str = "one DNS label: 1 to 63 of a-z, 0-9 and '-', no hyphen at either end, neither the 32 hex digits of a serial number nor localhost";

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether a text is a name that is in lower case already.
    pub fn is_normalized(text: &str) -> bool {
        text.parse::<Self>().is_ok_and(|name| name.as_str() == text)
    }
}

impl FromStr for NodeName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_serial =
            text.len() == SERIAL_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_valid = (1..=MAX_LENGTH).contains(&text.len())
            && text.bytes().all(is_allowed)
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !is_serial
            && !text.eq_ignore_ascii_case(LOCALHOST);
        if is_valid {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err(InvalidName {
                expected: Self::RULE,
            })
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<&str>) {
        let parsed = name.parse::<NodeName>().ok();
        assert_eq!(parsed.as_ref().map(NodeName::as_str), expected, "{name:?}");
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
        check("localhost", None);
        check("LocalHost", None);
        check(&"a".repeat(64), None);
        check(&"0".repeat(32), None);
        check(&"AbCdEf01".repeat(4), None);
        // The long s and the Kelvin sign have counterparts in ASCII, but only for Unicode.
        check("\u{17f}", None);
        check("\u{212a}", None);
    }

    #[test]
    fn a_name_in_upper_case_is_not_normalized() {
        let is_normalized = NodeName::is_normalized;
        assert!(is_normalized("printer") && !is_normalized("Printer") && !is_normalized("a.b"));
    }
}
