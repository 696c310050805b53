//! Writes the few Babel packets that the daemon sends beside babeld (RFC 8966, sections 4.2 and 4.6), and recognises Seqno Requests.

use ipnet::{IpNet, Ipv6Net};
use policies::observation::INFINITY;
use std::net::Ipv6Addr;

/// Babel's port (RFC 8966, section 4).
pub const PORT: u16 = 6696;
/// All Babel speakers on a link (RFC 8966, section 4).
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 6);
/// The maximum number of destinations that fit into one packet, whatever their lengths: 20 bytes each and 32 bytes at the end, on links of
/// 1280 bytes and more.
pub const MAX_REQUESTS: usize = 59;

pub(crate) const MAGIC: u8 = 42;
pub(crate) const VERSION: u8 = 2;
/// The TLV types Pad1 (RFC 8966, section 4.6.1), which is a single byte, and Acknowledgment Request (section 4.6.3).
pub(crate) const PAD1: u8 = 0;
const ACK_REQUEST: u8 = 2;
/// The TLV type Hello (RFC 8966, section 4.6.5).
const HELLO: u8 = 4;
/// Hundredths of a second until the next hello that a hello of the daemon announces. babeld counts a hello as missed after 1.7 times this,
/// and doubles the cost of the link only with the third one that is missed. By then its own hellos have come, even if they are sent every 30 s.
const HELLO_INTERVAL: u16 = 1000;
/// The TLV type IHU, "I heard you" (RFC 8966, section 4.6.6).
const IHU: u8 = 5;
/// Route Request (RFC 8966, section 4.6.10).
const REQUEST: u8 = 9;
/// Seqno Request (RFC 8966, section 4.6.11).
const SEQNO_REQUEST: u8 = 10;
/// Update (RFC 8966, section 4.6.9).
pub(crate) const UPDATE: u8 = 8;
/// The sub-TLV of a source prefix (RFC 9079, section 7.1); a router that does not know it must ignore the whole TLV.
const SOURCE_PREFIX: u8 = 128;
/// Hundredths of a second until the next IHU; babeld uses the last one for three times as long.
const IHU_INTERVAL: u16 = 3000;
/// Address encodings (RFC 8966, section 4.1.4).
const WILDCARD: u8 = 0;
pub(crate) const IPV4: u8 = 1;
pub(crate) const IPV6: u8 = 2;

/// The end of a packet of requests, which makes babeld answer all of them within 0.15 s instead of 0.6 to 1.6 s (by the source of babeld 1.12.1).
///
/// It is a Seqno Request for the range of the node that answers. babeld answers such a request urgently, and sends all
/// waiting updates with the answer. The router id is that of the node that asks, so that the answering node does not
/// increase its sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Urgency {
    /// The range of the neighbour that answers.
    pub neighbour: Ipv6Net,
    /// The router id of the node that asks.
    pub router_id: [u8; 8],
}

impl Urgency {
    fn tlv(self) -> Vec<u8> {
        let bits = self.neighbour.prefix_len();
        let bytes = bits.div_ceil(8);
        let octets = self.neighbour.network().octets();
        // The sequence number is zero. The hop count is 1, so the request is not forwarded.
        let head = [
            SEQNO_REQUEST,
            bytes.saturating_add(14),
            IPV6,
            bits,
            0,
            0,
            1,
            0,
        ];
        head.into_iter()
            .chain(self.router_id)
            .chain(octets.into_iter().take(usize::from(bytes)))
            .collect()
    }
}

/// Builds a packet with a hello and a request for all routes. babeld answers it with an IHU, and with its whole table, unless it
/// sent that table on the same link within its last hello interval.
///
/// The hello makes the sender a neighbour that can be reached, before its babeld sends the next periodic hello. A `seqno` that differs
/// from the last one by more than 16 begins a new history of hellos (RFC 8966, appendix A.1).
pub fn greet_and_request_all(seqno: u16, urgency: Urgency) -> Vec<u8> {
    let ([high, low], [interval_high, interval_low]) =
        (seqno.to_be_bytes(), HELLO_INTERVAL.to_be_bytes());
    let hello = vec![HELLO, 6, 0, 0, high, low, interval_high, interval_low];
    let request = vec![REQUEST, 2, WILDCARD, 0];
    packet([hello, request, urgency.tlv()].concat())
}

