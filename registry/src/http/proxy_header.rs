//! Reads the header that a proxy sends before a connection's bytes (HAProxy's PROXY protocol, versions 1 and 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most bytes of a header; version 2 may carry further fields after the addresses.
pub const MAX_HEADER_BYTES: usize = 1024;

/// The start of a header of version 1, and its longest length.
const TEXT_START: &[u8] = b"PROXY ";
const MAX_TEXT_BYTES: usize = 107;
/// The start of a header of version 2.
const BINARY_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The outcome of reading the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// More bytes are needed.
    Incomplete,
    /// The bytes are no header.
    Invalid,
    /// The header is complete.
    Complete {
        /// The address of the client; `None` if the proxy connected for itself, as for a health check.
        client: Option<IpAddr>,
        /// The length of the header in bytes.
        length: usize,
    },
}

/// Reads the header at the start of `bytes`.
pub fn read(bytes: &[u8]) -> ProxyHeader {
    let starts = |start: &[u8]| {
        bytes
            .iter()
            .zip(start)
            .all(|(found, wanted)| found == wanted)
    };
    if starts(BINARY_START) {
        read_binary(bytes).unwrap_or(ProxyHeader::Incomplete)
    } else if starts(TEXT_START) {
        read_text(bytes)
    } else {
        ProxyHeader::Invalid
    }
}

fn read_text(bytes: &[u8]) -> ProxyHeader {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
        let is_too_long = bytes.len() >= MAX_TEXT_BYTES;
        return if is_too_long {
            ProxyHeader::Invalid
        } else {
            ProxyHeader::Incomplete
        };
    };
    let line = bytes
        .get(..end)
        .and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.unwrap_or_default().split(' ').skip(1);
    let length = end + 2;
    let client = match (words.next(), words.next()) {
        _ if length > MAX_TEXT_BYTES => return ProxyHeader::Invalid,
        (Some("UNKNOWN"), _) => None,
        (Some("TCP4"), Some(client)) => client.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        (Some("TCP6"), Some(client)) => client.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        (_, _) => return ProxyHeader::Invalid,
    };
    let is_unknown = line.is_some_and(|line| line.starts_with("PROXY UNKNOWN"));
    if client.is_none() && !is_unknown {
        return ProxyHeader::Invalid;
    }
    ProxyHeader::Complete { client, length }
}

/// Reads a header of version 2; `None` while it is incomplete.
fn read_binary(bytes: &[u8]) -> Option<ProxyHeader> {
    let [command, family, high, low] = *bytes.get(BINARY_START.len()..)?.first_chunk()?;
    let start = BINARY_START.len() + 4;
    let length = start + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER_BYTES {
        return Some(ProxyHeader::Invalid);
    }
    let fields = bytes.get(start..length)?;
    let client = match (command, family) {
        // LOCAL: the proxy's own connection.
        (0x20, _) => None,
        (0x21, 0x11) => match fields.first_chunk::<4>() {
            Some(client) if fields.len() >= 12 => Some(IpAddr::from(*client)),
            Some(_) | None => return Some(ProxyHeader::Invalid),
        },
        (0x21, 0x21) => match fields.first_chunk::<16>() {
            Some(client) if fields.len() >= 36 => Some(IpAddr::from(*client)),
            Some(_) | None => return Some(ProxyHeader::Invalid),
        },
        (0x21, 0x00) => None,
        (_, _) => return Some(ProxyHeader::Invalid),
    };
    Some(ProxyHeader::Complete { client, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &[u8], client: Option<&str>) {
        let expected = ProxyHeader::Complete {
            client: client.map(|client| client.parse().unwrap()),
            length: header.len(),
        };
        assert_eq!(read(&[header, b"\x16\x03\x01"].concat()), expected);
        for length in 0..header.len() {
            assert_eq!(read(&header[..length]), ProxyHeader::Incomplete, "{length}");
        }
    }

    #[track_caller]
    fn check_invalid(bytes: &[u8]) {
        assert_eq!(
            read(bytes),
            ProxyHeader::Invalid,
            "{}",
            bytes.escape_ascii()
        );
    }

    #[test]
    fn headers_of_version_1_are_read() {
        check(
            b"PROXY TCP4 45.67.0.9 45.67.0.2 4000 9443\r\n",
            Some("45.67.0.9"),
        );
        check(
            b"PROXY TCP6 2001:db8::9 2001:db8::2 4000 9443\r\n",
            Some("2001:db8::9"),
        );
        check(b"PROXY UNKNOWN\r\n", None);
    }

    #[test]
    fn headers_of_version_2_are_read_with_fields_after_the_addresses() {
        let header = |command: u8, family: u8, fields: &[u8]| {
            let length = u16::try_from(fields.len()).unwrap().to_be_bytes();
            [BINARY_START, &[command, family][..], &length, fields].concat()
        };
        let ports = [15, 160, 36, 227];
        let ipv4 = [&[45, 67, 0, 9, 45, 67, 0, 2], &ports[..]].concat();
        check(&header(0x21, 0x11, &ipv4), Some("45.67.0.9"));
        let ipv4_with_fields = [&ipv4[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        check(&header(0x21, 0x11, &ipv4_with_fields), Some("45.67.0.9"));
        let address = "2001:db8::9".parse::<Ipv6Addr>().unwrap().octets();
        let ipv6 = [&address[..], &address, &ports].concat();
        check(&header(0x21, 0x21, &ipv6), Some("2001:db8::9"));
        check(&header(0x20, 0x00, &[]), None);
        check_invalid(&header(0x21, 0x11, &ipv4[..11]));
        check_invalid(&header(0x21, 0x31, &ipv6));
        check_invalid(&header(0x22, 0x11, &ipv4));
        check_invalid(&header(0x21, 0x11, &[0; 1_010]));
    }

    #[test]
    fn other_bytes_are_no_header() {
        check_invalid(b"\x16\x03\x01");
        check_invalid(b"GET / HTTP/1.1\r\n");
        check_invalid(b"PROXY TCP4 2001:db8::9 2001:db8::2 1 1\r\n");
        check_invalid(b"PROXY TCP4 45.67.0.9\nx 1 1\r\n");
        check_invalid(b"PROXY UDP4 45.67.0.9 45.67.0.2 1 1\r\n");
        check_invalid(&[b"PROXY TCP4 ", &[b'1'; 107][..]].concat());
    }
}
