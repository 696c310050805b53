//! The network's address plan: from a prefix to addresses, link-local addresses and MACs.

use ipnet::Ipv6Net;
use policies::names::Prefix;
use std::net::Ipv6Addr;

/// The network's IPv6 range, such as `fd12:3456:789a::/48`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(Ipv6Net);

/// Fewest bits a network's range may have.
const SHORTEST: u8 = 16;
/// Most bits a network's range may have: 32 more must fit for the longest prefix, with room for hosts.
const LONGEST: u8 = 64;

impl Network {
    /// `None` unless the range is 16 to 64 bits long and has no host bits set.
    pub fn new(range: Ipv6Net) -> Option<Self> {
        let good = (SHORTEST..=LONGEST).contains(&range.prefix_len()) && range.trunc() == range;
        good.then_some(Self(range))
    }

    /// The range itself.
    pub fn range(self) -> Ipv6Net {
        self.0
    }

    /// The range of one node: the network's bits, then the prefix's.
    pub fn node_range(self, prefix: Prefix) -> Ipv6Net {
        let length = self.0.prefix_len() + prefix.length();
        let bits = u128::from(prefix.number()) << (128 - u32::from(length));
        let address = Ipv6Addr::from_bits(self.0.network().to_bits() | bits);
        Ipv6Net::new(address, length).unwrap_or(self.0)
    }

    /// The node's own address: `::1` in its range.
    pub fn node_address(self, prefix: Prefix) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.node_range(prefix).network().to_bits() | 1)
    }

    /// The node whose range this is; `None` where it lies outside the network or is no node's.
    pub fn node_of_range(self, range: Ipv6Net) -> Option<Prefix> {
        let length = range.prefix_len().checked_sub(self.0.prefix_len())?;
        if range.trunc() != range || !self.0.contains(&range.network()) {
            return None;
        }
        let bits = range.network().to_bits() >> (128 - u32::from(range.prefix_len()));
        let mask = (1u128 << length) - 1;
        Prefix::new(u32::try_from(bits & mask).ok()?, length)
    }
}

/// The link-local address of a node on every slot: `fe80::` + L (16 bits) + P (32 bits).
pub fn link_local(prefix: Prefix) -> Ipv6Addr {
    let low = u128::from(prefix.length()) << 32 | u128::from(prefix.number());
    Ipv6Addr::from_bits(0xfe80 << 112 | low)
}

/// The node that has this link-local address; `None` where it is none of ours.
pub fn node_of_link_local(address: Ipv6Addr) -> Option<Prefix> {
    let bits = address.to_bits();
    let number = u32::try_from(bits & 0xffff_ffff).ok()?;
    let length = u8::try_from(bits >> 32 & 0xffff).ok()?;
    let prefix = Prefix::new(number, length)?;
    (link_local(prefix) == address).then_some(prefix)
}

/// MAC of a dialling slot: `02:58` + P.
pub fn dialling_mac(prefix: Prefix) -> [u8; 6] {
    let [a, b, c, d] = prefix.number().to_be_bytes();
    [0x02, 0x58, a, b, c, d]
}

/// MAC of the accepting slot with VLAN `vlan`: `02:57:52:53` + N.
pub fn accepting_mac(vlan: u16) -> [u8; 6] {
    let [a, b] = vlan.to_be_bytes();
    [0x02, 0x57, 0x52, 0x53, a, b]
}

/// Babel's router id of a node, 8 bytes: `02:58` + L (16 bits) + P (32 bits).
pub fn router_id(prefix: Prefix) -> [u8; 8] {
    let [a, b, c, d] = prefix.number().to_be_bytes();
    [0x02, 0x58, 0x00, prefix.length(), a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> Prefix {
        Prefix::new(7, 16).unwrap()
    }

    fn network() -> Network {
        Network::new("2001:db8:42::/48".parse().unwrap()).unwrap()
    }

    #[test]
    fn the_node_7_16_has_the_addresses_of_the_design() {
        assert_eq!(network().node_range(prefix()).to_string(), "2001:db8:42:7::/64");
        assert_eq!(network().node_address(prefix()).to_string(), "2001:db8:42:7::1");
        assert_eq!(link_local(prefix()).to_string(), "fe80::10:0:7");
    }

    #[test]
    fn ranges_and_link_local_addresses_round_trip() {
        for (number, length) in [(0, 1), (1, 1), (7, 16), (65535, 16), (u32::MAX, 32)] {
            let prefix = Prefix::new(number, length).unwrap();
            assert_eq!(network().node_of_range(network().node_range(prefix)), Some(prefix));
            assert_eq!(node_of_link_local(link_local(prefix)), Some(prefix));
        }
        assert_eq!(network().node_of_range("2001:db8:43:7::/64".parse().unwrap()), None);
        assert_eq!(network().node_of_range("2001:db8:42::/48".parse().unwrap()), None);
        assert_eq!(node_of_link_local("fe80::1".parse().unwrap()), None);
    }
}
