//! Answers of a router by PCP: what is granted is bounded, and belongs to the request.

use policies::names::Transport;
use std::net::Ipv6Addr;
use wire::pcp::{LENGTH, MapAnswer, MapRequest, NONCE_LENGTH};

/// The longest lease that is believed, in seconds.
const MAX_LEASE_S: u32 = 86_400;

/// The input is the datagram of a router.
pub fn check(input: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        let request = MapRequest {
            client: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
            nonce: [b'n'; NONCE_LENGTH],
            transport,
            port: 1194,
            lease_s: 3600,
        };
        let Some(MapAnswer::Granted { lease_s, .. }) = request.read_answer(input) else {
            continue;
        };
        assert!(lease_s <= MAX_LEASE_S);
        let (answered, asked) = (input.get(24..42), request.to_bytes());
        let is_same = |from: usize, to: usize| input.get(from..to) == asked.get(from..to);
        assert!(is_same(24, 37) && is_same(40, 42), "{answered:?}");
        assert!(input.len() >= LENGTH);
    }
}
