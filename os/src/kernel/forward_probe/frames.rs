//! Encodes the frames of a forwarding probe, and recognises that the host looks for their next hop.
//!
//! The packets carry UDP, as payload does: many firewalls let ICMP pass, and drop the rest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The MAC of the link of the probe.
pub(super) const MAC: [u8; 6] = [0x02, 0x57, 0x52, 0x46, 0, 0];
/// The MAC of the neighbour that seems to send the packets.
const NEIGHBOUR_MAC: [u8; 6] = [0x02, 0x57, 0x52, 0x46, 0, 1];
/// The type of service of IPv4 packets, which no other packet is likely to have. The route for the probe applies to it alone.
pub(super) const TYPE_OF_SERVICE: u8 = 0x14;

const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
const NEIGHBOR_SOLICITATION: u8 = 135;
/// Operation of an ARP packet (RFC 826): request.
const ARP_REQUEST: [u8; 2] = [0, 1];
/// The source and target port of the packets, of the dynamic range (RFC 6335).
const PORTS: [u16; 2] = [50_000, 50_001];
/// Length of a UDP header without data.
const UDP_LENGTH: u8 = 8;
/// Number of hops that the packets may take.
const HOP_LIMIT: u8 = 64;

/// Offsets in a frame: of the type of the packet, and of the packet.
const ETHERTYPE_AT: usize = 12;
const PACKET_AT: usize = 14;
/// Offsets in a frame with a Neighbor Solicitation (RFC 4861): of the header that follows that of IPv6, of the ICMPv6 message, and of
/// the target.
const NEXT_HEADER_AT: usize = PACKET_AT + 6;
const ICMP_AT: usize = PACKET_AT + 40;
const TARGET_AT: usize = ICMP_AT + 8;
/// Offsets in a frame with an ARP packet: of the operation, and of the target.
const OPERATION_AT: usize = PACKET_AT + 6;
const ARP_TARGET_AT: usize = PACKET_AT + 24;

/// Returns whether a frame looks for this address, by ARP or a Neighbor Solicitation.
pub(super) fn is_solicitation(frame: &[u8], address: IpAddr) -> bool {
    let has = |at: usize, octets: &[u8]| frame.get(at..at + octets.len()) == Some(octets);
    match address {
        IpAddr::V6(address) => {
            has(ETHERTYPE_AT, &ETHERTYPE_IPV6)
                && has(NEXT_HEADER_AT, &[ICMPV6])
                && has(ICMP_AT, &[NEIGHBOR_SOLICITATION])
                && has(TARGET_AT, &address.octets())
        }
        IpAddr::V4(address) => {
            has(ETHERTYPE_AT, &ETHERTYPE_ARP)
                && has(OPERATION_AT, &ARP_REQUEST)
                && has(ARP_TARGET_AT, &address.octets())
        }
    }
}

/// Encodes a frame with an IPv6 packet without data.
pub(super) fn ipv6_frame(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut summed = [from.octets(), to.octets()].concat();
    summed.extend([0, 0, 0, UDP_LENGTH, 0, 0, 0, UDP]);
    let mut frame = header(ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0, 0, UDP_LENGTH, UDP, HOP_LIMIT]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(udp(summed));
    frame
}

/// Encodes a frame with an IPv4 packet without data.
pub(super) fn ipv4_frame(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let length = 20 + UDP_LENGTH;
    let mut packet = vec![
        0x45,
        TYPE_OF_SERVICE,
        0,
        length,
        0,
        0,
        0,
        0,
        HOP_LIMIT,
        UDP,
        0,
        0,
    ];
    packet.extend(from.octets());
    packet.extend(to.octets());
    set_checksum(&mut packet, 10);
    let mut summed = [from.octets(), to.octets()].concat();
    summed.extend([0, UDP, 0, UDP_LENGTH]);
    let mut frame = header(ETHERTYPE_IPV4);
    frame.extend(packet);
    frame.extend(udp(summed));
    frame
}

