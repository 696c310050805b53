//! Reads the host's own connectivity, which carries the tunnels: addresses, gateways, address families.

use super::{Kernel, KernelError, forward_probe, numbers::FAMILIES};
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
    /// Whether the link has a default route, or is the host's only uplink. Others are mostly bridges of containers, or other VPNs.
    pub is_main: bool,
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

impl Gateway {
    /// Returns the index of the link, which a link-local address needs; `None` if the link is gone.
    pub fn link_index(&self) -> Option<u32> {
        nix::net::if_::if_nametoindex(self.link.as_str()).ok()
    }
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
        let found = self.addresses_of_uplinks().await?.into_iter();
        Ok(found.map(|(address, _)| address).collect())
    }

    /// Returns those of [`Self::addresses`] on main uplinks with a carrier.
    ///
    /// # Errors
    ///
    /// The kernel rejects the request.
    pub async fn connected_uplinks(&self) -> Result<BTreeSet<UplinkAddress>, KernelError> {
        let found = self.addresses_of_uplinks().await?.into_iter();
        let connected =
            found.filter(|(address, flags)| address.is_main && flags.contains(LinkFlags::LowerUp));
        Ok(connected.map(|(address, _)| address).collect())
    }

    /// Returns the host's addresses, sorted, each with the flags of its link.
    async fn addresses_of_uplinks(&self) -> Result<Vec<(UplinkAddress, LinkFlags)>, KernelError> {
        let mut found = Vec::new();
        let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("list addresses", query, |entry| {
            if let RouteNetlinkMessage::NewAddress(message) = entry {
                found.extend(usable_address(&message));
            }
        })
        .await?;
        let uplinks = self.uplinks(found.iter().map(|(index, ..)| *index)).await?;
        let main = match uplinks.len() {
            0 | 1 => None,
            _ => Some(self.default_links().await?),
        };
        let on_uplink = |(index, address, prefix_length)| {
            let (link, flags) = uplinks.get(&index)?.clone();
            let is_main = main.as_ref().is_none_or(|main| main.contains(&index));
            let address = UplinkAddress {
                link,
                address,
                prefix_length,
                is_main,
            };
            Some((address, flags))
        };
        let mut found: Vec<_> = found.into_iter().filter_map(on_uplink).collect();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found)
    }

    /// Returns the indexes of the links of the default routes in the main table.
    async fn default_links(&self) -> Result<BTreeSet<u32>, KernelError> {
        let add = |links: &mut BTreeSet<u32>, route: &RouteMessage| {
            let header = &route.header;
            if header.destination_prefix_length == 0 && header.kind == RouteType::Unicast {
                links.extend(route.attributes.iter().filter_map(|part| match part {
                    RouteAttribute::Oif(link) => Some(*link),
                    _ => None,
                }));
            }
        };
        self.read_main_table(&FAMILIES, (), |state| &mut state.default_links, add)
            .await
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
                link: uplinks.get(&index)?.0.clone(),
                address,
            })
        };
        let mut found: Vec<_> = found.into_iter().filter_map(on_uplink).collect();
        found.sort();
        Ok(found)
    }

    /// Returns the names and flags of those of these links that are up and neither loopback nor slots, by index.
    ///
    /// Each is requested by itself, since a list of all links takes 900 KiB with 66 slots.
    async fn uplinks(
        &self,
        indexes: impl Iterator<Item = u32>,
    ) -> Result<BTreeMap<u32, (String, LinkFlags)>, KernelError> {
        let mut uplinks = BTreeMap::new();
        for index in indexes.collect::<BTreeSet<_>>() {
            if let Some(link) = self.link(index).await?
                && let Some(name) = uplink_name(&link)
            {
                uplinks.insert(index, (name, link.header.flags));
            }
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
        && !is_link_of_node(&name);
    is_uplink.then_some(name)
}

/// Returns whether a link of a node has this name.
pub(super) fn is_link_of_node(name: &str) -> bool {
    let servers = [Transport::Udp, Transport::Tcp].map(super::slots::server_name);
    name.parse::<Slot>().is_ok() || servers.contains(&name) || name == forward_probe::LINK
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
