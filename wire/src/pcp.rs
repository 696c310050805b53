//! The MAP request of PCP for an IPv6 address of this host, and its answer (RFC 6887, sections 7 and 11).
//!
//! Where there is no NAT, such a request opens the firewall of the router for one port: a pinhole.

use policies::names::Transport;
use std::net::Ipv6Addr;

/// The port of PCP on a router.
pub const PORT: u16 = 5351;
/// Length of a request and of its answer.
pub const LENGTH: usize = 60;
/// Length of the random number by which a pinhole is known to be ours.
pub const NONCE_LENGTH: usize = 12;
/// The version of the protocol.
const VERSION: u8 = 2;
/// The opcode of MAP.
const MAP: u8 = 1;
/// The bit that an answer's opcode has.
const ANSWER: u8 = 0x80;
/// The longest lease that is believed, in seconds: a day.
const MAX_LEASE_S: u32 = 86_400;

/// A request to open a port of this host, to renew that, or to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// The address of this host, from which the request has to be sent.
    pub client: Ipv6Addr,
    /// The random number by which the router recognises later requests.
    pub nonce: [u8; NONCE_LENGTH],
    /// UDP or TCP.
    pub transport: Transport,
    /// The port of this host.
    pub port: u16,
    /// The duration of the lease in seconds; 0 ends it.
    pub lease_s: u32,
}

/// What a router answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapAnswer {
    /// The port is open, for so many seconds; 0 if it was to be closed.
    Granted {
        /// The duration of the lease in seconds, at most a day.
        lease_s: u32,
        /// The address and the port at which others reach it: this host's own, unless there is a NAT.
        external: (Ipv6Addr, u16),
    },
    /// The router does not open it; the code is that of section 7.4.
    Rejected(u8),
}

impl MapRequest {
    /// Returns the datagram.
    pub fn to_bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let protocol = match self.transport {
            Transport::Udp => 17,
            Transport::Tcp => 6,
        };
        let parts: [(usize, &[u8]); 8] = [
            (0, &[VERSION, MAP]),
            (4, &self.lease_s.to_be_bytes()),
            (8, &self.client.octets()),
            (24, &self.nonce),
            (36, &[protocol]),
            (40, &self.port.to_be_bytes()),
            (42, &self.port.to_be_bytes()),
            (44, &self.client.octets()),
        ];
        for (at, part) in parts {
            let end = at.saturating_add(part.len());
            if let Some(target) = bytes.get_mut(at..end) {
                target.copy_from_slice(part);
            }
        }
        bytes
    }

    /// Returns what the router answered; `None` if the datagram is no answer to this request.
    pub fn read_answer(&self, datagram: &[u8]) -> Option<MapAnswer> {
        let request = self.to_bytes();
        let [version, opcode, _, code] = *datagram.first_chunk()?;
        if opcode != MAP | ANSWER {
            return None;
        }
        if version != VERSION || code != 0 {
            return Some(MapAnswer::Rejected(code));
        }
        let is_same = |from: usize, to: usize| datagram.get(from..to) == request.get(from..to);
        if datagram.len() < LENGTH || !is_same(24, 37) || !is_same(40, 42) {
            return None;
        }
        let lease_s = u32::from_be_bytes(*datagram.get(4..)?.first_chunk()?);
        let port = u16::from_be_bytes(*datagram.get(42..)?.first_chunk()?);
        let address: [u8; 16] = *datagram.get(44..)?.first_chunk()?;
        Some(MapAnswer::Granted {
            lease_s: lease_s.min(MAX_LEASE_S),
            external: (address.into(), port),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: MapRequest = MapRequest {
        client: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
        nonce: *b"a nonce of..",
        transport: Transport::Udp,
        port: 1194,
        lease_s: 3600,
    };

    /// The answer of a router that grants half an hour.
    fn answer() -> [u8; LENGTH] {
        let mut bytes = REQUEST.to_bytes();
        bytes[1] = MAP | ANSWER;
        bytes[4..8].copy_from_slice(&1800u32.to_be_bytes());
        bytes[8..24].fill(9);
        bytes
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut [u8; LENGTH]), expected: Option<MapAnswer>) {
        let mut bytes = answer();
        change(&mut bytes);
        assert_eq!(REQUEST.read_answer(&bytes), expected);
    }

    #[test]
    fn a_request_has_the_layout_of_the_standard() {
        let bytes = REQUEST.to_bytes();
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 14, 16]);
        assert_eq!(bytes[8..24], REQUEST.client.octets());
        assert_eq!(bytes[24..36], REQUEST.nonce);
        assert_eq!(bytes[36..44], [17, 0, 0, 0, 4, 170, 4, 170]);
        assert_eq!(bytes[44..], REQUEST.client.octets());
    }

    #[test]
    fn only_the_answer_to_the_request_itself_counts() {
        let granted = |lease_s| {
            let external = (REQUEST.client, REQUEST.port);
            Some(MapAnswer::Granted { lease_s, external })
        };
        check(|_| (), granted(1800));
        check(|bytes| bytes[4..8].fill(255), granted(86_400));
        check(|bytes| bytes[24] = 0, None);
        check(|bytes| bytes[36] = 6, None);
        check(|bytes| bytes[40] = 0, None);
        check(|bytes| bytes[1] = MAP, None);
        check(|bytes| bytes[3] = 8, Some(MapAnswer::Rejected(8)));
        check(|bytes| bytes[0] = 1, Some(MapAnswer::Rejected(0)));
        for length in 0..LENGTH {
            assert_eq!(REQUEST.read_answer(&answer()[..length]), None, "{length}");
        }
    }
}
