//! Decides which endpoints may be dialled at all, whoever announced them.
//!
//! A tunnel inside the network itself, to ourselves, or to an address that has another meaning on
//! every host would at best waste a slot. The classes follow the IANA special-purpose registries
//! (RFC 6890 and its successors).

use crate::overlay::Network;
use policies::names::Endpoint;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The setting `private-endpoints` of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrivateEndpointUse {
    /// Private endpoints are announced, and dialled where they can work.
    #[default]
    Auto,
    /// All private endpoints are announced and dialled.
    All,
    /// They are announced and dialled only if the network's parameter says so.
    NetworkOnly,
}

/// The reason why an endpoint is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointError {
    /// The port is 0.
    NoPort,
    /// The address is unspecified: `0.0.0.0/8`, `::`.
    Unspecified,
    /// The address is a loopback address: `127.0.0.0/8`, `::1`.
    Loopback,
    /// The address is link-local: `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Multicast or broadcast.
    Multicast,
    /// An address of the network itself: a tunnel within a tunnel.
    Overlay,
    /// RFC 1918, carrier-grade NAT, unique local: means another host elsewhere.
    Private,
    /// Reserved for other uses (`240.0.0.0/4`, IPv4-mapped IPv6 addresses).
    Reserved,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPort => "it has no port",
            Self::Unspecified => "its address is unspecified",
            Self::Loopback => "its address is the loopback",
            Self::LinkLocal => "its address is link-local",
            Self::Multicast => "its address is multicast or broadcast",
            Self::Overlay => "its address lies in the network itself",
            Self::Private => "its address is private",
            Self::Reserved => "its address is reserved",
        })
    }
}

impl std::error::Error for EndpointError {}

/// Returns whether packets may be sent to this port of another host because a third node asks for it: ports below 1024 belong to other
/// services, apart from 443, at which many servers of nodes listen because it passes most firewalls.
pub fn is_port_of_nodes(port: u16) -> bool {
    const HTTPS: u16 = 443;
    port >= 1024 || port == HTTPS
}

/// Whether `endpoint` may be dialled by a member of `network`.
///
/// # Errors
/// The class of address for which it is refused. Private addresses pass with `allow_private`.
pub fn dialable(
    endpoint: Endpoint,
    network: Network,
    allow_private: bool,
) -> Result<(), EndpointError> {
    if endpoint.address.port() == 0 {
        return Err(EndpointError::NoPort);
    }
    let address = endpoint.address.ip();
    let is_in_overlay =
        matches!(address, IpAddr::V6(address) if network.range().contains(&address));
    let class = if is_in_overlay {
        Some(EndpointError::Overlay)
    } else {
        class_of(address)
    };
    match class {
        None => Ok(()),
        Some(EndpointError::Private) if allow_private => Ok(()),
        Some(error) => Err(error),
    }
}

/// The class for which an address is refused whatever the network; `None` for a public one.
pub fn class_of(address: IpAddr) -> Option<EndpointError> {
    match address {
        IpAddr::V4(address) => class_of_v4(address),
        IpAddr::V6(address) => class_of_v6(address),
    }
}

fn class_of_v4(address: Ipv4Addr) -> Option<EndpointError> {
    match address.octets() {
        [0, ..] => Some(EndpointError::Unspecified),
        [127, ..] => Some(EndpointError::Loopback),
        [169, 254, ..] => Some(EndpointError::LinkLocal),
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => {
            Some(EndpointError::Private)
        }
        [224..=239, ..] | [255, 255, 255, 255] => Some(EndpointError::Multicast),
        [240..=255, ..] => Some(EndpointError::Reserved),
        [..] => None,
    }
}

fn class_of_v6(address: Ipv6Addr) -> Option<EndpointError> {
    if address.is_unspecified() {
        return Some(EndpointError::Unspecified);
    }
    if address.is_loopback() {
        return Some(EndpointError::Loopback);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, ..] => Some(EndpointError::Reserved),
        [0xfe80..=0xfebf, ..] => Some(EndpointError::LinkLocal),
        [0xff00..=0xffff, ..] => Some(EndpointError::Multicast),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(EndpointError::Private),
        [..] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(endpoint: &str, expected: Result<(), EndpointError>) {
        let network = Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        assert_eq!(
            dialable(endpoint.parse().unwrap(), network, false),
            expected,
            "{endpoint}"
        );
        let private = expected == Err(EndpointError::Private);
        let allowed = if private { Ok(()) } else { expected };
        assert_eq!(
            dialable(endpoint.parse().unwrap(), network, true),
            allowed,
            "{endpoint}"
        );
    }

    #[test]
    fn public_addresses_are_dialled() {
        for good in [
            "udp:45.67.0.1:1194",
            "tcp:[2a00:1450::1]:443",
            "udp:[2001:db8:43::1]:1",
            "udp:172.32.0.1:1",
        ] {
            check(good, Ok(()));
        }
    }

    #[test]
    fn each_class_of_address_is_refused_by_its_name() {
        use EndpointError as R;
        for (bad, why) in [
            ("udp:45.67.0.1:0", R::NoPort),
            ("udp:0.1.2.3:1", R::Unspecified),
            ("udp:[::]:1", R::Unspecified),
            ("udp:127.0.0.2:1", R::Loopback),
            ("udp:[::1]:1", R::Loopback),
            ("udp:169.254.1.1:1", R::LinkLocal),
            ("udp:[fe80::1]:1", R::LinkLocal),
            ("udp:224.0.0.1:1", R::Multicast),
            ("udp:255.255.255.255:1", R::Multicast),
            ("udp:[ff02::1]:1", R::Multicast),
            ("udp:[2001:db8:42:7::1]:1194", R::Overlay),
            ("udp:10.0.0.1:1", R::Private),
            ("udp:172.16.0.1:1", R::Private),
            ("udp:192.168.1.1:1", R::Private),
            ("udp:100.64.0.1:1", R::Private),
            ("udp:[fd00::1]:1", R::Private),
            ("udp:240.0.0.1:1", R::Reserved),
            ("udp:[::ffff:127.0.0.1]:1", R::Reserved),
            ("udp:[64:ff9b::7f00:1]:1", R::Reserved),
        ] {
            check(bad, Err(why));
        }
    }
}