fn header(ethertype: [u8; 2]) -> Vec<u8> {
    let mut header = [MAC, NEIGHBOUR_MAC].concat();
    header.extend(ethertype);
    header
}

/// Encodes a UDP header (RFC 768) whose checksum also covers this pseudo-header.
fn udp(pseudo_header: Vec<u8>) -> Vec<u8> {
    let [from, to] = PORTS;
    let words = [from, to, u16::from(UDP_LENGTH), 0];
    let udp: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    let start = pseudo_header.len();
    let mut summed = pseudo_header;
    summed.extend(udp);
    set_checksum(&mut summed, start + 6);
    summed.split_off(start)
}

/// Writes the Internet checksum (RFC 1071) of these bytes, whose number is even, to the two at this offset, which are zero.
fn set_checksum(bytes: &mut [u8], at: usize) {
    let words = bytes.chunks_exact(2).filter_map(<[u8]>::first_chunk);
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = u16::try_from(sum).map_or(0, |sum| !sum);
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the sum over the bytes and their checksum is all ones, whose complement is zero.
    #[track_caller]
    fn check_sum(bytes: &[u8]) {
        let mut bytes = [bytes, &[0, 0]].concat();
        let end = bytes.len() - 2;
        set_checksum(&mut bytes, end);
        assert_eq!(bytes[end..], [0, 0]);
    }

    #[test]
    fn packets_have_valid_checksums() {
        let (from, to): (Ipv6Addr, Ipv6Addr) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8::2".parse().unwrap(),
        );
        let frame = ipv6_frame(from, to);
        assert_eq!(frame.len(), PACKET_AT + 48);
        let pseudo_header = [&frame[PACKET_AT + 8..PACKET_AT + 40], &[0, 8, 0, UDP]].concat();
        check_sum(&[&pseudo_header, &frame[PACKET_AT + 40..]].concat());

        let frame = ipv4_frame(Ipv4Addr::new(10, 7, 0, 254), Ipv4Addr::new(10, 7, 0, 240));
        assert_eq!(frame.len(), PACKET_AT + 28);
        check_sum(&frame[PACKET_AT..PACKET_AT + 20]);
        let pseudo_header = [&frame[PACKET_AT + 12..PACKET_AT + 20], &[0, 8, 0, UDP]].concat();
        check_sum(&[&pseudo_header, &frame[PACKET_AT + 20..]].concat());
    }

    #[test]
    fn only_a_solicitation_of_that_address_counts() {
        let address: Ipv6Addr = "2001:db8::2".parse().unwrap();
        let mut frame = vec![0; TARGET_AT + 16];
        frame[ETHERTYPE_AT..PACKET_AT].copy_from_slice(&ETHERTYPE_IPV6);
        frame[NEXT_HEADER_AT] = ICMPV6;
        frame[ICMP_AT] = NEIGHBOR_SOLICITATION;
        frame[TARGET_AT..].copy_from_slice(&address.octets());
        assert!(is_solicitation(&frame, address.into()));
        assert!(!is_solicitation(&frame, "2001:db8::3".parse().unwrap()));
        assert!(!is_solicitation(&frame[..TARGET_AT + 15], address.into()));
        frame[ICMP_AT] = UDP;
        assert!(!is_solicitation(&frame, address.into()));
    }

    #[test]
    fn only_an_arp_request_for_that_address_counts() {
        let address = Ipv4Addr::new(10, 7, 0, 240);
        let mut frame = vec![0; ARP_TARGET_AT + 4];
        frame[ETHERTYPE_AT..PACKET_AT].copy_from_slice(&ETHERTYPE_ARP);
        frame[OPERATION_AT + 1] = 1;
        frame[ARP_TARGET_AT..].copy_from_slice(&address.octets());
        assert!(is_solicitation(&frame, address.into()));
        assert!(!is_solicitation(&frame, "10.7.0.241".parse().unwrap()));
        // An answer.
        frame[OPERATION_AT + 1] = 2;
        assert!(!is_solicitation(&frame, address.into()));
    }
}
