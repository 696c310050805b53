//! Determines what a frame is for, from its ports, its types, and the TLVs of its Babel packet.

use serde::Serialize;

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;
/// Bytes of an IPv6 header without extensions.
const IPV6_HEADER: usize = 40;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;
/// Bytes of Babel's packet header (RFC 8966, section 4.2).
const BABEL_HEADER: usize = 4;
/// The port of the OpenVPN servers of all nodes of the lab.
const OPENVPN_PORT: u16 = 1194;
/// Bytes of a UDP payload with OpenVPN's own ping: operation and peer id 4, packet number 4, tag 16, ping 16.
const OPENVPN_PING: usize = 40;
/// Protocol numbers (IANA).
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;

/// What a frame on a tunnel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelKind {
    /// Babel's hellos, with the headers of their packets.
    BabelHello,
    /// Babel's IHU ("I heard you") TLVs.
    BabelIhu,
    /// Babel's updates, with router ids and next hops.
    BabelUpdate,
    /// Babel's requests and all other TLVs.
    BabelOther,
    /// Our probes: echo requests and replies.
    Probe,
    /// Suspicions and drain notices.
    Suspicion,
    /// Calls between nodes: peer discovery, documents, route views, restart locks.
    PeerApi,
    /// IPv6 neighbour discovery and multicast listener reports.
    NeighbourDiscovery,
    /// All other frames of a tunnel.
    Other,
}

/// What a frame on the underlay is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnderlayKind {
    /// Frames of a tunnel, encrypted.
    OpenvpnData,
    /// OpenVPN's own pings, by UDP.
    OpenvpnPing,
    /// OpenVPN's TLS handshakes and renegotiations.
    OpenvpnTls,
    /// First packets of sessions: those of dials, and those by which candidates are measured.
    OpenvpnReset,
    /// Calls to the registry.
    Registry,
    /// Address resolution and neighbour discovery.
    NeighbourDiscovery,
    /// All other frames on the underlay.
    Other,
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}

/// A packet of a transport protocol in a frame.
struct Transport<'a> {
    protocol: u8,
    /// From the transport protocol's header on.
    bytes: &'a [u8],
}

impl Transport<'_> {
    /// Finds the packet behind an IPv4 or IPv6 header.
    fn of(frame: &[u8]) -> Option<Transport<'_>> {
        let packet = frame.get(ETHERNET_HEADER..)?;
        match short(frame, 12)? {
            0x0800 => {
                let header = usize::from(byte(packet, 0)? & 15) * 4;
                let length = usize::from(short(packet, 2)?).min(packet.len());
                Some(Transport {
                    protocol: byte(packet, 9)?,
                    bytes: packet.get(header..length)?,
                })
            }
            0x86dd => {
                let rest = packet.get(IPV6_HEADER..)?;
                let protocol = byte(packet, 6)?;
                if protocol != HOP_BY_HOP {
                    return Some(Transport {
                        protocol,
                        bytes: rest,
                    });
                }
                // Multicast listener reports carry a router alert.
                let options = usize::from(byte(rest, 1)?) * 8 + 8;
                Some(Transport {
                    protocol: byte(rest, 0)?,
                    bytes: rest.get(options..)?,
                })
            }
            _ => None,
        }
    }

    /// Whether one end has this port.
    fn has_port(&self, protocol: u8, port: u16) -> bool {
        let ports = [short(self.bytes, 0), short(self.bytes, 2)];
        self.protocol == protocol && ports.contains(&Some(port))
    }

    /// The first bytes of an OpenVPN packet, without the length that precedes it in a TCP stream.
    fn openvpn_packet(&self) -> Option<&[u8]> {
        if self.protocol == UDP {
            return self.bytes.get(UDP_HEADER..);
        }
        let header = usize::from(byte(self.bytes, 12)? >> 4) * 4;
        self.bytes.get(header + 2..)
    }
}

