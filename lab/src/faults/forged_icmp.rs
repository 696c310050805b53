//! Forged ICMPv6 messages of neighbours (RFC 4861).

use std::net::Ipv6Addr;

/// A router advertisement (RFC 4861, section 4.2): a default router for 1800 s, and the prefix 2a0c:bad::/64.
pub(super) fn router_advertisement() -> Vec<u8> {
    let header = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let prefix = [
        3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 1, 0x51, 0x80, 0, 0, 0, 0,
    ];
    let network = Ipv6Addr::new(0x2a0c, 0xbad, 0, 0, 0, 0, 0, 0);
    [&header[..], &prefix, &network.octets()].concat()
}

/// A neighbour advertisement that overrides the entry of this address (RFC 4861, section 4.4).
pub(super) fn neighbour_advertisement(target: Ipv6Addr) -> Vec<u8> {
    let header = [136, 0, 0, 0, 0xa0, 0, 0, 0];
    let link_address = [2, 1, 2, 0xba, 0xd0, 0, 0, 1];
    [&header[..], &target.octets(), &link_address].concat()
}

/// A redirect of packets to this address (RFC 4861, section 4.5).
pub(super) fn redirect(destination: Ipv6Addr) -> Vec<u8> {
    let target = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
    [
        &[137, 0, 0, 0, 0, 0, 0, 0][..],
        &target.octets(),
        &destination.octets(),
    ]
    .concat()
}
