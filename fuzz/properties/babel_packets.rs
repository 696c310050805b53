//! Babel packets of neighbours: no more announcements than fit into the packet, and only claims about nodes of the network.

use policies::names::Slot;
use std::net::Ipv6Addr;
use wire::{
    babel_packet,
    babel_updates::{announcements, claims, foreign_range},
    overlay::{Network, Network4, node_of_link_local},
};

/// Octets of the shortest update (RFC 8966, section 4.6.9).
const SHORTEST_UPDATE: usize = 12;

/// The first 16 octets are the address of the sender, the rest is the packet.
pub fn check(input: &[u8]) {
    let Some((from, packet)) = input.split_first_chunk::<16>() else {
        return;
    };
    let from = Ipv6Addr::from(*from);
    let network = "fd00:1:2::/48".parse().ok().and_then(Network::new);
    let network = network.unwrap_or_else(|| unreachable!("a network that is large enough"));
    let ipv4 = "10.0.0.0/8".parse().ok().and_then(Network4::new);
    babel_packet::has_forwardable_request(packet);
    let announced = announcements(packet);
    assert!(announced.len() * SHORTEST_UPDATE <= packet.len());
    if let Some(range) = foreign_range(&announced, Slot::Dialling(0), network) {
        assert!((1..=128).contains(&range.length));
    }
    for claim in claims(&announced, (Slot::Dialling(0), from), network, ipv4) {
        assert_eq!(claim.via, node_of_link_local(from));
        let range = network.node_range(claim.node);
        let range4 = ipv4.and_then(|ipv4| ipv4.node_range(claim.node));
        assert!(announced.iter().any(|one| {
            one.metric == claim.refmetric
                && (one.range == range.into() || Some(one.range) == range4.map(Into::into))
        }));
    }
}
