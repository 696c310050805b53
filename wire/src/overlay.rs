//! The network's address plan: from a prefix to addresses, link-local addresses and MACs.

use ipnet::{Ipv4Net, Ipv6Net};
use policies::names::Prefix;
use std::net::{Ipv4Addr, Ipv6Addr};

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

/// The network's IPv4 range for payload, such as `10.0.0.0/8`. It mirrors the IPv6 range: a node's part is
/// the network's bits, then its prefix's, so that parts are as disjoint as prefixes, and nobody hands them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network4(Ipv4Net);

impl Network4 {
    /// `None` unless the range is 8 to 24 bits long, without host bits, and of addresses that hosts may have.
    pub fn new(range: Ipv4Net) -> Option<Self> {
        let address = range.network();
        let reserved = address.is_loopback()
            || address.is_link_local()
            || !(1..=223).contains(&address.octets()[0]);
        let good = (8..=24).contains(&range.prefix_len()) && range.trunc() == range && !reserved;
        good.then_some(Self(range))
    }

    /// The range itself.
    pub fn range(self) -> Ipv4Net {
        self.0
    }

    /// The range of one node; `None` where its prefix has more bits than are left.
    pub fn node_range(self, prefix: Prefix) -> Option<Ipv4Net> {
        let length = self
            .0
            .prefix_len()
            .checked_add(prefix.length())
            .filter(|length| *length <= 32)?;
        let bits = u64::from(prefix.number()) << (32 - length);
        let address = Ipv4Addr::from_bits(self.0.network().to_bits() | u32::try_from(bits).ok()?);
        Ipv4Net::new(address, length).ok()
    }

    /// The node whose range this is; `None` where it lies outside the network or is no node's.
    pub fn node_of_range(self, range: Ipv4Net) -> Option<Prefix> {
        let length = range.prefix_len().checked_sub(self.0.prefix_len())?;
        let bits = u64::from(range.network().to_bits()) >> (32 - range.prefix_len());
        let mask = (1u64 << length) - 1;
        let prefix = Prefix::new(u32::try_from(bits & mask).ok()?, length)?;
        (self.node_range(prefix) == Some(range)).then_some(prefix)
    }

    /// The node's own address: the first of its range, after that of the range itself where there are four or more.
    pub fn node_address(self, prefix: Prefix) -> Option<Ipv4Addr> {
        self.node_range(prefix).map(first_address)
    }
}

/// The address of the node that has this range.
pub fn first_address(range: Ipv4Net) -> Ipv4Addr {
    let first = u32::from(range.prefix_len() <= 30);
    Ipv4Addr::from_bits(range.network().to_bits() | first)
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

/// The node that has this router id; `None` where it is none of ours.
pub fn node_of_router_id(id: [u8; 8]) -> Option<Prefix> {
    let [_, _, _, length, a, b, c, d] = id;
    let prefix = Prefix::new(u32::from_be_bytes([a, b, c, d]), length)?;
    (router_id(prefix) == id).then_some(prefix)
}

/// A router id as babeld writes it: `02:58:00:10:00:00:00:07`.
pub fn router_id_text(prefix: Prefix) -> String {
    router_id(prefix)
        .map(|byte| format!("{byte:02x}"))
        .join(":")
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
        assert_eq!(
            network().node_range(prefix()).to_string(),
            "2001:db8:42:7::/64"
        );
        assert_eq!(
            network().node_address(prefix()).to_string(),
            "2001:db8:42:7::1"
        );
        assert_eq!(link_local(prefix()).to_string(), "fe80::10:0:7");
    }

    #[track_caller]
    fn check_ipv4(range: &str, prefix: &str, expected: Option<(&str, &str)>) {
        let network = Network4::new(range.parse().unwrap()).unwrap();
        let prefix = prefix.parse().unwrap();
        let is = network
            .node_range(prefix)
            .map(|range| (range.to_string(), first_address(range).to_string()));
        assert_eq!(
            is.as_ref()
                .map(|(range, address)| (range.as_str(), address.as_str())),
            expected
        );
        let range = network.node_range(prefix);
        assert_eq!(
            range.and_then(|range| network.node_of_range(range)),
            range.map(|_| prefix)
        );
    }

    #[test]
    fn an_ipv4_range_outside_the_network_or_with_host_bits_is_no_nodes() {
        let network = Network4::new("10.0.0.0/8".parse().unwrap()).unwrap();
        for range in ["11.0.7.0/24", "10.0.7.1/24", "10.0.0.0/8", "0.0.0.0/0"] {
            assert_eq!(
                network.node_of_range(range.parse().unwrap()),
                None,
                "{range}"
            );
        }
    }

    #[test]
    fn ipv4_ranges_mirror_prefixes() {
        check_ipv4("10.0.0.0/8", "7/16", Some(("10.0.7.0/24", "10.0.7.1")));
        check_ipv4("10.0.0.0/8", "15/17", Some(("10.0.7.128/25", "10.0.7.129")));
        check_ipv4(
            "10.0.0.0/8",
            "16777215/24",
            Some(("10.255.255.255/32", "10.255.255.255")),
        );
        check_ipv4("10.0.0.0/8", "7/25", None);
        check_ipv4("10.42.0.0/16", "7/16", Some(("10.42.0.7/32", "10.42.0.7")));
        check_ipv4(
            "10.42.0.0/16",
            "1/1",
            Some(("10.42.128.0/17", "10.42.128.1")),
        );
    }

    #[test]
    fn an_ipv4_range_is_one_that_hosts_may_have() {
        for bad in [
            "10.0.0.1/8",
            "10.0.0.0/7",
            "10.0.0.0/25",
            "127.0.0.0/8",
            "224.0.0.0/8",
            "0.0.0.0/8",
            "169.254.0.0/16",
        ] {
            assert_eq!(Network4::new(bad.parse().unwrap()), None, "{bad}");
        }
    }

    #[test]
    fn ranges_and_link_local_addresses_round_trip() {
        for (number, length) in [(0, 1), (1, 1), (7, 16), (65535, 16), (u32::MAX, 32)] {
            let prefix = Prefix::new(number, length).unwrap();
            assert_eq!(
                network().node_of_range(network().node_range(prefix)),
                Some(prefix)
            );
            assert_eq!(node_of_link_local(link_local(prefix)), Some(prefix));
        }
        assert_eq!(
            network().node_of_range("2001:db8:43:7::/64".parse().unwrap()),
            None
        );
        assert_eq!(
            network().node_of_range("2001:db8:42::/48".parse().unwrap()),
            None
        );
        assert_eq!(node_of_link_local("fe80::1".parse().unwrap()), None);
    }
}
