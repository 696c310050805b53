//! Spells serial numbers of certificates: hex as documents have it, decimal as OpenVPN has it.

/// Serial numbers have at most 20 octets (RFC 5280, section 4.1.2.2).
pub const MAX_OCTETS: usize = 20;

/// The one spelling by which serial numbers are compared: lower-case hex without leading zeros; zero is `0`.
///
/// `None` where the text is no hex number or longer than a serial number can be.
pub fn normal(hex: &str) -> Option<String> {
    let digits = hex.trim_start_matches('0');
    let good = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !good || hex.is_empty() || digits.len() > MAX_OCTETS * 2 {
        return None;
    }
    Some(match digits {
        "" => "0".to_owned(),
        digits => digits.to_ascii_lowercase(),
    })
}

/// The same of a certificate's raw octets.
pub fn of_octets(octets: &[u8]) -> Option<String> {
    normal(&crate::hex::hex(octets))
}

/// The number in decimal, as OpenVPN names the files of revoked serial numbers.
pub fn decimal(hex: &str) -> Option<String> {
    let mut little: Vec<u32> = vec![0];
    for digit in normal(hex)?.chars() {
        let mut carry = digit.to_digit(16)?;
        for place in &mut little {
            let value = *place * 16 + carry;
            (*place, carry) = (value % 10, value / 10);
        }
        while carry > 0 {
            little.push(carry % 10);
            carry /= 10;
        }
    }
    little
        .iter()
        .rev()
        .map(|digit| char::from_digit(*digit, 10))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(hex: &str, expected: Option<(&str, &str)>) {
        assert_eq!(
            normal(hex).as_deref(),
            expected.map(|(normal, _)| normal),
            "{hex}"
        );
        assert_eq!(
            decimal(hex).as_deref(),
            expected.map(|(_, decimal)| decimal),
            "{hex}"
        );
    }

    #[test]
    fn a_serial_number_has_one_spelling_and_a_decimal_one() {
        check("07", Some(("7", "7")));
        check("7", Some(("7", "7")));
        check("00", Some(("0", "0")));
        check("0100", Some(("100", "256")));
        check("0120010DB80042", Some(("120010db80042", "316663873929282")));
        check(
            &"ff".repeat(20),
            Some((
                &"ff".repeat(20),
                "1461501637330902918203684832716283019655932542975",
            )),
        );
    }

    #[test]
    fn what_is_no_serial_number_has_none() {
        check("", None);
        check("+1", None);
        check("1x", None);
        check(&"1".repeat(41), None);
    }
}
