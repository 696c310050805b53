//! Finds packets to other nodes that the host sends elsewhere than through a tunnel.

use super::{Kernel, KernelError, slot_of_link};
use nix::errno::Errno;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// The route that the host uses to a node, although babeld has installed another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion {
    /// The link by which packets leave; `None` if the host drops them.
    pub link: Option<String>,
    /// The routing table of the route, if the kernel reports it.
    pub table: Option<u32>,
}

impl fmt::Display for Diversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.link {
            Some(link) => write!(f, "leave by {link}")?,
            None => f.write_str("are dropped as unreachable")?,
        }
        match self.table {
            Some(table) => write!(f, ", by a route of table {table}"),
            None => Ok(()),
        }
    }
}

impl Kernel {
    /// Returns whether the node has made this address unreachable, since its node is revoked.
    pub fn is_blocked(&self, address: Ipv6Addr) -> bool {
        let blocked = &self.state().placed.blocked;
        blocked
            .iter()
            .any(|range| range.contains(&IpAddr::V6(address)))
    }

    /// Returns by which route a packet to a node leaves, unless it leaves by a slot.
    ///
    /// # Errors
    ///
    /// The kernel rejects the request.
    pub async fn diversion(&self, to: Ipv6Addr) -> Result<Option<Diversion>, KernelError> {
        let mut query = RouteMessage::default();
        query.header.address_family = AddressFamily::Inet6;
        query.header.destination_prefix_length = 128;
        let destination = RouteAttribute::Destination(RouteAddress::Inet6(to));
        query.attributes.push(destination);
        let unreachable: &[Errno] = &[
            Errno::ENETUNREACH,
            Errno::EHOSTUNREACH,
            Errno::EACCES,
            Errno::EINVAL,
        ];
        let query = RouteNetlinkMessage::GetRoute(query);
        let found = self.find("look a route up", query, unreachable).await?;
        let Some(RouteNetlinkMessage::NewRoute(route)) = found else {
            return Ok(Some(Diversion {
                link: None,
                table: None,
            }));
        };
        let (mut index, mut table) = (None, None);
        for part in &route.attributes {
            match part {
                RouteAttribute::Oif(found) => index = Some(*found),
                RouteAttribute::Table(found) => table = Some(*found),
                _ => {}
            }
        }
        let index = index.unwrap_or(0);
        if slot_of_link(index).is_some() {
            return Ok(None);
        }
        let link = nix::net::if_::if_indextoname(index).ok();
        let link = link.and_then(|link| link.into_string().ok());
        Ok(Some(Diversion { link, table }))
    }
}