impl UnderlayKind {
    /// What this frame of an uplink is for.
    pub(super) fn of(frame: &[u8]) -> Self {
        let Some(transport) = Transport::of(frame) else {
            let is_arp = short(frame, 12) == Some(0x0806);
            return if is_arp {
                Self::NeighbourDiscovery
            } else {
                Self::Other
            };
        };
        if transport.protocol == ICMPV6 {
            return Self::NeighbourDiscovery;
        }
        if transport.has_port(TCP, wire::registry::PORT) {
            return Self::Registry;
        }
        let is_openvpn = |protocol| transport.has_port(protocol, OPENVPN_PORT);
        if !is_openvpn(UDP) && !is_openvpn(TCP) {
            return Self::Other;
        }
        let Some(packet) = transport.openvpn_packet() else {
            // An acknowledgement without payload in a TCP stream.
            return Self::OpenvpnData;
        };
        // The operation is in the upper five bits (OpenVPN's wire protocol).
        match packet.first().map(|first| first >> 3) {
            Some(7 | 8 | 10) => Self::OpenvpnReset,
            Some(3..=5 | 11) => Self::OpenvpnTls,
            _ if transport.protocol == UDP && packet.len() == OPENVPN_PING => Self::OpenvpnPing,
            _ => Self::OpenvpnData,
        }
    }
}

/// Splits a frame of a tunnel into parts by what they are for: kind, frames, bytes. The frames of all parts are one
/// together.
pub(super) fn split_tunnel_frame(frame: &[u8]) -> Vec<(TunnelKind, u64, usize)> {
    let whole = |kind| vec![(kind, 1, frame.len())];
    let Some(transport) = Transport::of(frame) else {
        return whole(TunnelKind::Other);
    };
    if transport.has_port(UDP, wire::babel_packet::PORT) {
        return split_babel_packet(frame, transport.bytes);
    }
    if transport.has_port(UDP, wire::suspicion::PORT) {
        return whole(TunnelKind::Suspicion);
    }
    if transport.has_port(TCP, wire::peer::PORT) {
        return whole(TunnelKind::PeerApi);
    }
    match (transport.protocol, transport.bytes.first()) {
        (ICMPV6, Some(128 | 129)) => whole(TunnelKind::Probe),
        (ICMPV6, Some(130..=137 | 143)) => whole(TunnelKind::NeighbourDiscovery),
        _ => whole(TunnelKind::Other),
    }
}

