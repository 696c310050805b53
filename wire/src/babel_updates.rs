//! Reads the routes that a Babel packet announces (RFC 8966, sections 4.5 and 4.6.7 to 4.6.9; RFC 9229).

use crate::{
    babel_packet::{IPV4, IPV6, MAGIC, PAD1, UPDATE, VERSION},
    overlay::{Network, Network4, node_of_link_local, node_of_router_id},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use policies::{
    names::Slot,
    observation::INFINITY,
    route_checks::{ForeignRange, OriginClaim},
};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The TLV type Router-Id (RFC 8966, section 4.6.7).
const ROUTER_ID: u8 = 6;
/// The address encoding of IPv4 routes with an IPv6 next hop (RFC 9229, section 2.2).
const IPV4_VIA_IPV6: u8 = 4;
/// The flags of an update: later prefixes are shortened by what they share with this one; the prefix contains the router id.
const SETS_PREFIX: u8 = 0x80;
const SETS_ROUTER_ID: u8 = 0x40;

/// One route that is announced and not retracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The destination of the route.
    pub range: IpNet,
    /// The router id of the origin; `None` if the packet does not contain it.
    pub router_id: Option<[u8; 8]>,
    /// The announced metric, below infinity.
    pub metric: u16,
}

/// What later parts of a packet take from earlier ones.
#[derive(Default)]
struct Context {
    router_id: Option<[u8; 8]>,
    ipv4: [u8; 16],
    ipv6: [u8; 16],
    ipv4_via_ipv6: [u8; 16],
}