/// Builds a packet with Route Requests for these destinations, at most the first [`MAX_REQUESTS`] of them.
/// Each is answered, by a retraction if there is no route.
pub fn request_some(destinations: &[IpNet], urgency: Urgency) -> Vec<u8> {
    let requests = destinations
        .iter()
        .take(MAX_REQUESTS)
        .flat_map(|to| request(*to));
    packet(requests.chain(urgency.tlv()).collect())
}

/// Builds a packet with nothing but the request of an [`Urgency`].
pub fn request_urgently(urgency: Urgency) -> Vec<u8> {
    packet(urgency.tlv())
}

/// Builds a packet that requests an acknowledgment within a hundredth of a second. babeld sends it together with everything
/// that waits in its buffer for the same neighbour.
pub fn ack_request() -> Vec<u8> {
    packet(vec![ACK_REQUEST, 6, 0, 0, 0, 0, 0, 1])
}

/// Returns whether a packet contains a Seqno Request that may be forwarded: with a hop count above 1.
pub fn has_forwardable_request(packet: &[u8]) -> bool {
    let [MAGIC, VERSION, _, _, body @ ..] = packet else {
        return false;
    };
    let mut rest = body;
    loop {
        rest = match rest {
            // Type, length, encoding, prefix length, two bytes of sequence number, hop count.
            [SEQNO_REQUEST, _, _, _, _, _, hops, ..] if *hops > 1 => return true,
            [PAD1, rest @ ..] => rest,
            [_, length, rest @ ..] => rest.get(usize::from(*length)..).unwrap_or_default(),
            [] | [_] => return false,
        };
    }
}

/// Builds a packet that announces the cost of sending to us (96 is a good hop, 65535 is
/// unreachable).
pub fn ihu(cost: u16) -> Vec<u8> {
    let ([cost_high, cost_low], [high, low]) = (cost.to_be_bytes(), IHU_INTERVAL.to_be_bytes());
    packet(vec![IHU, 6, WILDCARD, 0, cost_high, cost_low, high, low])
}

/// Builds a packet that requests the default route for packets from `network`.
pub fn request_default(network: Ipv6Net) -> Vec<u8> {
    with_source(vec![REQUEST, 0, IPV6, 0], network)
}

/// Builds a packet that retracts our default route for packets from `network`.
pub fn retract_default(network: Ipv6Net) -> Vec<u8> {
    // Flags, prefix length, omitted bytes, interval and sequence number are zero: a retraction does not use them.
    let [high, low] = INFINITY.to_be_bytes();
    with_source(
        vec![UPDATE, 0, IPV6, 0, 0, 0, 0, 0, 0, 0, high, low],
        network,
    )
}

/// Starts a packet with this TLV for packets from `source` only; the length is filled in later.
fn with_source(mut tlv: Vec<u8>, source: Ipv6Net) -> Vec<u8> {
    let bits = source.prefix_len();
    let bytes = bits.div_ceil(8);
    tlv.extend([SOURCE_PREFIX, bytes.saturating_add(1), bits]);
    tlv.extend(
        source
            .network()
            .octets()
            .into_iter()
            .take(usize::from(bytes)),
    );
    let length = u8::try_from(tlv.len().saturating_sub(2)).unwrap_or_default();
    if let Some(place) = tlv.get_mut(1) {
        *place = length;
    }
    packet(tlv)
}

fn request(to: IpNet) -> Vec<u8> {
    let (encoding, octets) = match to {
        IpNet::V4(to) => (IPV4, to.network().octets().to_vec()),
        IpNet::V6(to) => (IPV6, to.network().octets().to_vec()),
    };
    let used = octets
        .into_iter()
        .take(usize::from(to.prefix_len().div_ceil(8)));
    let length = to.prefix_len().div_ceil(8).saturating_add(2);
    [REQUEST, length, encoding, to.prefix_len()]
        .into_iter()
        .chain(used)
        .collect()
}