/// Splits the TLVs of a Babel packet by their types. The headers count for the most frequent type that the packet
/// has: a hello, else an IHU, an update, or another one.
fn split_babel_packet(frame: &[u8], datagram: &[u8]) -> Vec<(TunnelKind, u64, usize)> {
    let mut parts: Vec<(TunnelKind, usize)> = Vec::new();
    let mut rest = datagram
        .get(UDP_HEADER + BABEL_HEADER..)
        .unwrap_or_default();
    while let Some(tlv) = rest.first() {
        // Pad1 is a single byte.
        let length = match tlv {
            0 => 1,
            _ => usize::from(byte(rest, 1).unwrap_or_default()) + 2,
        };
        let kind = match tlv {
            4 => TunnelKind::BabelHello,
            5 => TunnelKind::BabelIhu,
            6..=8 => TunnelKind::BabelUpdate,
            _ => TunnelKind::BabelOther,
        };
        parts.push((kind, length.min(rest.len())));
        rest = rest.get(length..).unwrap_or_default();
    }
    parts.sort_unstable();
    let tlv_bytes: usize = parts.iter().map(|(_, bytes)| bytes).sum();
    let main = parts.first().map_or(TunnelKind::BabelOther, |part| part.0);
    let headers = frame.len().saturating_sub(tlv_bytes);
    let tlvs = parts.into_iter().map(|(kind, bytes)| (kind, 0, bytes));
    [(main, 1, headers)].into_iter().chain(tlvs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 frame with this protocol and these bytes behind the header.
    fn ipv6_frame(protocol: u8, bytes: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 1]);
        frame.extend([0; 32]);
        frame.extend(bytes);
        frame
    }

    fn ipv4_frame(protocol: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(20 + bytes.len()).unwrap();
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, length, 0, 0, 0, 0, 64, protocol]);
        frame.extend([0; 10]);
        frame.extend(bytes);
        frame
    }

    fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        [&[0x12, 0x34, high, low, 0, 0, 0, 0], payload].concat()
    }

    fn tcp(port: u16, payload: &[u8]) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        let mut segment = vec![high, low, 0x12, 0x34];
        segment.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
        segment.extend(payload);
        segment
    }

    #[track_caller]
    fn check_tunnel(frame: &[u8], expected: &[(TunnelKind, u64, usize)]) {
        assert_eq!(split_tunnel_frame(frame), expected);
        let bytes: usize = expected.iter().map(|part| part.2).sum();
        assert_eq!(bytes, frame.len());
    }

    #[test]
    fn the_parts_of_a_babel_packet_are_its_tlvs_and_its_headers_belong_to_the_hello() {
        let hello = [4, 6, 0, 0, 0, 1, 0, 100];
        let ihu = [5, 6, 0, 0, 0, 96, 1, 44];
        let request = [9, 2, 0, 0];
        let packet = [&[42, 2, 0, 20][..], &request, &ihu, &hello].concat();
        check_tunnel(
            &ipv6_frame(UDP, &udp(6696, &packet)),
            &[
                (TunnelKind::BabelHello, 1, 66),
                (TunnelKind::BabelHello, 0, 8),
                (TunnelKind::BabelIhu, 0, 8),
                (TunnelKind::BabelOther, 0, 4),
            ],
        );
    }

    #[test]
    fn a_truncated_babel_packet_is_counted_with_all_its_bytes() {
        let frame = ipv6_frame(UDP, &udp(6696, &[42, 2, 0, 9, 8, 200, 1]));
        check_tunnel(
            &frame,
            &[
                (TunnelKind::BabelUpdate, 1, 66),
                (TunnelKind::BabelUpdate, 0, 3),
            ],
        );
    }

    #[track_caller]
    fn check_whole(frame: &[u8], kind: TunnelKind) {
        check_tunnel(frame, &[(kind, 1, frame.len())]);
    }

    #[test]
    fn frames_of_tunnels_are_distinguished_by_type_and_port() {
        check_whole(&ipv6_frame(ICMPV6, &[128, 0]), TunnelKind::Probe);
        check_whole(&ipv6_frame(ICMPV6, &[129, 0]), TunnelKind::Probe);
        check_whole(
            &ipv6_frame(ICMPV6, &[135, 0]),
            TunnelKind::NeighbourDiscovery,
        );
        check_whole(
            &ipv6_frame(HOP_BY_HOP, &[ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143, 0]),
            TunnelKind::NeighbourDiscovery,
        );
        check_whole(&ipv6_frame(UDP, &udp(327, b"wrnS")), TunnelKind::Suspicion);
        check_whole(&ipv6_frame(TCP, &tcp(326, &[])), TunnelKind::PeerApi);
        check_whole(&ipv6_frame(TCP, &tcp(80, &[])), TunnelKind::Other);
        check_whole(&[], TunnelKind::Other);
    }

    #[track_caller]
    fn check_underlay(frame: &[u8], expected: UnderlayKind) {
        assert_eq!(UnderlayKind::of(frame), expected);
    }

    #[test]
    fn frames_of_the_underlay_are_distinguished_by_port_and_operation() {
        let openvpn = |first: u8, length: usize| {
            let payload: Vec<u8> = [first << 3]
                .into_iter()
                .chain(vec![0; length - 1])
                .collect();
            ipv4_frame(UDP, &udp(1194, &payload))
        };
        check_underlay(&openvpn(9, 100), UnderlayKind::OpenvpnData);
        check_underlay(&openvpn(9, 40), UnderlayKind::OpenvpnPing);
        check_underlay(&openvpn(4, 40), UnderlayKind::OpenvpnTls);
        check_underlay(&openvpn(5, 60), UnderlayKind::OpenvpnTls);
        check_underlay(&openvpn(7, 54), UnderlayKind::OpenvpnReset);
        let control = [0, 50, 4 << 3];
        check_underlay(
            &ipv4_frame(TCP, &tcp(1194, &control)),
            UnderlayKind::OpenvpnTls,
        );
        check_underlay(&ipv4_frame(TCP, &tcp(1194, &[])), UnderlayKind::OpenvpnData);
        check_underlay(&ipv6_frame(TCP, &tcp(9443, &[])), UnderlayKind::Registry);
        check_underlay(&ipv6_frame(UDP, &udp(53, &[])), UnderlayKind::Other);
        let arp = [&[0; 12][..], &[8, 6, 0, 1]].concat();
        check_underlay(&arp, UnderlayKind::NeighbourDiscovery);
        check_underlay(&[], UnderlayKind::Other);
    }
}