/// Returns the announcements of a packet in their order; those that are malformed are left out.
pub fn announcements(packet: &[u8]) -> Vec<Announcement> {
    let [MAGIC, VERSION, high, low, body @ ..] = packet else {
        return Vec::new();
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let mut rest = body.get(..length).unwrap_or(body);
    let mut context = Context::default();
    let mut announcements = Vec::new();
    loop {
        rest = match rest {
            [PAD1, rest @ ..] => rest,
            [kind, length, rest @ ..] => {
                let Some((content, rest)) = rest.split_at_checked(usize::from(*length)) else {
                    return announcements;
                };
                match *kind {
                    ROUTER_ID => context.read_router_id(content),
                    UPDATE => announcements.extend(context.read_update(content)),
                    _ => {}
                }
                rest
            }
            [] | [_] => return announcements,
        };
    }
}

impl Context {
    fn read_router_id(&mut self, content: &[u8]) {
        let id = content.get(2..10).and_then(|id| id.try_into().ok());
        self.router_id = id.or(self.router_id);
    }

    fn read_update(&mut self, content: &[u8]) -> Option<Announcement> {
        let [
            encoding,
            flags,
            length,
            omitted,
            _,
            _,
            _,
            _,
            high,
            low,
            prefix @ ..,
        ] = content
        else {
            return None;
        };
        let (last, width) = match *encoding {
            IPV4 => (&mut self.ipv4, 32),
            IPV6 => (&mut self.ipv6, 128),
            IPV4_VIA_IPV6 => (&mut self.ipv4_via_ipv6, 32),
            _ => return None,
        };
        if *length > width || *omitted > width / 8 {
            return None;
        }
        let (omitted, end) = (usize::from(*omitted), usize::from(length.div_ceil(8)));
        let mut octets = [0; 16];
        octets
            .get_mut(..omitted)?
            .copy_from_slice(last.get(..omitted)?);
        let given = end.saturating_sub(omitted);
        let place = octets.get_mut(omitted..omitted + given)?;
        place.copy_from_slice(prefix.get(..given)?);
        if flags & SETS_PREFIX != 0 {
            *last = octets;
        }
        if flags & SETS_ROUTER_ID != 0 && *encoding == IPV6 {
            let [.., a, b, c, d, e, f, g, h] = octets;
            self.router_id = Some([a, b, c, d, e, f, g, h]);
        }
        let metric = u16::from_be_bytes([*high, *low]);
        let range = match octets {
            _ if *encoding == IPV6 => Ipv6Net::new(Ipv6Addr::from(octets), *length)
                .ok()?
                .trunc()
                .into(),
            [a, b, c, d, ..] => Ipv4Net::new(Ipv4Addr::new(a, b, c, d), *length)
                .ok()?
                .trunc()
                .into(),
        };
        (metric < INFINITY).then_some(Announcement {
            range,
            router_id: self.router_id,
            metric,
        })
    }
}

/// Returns whether a route says something about its origin that can be checked.
pub(crate) fn is_claim(claim: &OriginClaim) -> bool {
    claim.refmetric == 0 || claim.originator != Some(claim.node) || claim.via.is_none()
}

/// Returns what the announcements of a packet, which a neighbour sent from `from`, say about the origins of nodes' ranges.
pub fn claims(
    announced: &[Announcement],
    (slot, from): (Slot, Ipv6Addr),
    network: Network,
    ipv4: Option<Network4>,
) -> Vec<OriginClaim> {
    let claim = |announced: &Announcement| {
        let node = match announced.range {
            IpNet::V6(range) => network.node_of_range(range),
            IpNet::V4(range) => ipv4?.node_of_range(range),
        };
        Some(OriginClaim {
            node: node?,
            slot,
            via: node_of_link_local(from),
            refmetric: announced.metric,
            originator: announced.router_id.and_then(node_of_router_id),
            is_used: false,
        })
    };
    announced
        .iter()
        .filter_map(claim)
        .filter(is_claim)
        .collect()
}

/// Returns the first range that is neither a node's nor the default route. IPv4 ranges are not judged, since nodes learn at different times
/// that the network carries IPv4.
pub fn foreign_range(
    announced: &[Announcement],
    slot: Slot,
    network: Network,
) -> Option<ForeignRange> {
    announced.iter().find_map(|announced| {
        let IpNet::V6(range) = announced.range else {
            return None;
        };
        let is_foreign = range.prefix_len() > 0 && network.node_of_range(range).is_none();
        is_foreign.then_some(ForeignRange {
            slot,
            address: range.network(),
            length: range.prefix_len(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: [u8; 8] = [2, 0x58, 0, 16, 0, 0, 0, 7];

    fn packet(parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[42, 2, high, low], &body[..]].concat()
    }

    fn router_id() -> Vec<u8> {
        [&[6, 10, 0, 0], &ID[..]].concat()
    }

    fn update(
        encoding: u8,
        flags: u8,
        bits: u8,
        omitted: u8,
        metric: u16,
        prefix: &[u8],
    ) -> Vec<u8> {
        let length = u8::try_from(10 + prefix.len()).unwrap();
        let head = [8, length, encoding, flags, bits, omitted, 0, 1, 0, 1];
        [&head, &metric.to_be_bytes()[..], prefix].concat()
    }

    #[track_caller]
    fn check(parts: &[&[u8]], expected: &[(&str, Option<[u8; 8]>, u16)]) {
        let read: Vec<_> = announcements(&packet(parts))
            .into_iter()
            .map(|one| (one.range.to_string(), one.router_id, one.metric))
            .collect();
        let read: Vec<_> = read
            .iter()
            .map(|(range, id, metric)| (range.as_str(), *id, *metric))
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn a_route_has_the_router_id_before_it_and_a_shortened_prefix_is_completed() {
        let first = update(2, 0x80, 64, 0, 0, &[0xfd, 0, 0, 1, 0, 2, 0, 7]);
        let second = update(2, 0, 64, 6, 96, &[0, 9]);
        let expected = [
            ("fd00:1:2:7::/64", Some(ID), 0),
            ("fd00:1:2:9::/64", Some(ID), 96),
        ];
        check(&[&router_id(), &[0, 0], &first, &second], &expected);
        check(&[&first], &[("fd00:1:2:7::/64", None, 0)]);
    }

    #[test]
    fn both_forms_of_ipv4_routes_are_read() {
        let plain = update(1, 0, 24, 0, 1, &[10, 0, 7]);
        let via = update(4, 0, 24, 0, 2, &[10, 0, 8]);
        check(
            &[&router_id(), &plain, &via],
            &[("10.0.7.0/24", Some(ID), 1), ("10.0.8.0/24", Some(ID), 2)],
        );
    }

    #[test]
    fn a_prefix_can_contain_the_router_id() {
        let address = [0xfd, 0, 0, 0, 0, 0, 0, 0, 2, 0x58, 0, 16, 0, 0, 0, 7];
        let whole = update(2, 0x40, 128, 0, 5, &address);
        check(&[&whole], &[("fd00::258:10:0:7/128", Some(ID), 5)]);
    }

    #[test]
    fn retractions_and_malformed_updates_are_left_out() {
        let prefix = [0xfd, 0, 0, 1, 0, 2, 0, 7];
        for bad in [
            update(2, 0, 64, 0, 65535, &prefix),
            update(2, 0, 129, 0, 1, &prefix),
            update(2, 0, 64, 17, 1, &prefix),
            update(2, 0, 64, 0, 1, &prefix[..7]),
            update(3, 0, 64, 0, 1, &prefix),
            vec![8, 3, 2, 0, 64],
            vec![8, 200, 2, 0],
        ] {
            check(&[&router_id(), &bad], &[]);
        }
        assert_eq!(announcements(&[41, 2, 0, 0]), []);
    }

    #[test]
    fn a_range_is_foreign_if_it_is_no_nodes_and_not_the_default_route() {
        let network = Network::new("fd00:1:2::/48".parse().unwrap()).unwrap();
        let foreign = |range: &str| {
            let announced = Announcement {
                range: range.parse().unwrap(),
                router_id: Some(ID),
                metric: 0,
            };
            foreign_range(&[announced], Slot::Dialling(0), network).is_some()
        };
        for range in [
            "fd00:1:2:7::/64",
            "fd00:1:2:8000::/49",
            "::/0",
            "0.0.0.0/0",
            "10.0.0.0/8",
        ] {
            assert!(!foreign(range), "{range}");
        }
        for range in [
            "fd00:1:2::/48",
            "fd00:1:2::/47",
            "fd00:1:2:7::1/128",
            "fd00:1:3:7::/64",
            "2000::/3",
        ] {
            assert!(foreign(range), "{range}");
        }
    }

    proptest! {
        #[test]
        fn hostile_packets_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300), kind in prop::sample::select(vec![6u8, 8])) {
            announcements(&packet(&[&[kind, 20], &body]));
            announcements(&body);
        }
    }
}
