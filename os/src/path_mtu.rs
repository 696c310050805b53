//! Reduces the MTU that the kernel assumes for the path to one peer.
//!
//! A router that cannot forward a large packet reports that with an ICMP message (RFC 1191, RFC 8201), and the
//! kernel then fragments what it sends to that destination. On many paths these messages are lost. The daemon, which
//! has found by probes that large packets do not arrive, sends the missing message to its own host. The kernel
//! remembers it for ten minutes, for that destination only, and applies it to the sockets of all processes.

use crate::route_check::{DISCARD, connect};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// The MTU that every path has (RFC 8200, section 5), in bytes.
pub const MIN_PATH_MTU: u16 = 1280;

/// ICMP type 3, code 4 (RFC 1191, section 4): the packet is too large to be forwarded unfragmented.
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
/// ICMPv6 type 2, code 0 (RFC 4443, section 3.2).
const PACKET_TOO_BIG: [u8; 2] = [2, 0];
/// IP protocol number of UDP.
const UDP: u8 = 17;
/// Length of the packet that the message claims was too large, in bytes.
const CLAIMED_LENGTH: u16 = 1500;

/// Makes the kernel send packets to `peer` in fragments of at most [`MIN_PATH_MTU`] bytes.
///
/// The route that counts is that of packets of `uid`. Nothing leaves the host.
///
/// # Errors
///
/// There is no route to `peer`, or the process lacks CAP_NET_RAW or CAP_CHOWN.
pub fn reduce_path_mtu(peer: IpAddr, uid: u32) -> io::Result<()> {
    let peer = peer.to_canonical();
    let (domain, protocol) = match peer {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    // The kernel looks the message's socket up, and applies the message to that socket's route.
    let sender = connect(peer, uid)?;
    let own = sender
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    let message = match (own.ip(), peer) {
        (IpAddr::V4(from), IpAddr::V4(to)) => fragmentation_needed(from, to, own.port()),
        (IpAddr::V6(from), IpAddr::V6(to)) => packet_too_big(from, to, own.port()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
    };
    let icmp = Socket::new(domain, Type::RAW, Some(protocol))?;
    icmp.set_nonblocking(true)?;
    let itself = SocketAddr::new(own.ip(), 0);
    icmp.send_to(&message, &itself.into()).map(drop)
}

/// Encodes the header of a UDP packet from this port to the discard port.
fn udp_header(port: u16) -> Vec<u8> {
    [port, DISCARD, CLAIMED_LENGTH - 20, 0]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

/// Encodes an ICMP message about a packet between these addresses, with its checksum.
fn fragmentation_needed(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let [length_high, length_low] = CLAIMED_LENGTH.to_be_bytes();
    // Version 4 with a header of five words; DF is set; 64 hops.
    let mut packet = vec![
        0x45,
        0,
        length_high,
        length_low,
        0,
        0,
        0x40,
        0,
        64,
        UDP,
        0,
        0,
    ];
    packet.extend(from.octets());
    packet.extend(to.octets());
    set_checksum(&mut packet, 10);
    let mut message = FRAGMENTATION_NEEDED.to_vec();
    message.extend([0; 4]);
    message.extend(MIN_PATH_MTU.to_be_bytes());
    message.extend(packet);
    message.extend(udp_header(port));
    set_checksum(&mut message, 2);
    message
}

/// Encodes an ICMPv6 message about a packet between these addresses; the kernel fills in its checksum.
fn packet_too_big(from: Ipv6Addr, to: Ipv6Addr, port: u16) -> Vec<u8> {
    let mut message = PACKET_TOO_BIG.to_vec();
    message.extend([0; 2]);
    message.extend(u32::from(MIN_PATH_MTU).to_be_bytes());
    message.extend([0x60, 0, 0, 0]);
    message.extend((CLAIMED_LENGTH - 40).to_be_bytes());
    message.extend([UDP, 64]);
    message.extend(from.octets());
    message.extend(to.octets());
    message.extend(udp_header(port));
    message
}

/// Computes the Internet checksum (RFC 1071) over `bytes`, and writes it to the two bytes at `position`, which are zero.
fn set_checksum(bytes: &mut [u8], position: usize) {
    let words = bytes.chunks(2).map(|pair| {
        let mut word = [0; 2];
        word.iter_mut().zip(pair).for_each(|(to, from)| *to = *from);
        u32::from(u16::from_be_bytes(word))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = u16::try_from(sum).map_or(0, |sum| !sum);
    let target = bytes.iter_mut().skip(position);
    target
        .zip(checksum.to_be_bytes())
        .for_each(|(to, from)| *to = from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_an_ipv4_packet_has_valid_checksums() {
        let from = Ipv4Addr::new(192, 0, 2, 1);
        let message = fragmentation_needed(from, Ipv4Addr::new(192, 0, 2, 2), 40_000);
        assert_eq!(message.len(), 36);
        assert_eq!(message[6..8], 1280_u16.to_be_bytes());
        for part in [&message[..], &message[8..28]] {
            let mut checked = part.to_vec();
            checked.extend([0; 2]);
            // The sum over data and checksum is all ones, whose complement is zero.
            set_checksum(&mut checked, part.len());
            assert_eq!(checked[part.len()..], [0, 0]);
        }
    }

    #[test]
    fn a_message_about_an_ipv6_packet_quotes_its_addresses_and_ports() {
        let from: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let to: Ipv6Addr = "2001:db8::2".parse().unwrap();
        let message = packet_too_big(from, to, 40_000);
        assert_eq!(message[4..8], 1280_u32.to_be_bytes());
        assert_eq!(message[16..32], from.octets());
        assert_eq!(message[32..48], to.octets());
        assert_eq!(message[48..50], 40_000_u16.to_be_bytes());
    }
}
