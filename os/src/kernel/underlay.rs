//! Reads the host's own connectivity, which carries the tunnels: addresses, gateways, address families.

use super::{Kernel, KernelError};
use nix::sys::socket::{AddressFamily as Family, SockFlag, SockType, socket};
use policies::names::{Slot, Transport};
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// An address of the host, on a link that is up and not a slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UplinkAddress {
    /// The name of the link.
    pub link: String,
    /// The address; it is neither a loopback nor a link-local address.
    pub address: IpAddr,
    /// The prefix length of the address, in bits.
    pub prefix_length: u8,
}

impl UplinkAddress {
    /// Returns the address with the length of its subnet's prefix, in bits.
    pub fn in_subnet(&self) -> (IpAddr, u8) {
        (self.address, self.prefix_length)
    }
}

/// The next hop of a default route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// The metric of the route; the lowest is preferred.
    pub metric: u32,
    /// The name of the route's link.
    pub link: String,
    /// The address of the gateway; an IPv6 gateway usually has a link-local one.
    pub address: IpAddr,
}

/// Returns whether IPv6 sockets can be opened on this host. If not, OpenVPN's server needs `udp4` and
/// `tcp4-server`.
pub fn has_ipv6() -> bool {
    socket(
        Family::Inet6,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .is_ok()
}

impl Kernel {
    /// Returns the host's addresses at which it can be dialled, sorted: without those of `lo` and of slots, link-local
    /// ones, temporary and deprecated ones, and those that duplicate address detection has not yet approved.
    ///
    /// # Errors
    ///
    /// The kernel rejects the request.
    pub async fn addresses(&self) -> Result<Vec<UplinkAddress>, KernelError> {
        let mut found = Vec::new();
        let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("list addresses", query, |entry| {
            if let RouteNetlinkMessage::NewAddress(message) = entry {
                found.extend(usable_address(&message));
            }
        })
        .await?;
        let uplinks = self.uplinks(found.iter().map(|(index, ..)| *index)).await?;
        let on_uplink = |(index, address, prefix_length)| {
            Some(UplinkAddress {
                link: uplinks.get(&index)?.clone(),
                address,
                prefix_length,
            })
        };
        let mut found: Vec<_> = found.into_iter().filter_map(on_uplink).collect();
        found.sort();
        Ok(found)
    }

    /// Returns the next hops of the default routes in the main table, the preferred one first.
    ///
    /// # Errors
    ///
    /// The kernel rejects the request.
    pub async fn gateways(&self) -> Result<Vec<Gateway>, KernelError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let main = u32::from(RouteHeader::RT_TABLE_MAIN);
            query.attributes.push(RouteAttribute::Table(main));
            self.dump(
                "list routes",
                RouteNetlinkMessage::GetRoute(query),
                |entry| {
                    if let RouteNetlinkMessage::NewRoute(route) = entry {
                        found.extend(next_hop(&route));
                    }
                },
            )
            .await?;
        }
        let uplinks = self.uplinks(found.iter().map(|(index, ..)| *index)).await?;
        let on_uplink = |(index, address, metric)| {
            Some(Gateway {
                metric,
                link: uplinks.get(&index)?.clone(),
                address,
            })
        };
        let mut found: Vec<_> = found.into_iter().filter_map(on_uplink).collect();
        found.sort();
        Ok(found)
    }

    /// Returns the names of those of these links that are up and neither loopback nor slots, by index.
    ///
    /// Each is requested by itself, since a list of all links takes 900 KiB with 66 slots.
    async fn uplinks(
        &self,
        indexes: impl Iterator<Item = u32>,
    ) -> Result<BTreeMap<u32, String>, KernelError> {
        let mut uplinks = BTreeMap::new();
        for index in indexes.collect::<BTreeSet<_>>() {
            let name = self.link(index).await?.as_ref().and_then(uplink_name);
            uplinks.extend(name.map(|name| (index, name)));
        }
        Ok(uplinks)
    }
}

/// Returns the name of a link if it is up and neither loopback nor a slot.
fn uplink_name(link: &LinkMessage) -> Option<String> {
    let flags = link.header.flags;
    let name = link.attributes.iter().find_map(|part| match part {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    let is_uplink = flags.contains(LinkFlags::Up)
        && !flags.contains(LinkFlags::Loopback)
        && !is_slot_name(&name);
    is_uplink.then_some(name)
}

fn is_slot_name(name: &str) -> bool {
    let servers = [Transport::Udp, Transport::Tcp].map(super::slots::server_name);
    name.parse::<Slot>().is_ok() || servers.contains(&name)
}

/// Returns the index of the link, the address and its prefix length, if other hosts could use the address.
fn usable_address(message: &AddressMessage) -> Option<(u32, IpAddr, u8)> {
    let mut unusable = AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Dadfailed
        | AddressHeaderFlags::Deprecated;
    if message.header.family == AddressFamily::Inet6 {
        // The same bit marks a secondary IPv4 address, which is as good as another, and a temporary IPv6 address
        // (RFC 8981), at which the host cannot be reached for long.
        unusable |= AddressHeaderFlags::Secondary;
    }
    if message.header.flags.intersects(unusable) {
        return None;
    }
    let local = message.attributes.iter().find_map(|part| match part {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    // The kernel reports an IPv6 address without a peer as `Address`, without `Local`.
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|part| match part {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let header = &message.header;
    (!link_local && !address.is_loopback()).then_some((header.index, address, header.prefix_len))
}

/// Returns the index of the link, the gateway and the metric of a default route in the main table.
fn next_hop(route: &RouteMessage) -> Option<(u32, IpAddr, u32)> {
    let header = &route.header;
    let main = header.table == RouteHeader::RT_TABLE_MAIN;
    if !main || header.destination_prefix_length != 0 || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut index, mut address, mut metric) = (None, None, 0);
    for part in &route.attributes {
        match part {
            RouteAttribute::Oif(found) => index = Some(*found),
            RouteAttribute::Gateway(RouteAddress::Inet(found)) => address = Some((*found).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(found)) => address = Some((*found).into()),
            RouteAttribute::Priority(found) => metric = *found,
            _ => {}
        }
    }
    Some((index?, address?, metric))
}
