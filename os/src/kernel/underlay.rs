//! Reads the host's own connectivity, which carries the tunnels: addresses, gateways, address families.

use super::{Kernel, KernelError};
use nix::sys::socket::{AddressFamily as Family, SockFlag, SockType, socket};
use policies::names::{Slot, Transport};
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use std::{collections::BTreeMap, net::IpAddr};

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
    /// Returns the host's addresses, sorted, without those of `lo` and of slots, link-local ones, and
    /// those that duplicate address detection has not yet approved.
    ///
    /// # Errors
    ///
    /// The kernel rejects the request.
    pub async fn addresses(&self) -> Result<Vec<UplinkAddress>, KernelError> {
        let links = self.uplinks().await?;
        let mut found = Vec::new();
        let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("list addresses", query, |entry| {
            if let RouteNetlinkMessage::NewAddress(message) = entry {
                found.extend(uplink_address(&links, &message));
            }
        })
        .await?;
        found.sort();
        Ok(found)
    }

    /// Returns the next hops of the default routes in the main table, the preferred one first.
    ///
    /// # Errors
    ///
    /// The kernel rejects the request.
    pub async fn gateways(&self) -> Result<Vec<Gateway>, KernelError> {
        let links = self.uplinks().await?;
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
                        found.extend(gateway(&links, &route));
                    }
                },
            )
            .await?;
        }
        found.sort();
        Ok(found)
    }

    /// Returns the names of the links that are up and neither loopback nor slots, by index.
    async fn uplinks(&self) -> Result<BTreeMap<u32, String>, KernelError> {
        let mut links = BTreeMap::new();
        self.links(|link| {
            let flags = link.header.flags;
            let name = link.attributes.iter().find_map(|part| match part {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            if let Some(name) = name
                && flags.contains(LinkFlags::Up)
                && !flags.contains(LinkFlags::Loopback)
                && !is_slot_name(&name)
            {
                links.insert(link.header.index, name);
            }
        })
        .await?;
        Ok(links)
    }
}

fn is_slot_name(name: &str) -> bool {
    let servers = [Transport::Udp, Transport::Tcp].map(super::slots::server_name);
    name.parse::<Slot>().is_ok() || servers.contains(&name)
}

fn uplink_address(
    links: &BTreeMap<u32, String>,
    message: &AddressMessage,
) -> Option<UplinkAddress> {
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    if message.header.flags.intersects(unusable) {
        return None;
    }
    let link = links.get(&message.header.index)?.clone();
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
    let prefix_length = message.header.prefix_len;
    (!link_local && !address.is_loopback()).then_some(UplinkAddress {
        link,
        address,
        prefix_length,
    })
}

fn gateway(links: &BTreeMap<u32, String>, route: &RouteMessage) -> Option<Gateway> {
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
    Some(Gateway {
        metric,
        link: links.get(&index?)?.clone(),
        address: address?,
    })
}