fn packet(body: Vec<u8>) -> Vec<u8> {
    // At most MAX_REQUESTS requests of 20 bytes, and one of 32 bytes.
    let [high, low] = u16::try_from(body.len()).unwrap_or_default().to_be_bytes();
    [MAGIC, VERSION, high, low]
        .into_iter()
        .chain(body)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(destinations: &[&str], expected: &[u8]) {
        let destinations: Vec<IpNet> = destinations.iter().map(|to| to.parse().unwrap()).collect();
        let length = expected.len() - 4 + END.len();
        let packet = [
            &[42, 2, 0, u8::try_from(length).unwrap()],
            &expected[4..],
            END,
        ]
        .concat();
        assert_eq!(request_some(&destinations, urgency()), packet);
    }

    /// The Seqno Request that [`urgency`] stands for.
    const END: &[u8] = &[
        10, 22, 2, 64, 0, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0xfd, 0, 0, 1, 0, 2, 0, 9,
    ];

    fn urgency() -> Urgency {
        Urgency {
            neighbour: "fd00:1:2:9::/64".parse().unwrap(),
            router_id: [1, 2, 3, 4, 5, 6, 7, 8],
        }
    }

    #[test]
    fn a_greeting_is_a_hello_and_a_request_without_prefix() {
        let hello = [4, 6, 0, 0, 0x12, 0x34, 0x03, 0xe8];
        let packet = [&[42, 2, 0, 36], &hello[..], &[9, 2, 0, 0], END].concat();
        assert_eq!(greet_and_request_all(0x1234, urgency()), packet);
        assert_eq!(request_urgently(urgency()), [&[42, 2, 0, 24], END].concat());
    }

    #[test]
    fn a_destination_is_given_with_no_more_bytes_than_it_has() {
        check(
            &["fd00:1:2:7::/64"],
            &[42, 2, 0, 12, 9, 10, 2, 64, 0xfd, 0, 0, 1, 0, 2, 0, 7],
        );
        check(
            &["fd00:1:2:80::/57"],
            &[42, 2, 0, 12, 9, 10, 2, 57, 0xfd, 0, 0, 1, 0, 2, 0, 0x80],
        );
        check(
            &["10.0.7.128/25"],
            &[42, 2, 0, 8, 9, 6, 1, 25, 10, 0, 7, 128],
        );
        check(
            &["fd00::/8", "::/0"],
            &[42, 2, 0, 9, 9, 3, 2, 8, 0xfd, 9, 2, 2, 0],
        );
    }

    #[test]
    fn a_cost_is_sent_to_all_routers_on_the_link() {
        assert_eq!(ihu(2048), [42, 2, 0, 8, 5, 6, 0, 0, 8, 0, 0x0b, 0xb8]);
    }

    #[test]
    fn the_exit_route_is_requested_and_retracted_for_the_networks_packets_only() {
        let network = "fd00:1:2::/48".parse().unwrap();
        let source = [128, 7, 48, 0xfd, 0, 0, 1, 0, 2];
        assert_eq!(
            request_default(network),
            [&[42, 2, 0, 13, 9, 11, 2, 0], &source[..]].concat()
        );
        let retracted = [
            &[42, 2, 0, 21, 8, 19, 2, 0, 0, 0, 0, 0, 0, 0, 255, 255],
            &source[..],
        ]
        .concat();
        assert_eq!(retract_default(network), retracted);
    }

    #[test]
    fn a_seqno_request_that_may_be_forwarded_is_found_behind_any_other_part_of_a_packet() {
        let request = [10, 14, 2, 64, 0, 1, 127, 0, 2, 0x58, 0, 0x10, 0, 0, 0, 7];
        let with = |before: &[u8]| packet([before, &request].concat());
        assert!(has_forwardable_request(&with(&[])));
        assert!(has_forwardable_request(&with(&[
            0, 0, 5, 6, 0, 0, 0, 96, 1, 44
        ])));
        assert!(!has_forwardable_request(&ihu(96)));
        assert!(!has_forwardable_request(&ack_request()));
        let mut last_hop = with(&[]);
        last_hop[4 + 6] = 1;
        assert!(!has_forwardable_request(&last_hop));
        // A ten inside another part is none.
        assert!(!has_forwardable_request(&packet(vec![1, 2, 10, 14])));
        let mut other_version = with(&[]);
        other_version[1] = 1;
        assert!(!has_forwardable_request(&other_version));
        for length in 0..4 {
            assert!(!has_forwardable_request(&with(&[])[..length]));
        }
        assert!(!has_forwardable_request(&packet(vec![5, 200, 10])));
    }

    #[test]
    fn a_packet_never_outgrows_a_link() {
        let host: IpNet = "fd00::1/128".parse().unwrap();
        let urgency = Urgency {
            neighbour: "fd00::2/128".parse().unwrap(),
            ..urgency()
        };
        let packet = request_some(&vec![host; 1000], urgency);
        assert_eq!(packet.len(), 4 + MAX_REQUESTS * 20 + 32);
        assert!(packet.len() <= 1280 - 48);
    }
}
