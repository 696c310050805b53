//! A second table that keeps babeld's routes for a moment after babeld deleted them.
//!
//! babeld changes a route by deleting it and adding the next one. In between the kernel would have
//! no route; the copy here leads the packets of that moment along the old path.

use super::{
    Kernel, KernelError,
    numbers::{DEFAULT_COPY, DEFAULT_TABLE, FALLBACK_TABLE, FAMILIES, PROTOCOL, TABLE},
    request::Request,
};
use futures_util::{Stream, StreamExt};
use ipnet::{IpNet, Ipv6Net};
use nix::errno::Errno;
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
    },
};
use std::net::IpAddr;

/// A destination; `::/0` is what lies outside the network, for its packets.
pub type Destination = IpNet;

/// Each of babeld's tables, and that of its copies.
const COPIES: [(u8, u8); 2] = [(TABLE, FALLBACK_TABLE), (DEFAULT_TABLE, DEFAULT_COPY)];

/// A change of babeld's table.
#[derive(Clone, Debug)]
pub enum RouteChange {
    /// A route was added or replaced.
    Added(Destination, Box<RouteMessage>),
    /// The route was deleted, or became unreachable.
    Gone(Destination),
    /// Some changes were lost: all must be read again.
    Lost,
}

impl Kernel {
    /// Returns a stream of all changes of babeld's tables from now on. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// The netlink socket cannot be opened.
    pub fn watch_routes(
        &self,
    ) -> Result<impl Stream<Item = RouteChange> + Unpin + use<>, KernelError> {
        let groups = [MulticastGroup::Ipv6Route, MulticastGroup::Ipv4Route];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(KernelError::Open)?;
        tokio::spawn(connection);
        Ok(Box::pin(messages.filter_map(|(message, _)| {
            std::future::ready(change(message.payload))
        })))
    }

    /// Copies a route into the fallback table.
    ///
    /// # Errors
    ///
    /// The kernel rejects it.
    pub async fn copy_route(&self, route: RouteMessage) -> Result<(), KernelError> {
        let message = RouteNetlinkMessage::NewRoute(copy(route));
        // The link may have gone down in between.
        let forgiven: &[Errno] = &[
            Errno::ENODEV,
            Errno::ENETDOWN,
            Errno::EHOSTUNREACH,
            Errno::EINVAL,
        ];
        self.ask(Request::replace("copy a route", message).forgive(forgiven))
            .await
    }

    /// Deletes the copy of the route to a destination.
    ///
    /// # Errors
    ///
    /// The kernel rejects it.
    pub async fn unshadow(&self, to: Destination) -> Result<(), KernelError> {
        let mut message = RouteMessage::default();
        let (family, address) = match to.addr() {
            IpAddr::V4(address) => (AddressFamily::Inet, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, RouteAddress::Inet6(address)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = to.prefix_len();
        message.header.table = if to.prefix_len() == 0 {
            DEFAULT_COPY
        } else {
            FALLBACK_TABLE
        };
        message
            .attributes
            .push(RouteAttribute::Destination(address));
        let request = Request::change(
            "delete a copied route",
            RouteNetlinkMessage::DelRoute(message),
        );
        self.ask(request.forgive(&[Errno::ESRCH])).await
    }

    /// Makes the copies equal to babeld's tables.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn copy_all_routes(&self) -> Result<(), KernelError> {
        for family in FAMILIES {
            for (table, copies) in COPIES {
                let all = self.routes(family, table).await?;
                let real: Vec<RouteMessage> = all.into_iter().filter(is_usable).collect();
                let known: Vec<Destination> = real.iter().filter_map(followed).collect();
                for stale in self
                    .routes(family, copies)
                    .await?
                    .iter()
                    .filter_map(followed)
                {
                    if !known.contains(&stale) {
                        self.unshadow(stale).await?;
                    }
                }
                for route in real {
                    self.copy_route(route).await?;
                }
            }
        }
        Ok(())
    }
}

fn change(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<RouteChange> {
    let (route, added) = match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => (route, true),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => (route, false),
        NetlinkPayload::Overrun(_) => return Some(RouteChange::Lost),
        _ => return None,
    };
    if !COPIES.iter().any(|(table, _)| *table == route.header.table) {
        return None;
    }
    let to = followed(&route)?;
    let is_added = added && is_usable(&route);
    Some(if is_added {
        RouteChange::Added(to, Box::new(route))
    } else {
        RouteChange::Gone(to)
    })
}

fn is_usable(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unicast
}

/// Where a route of one of babeld's tables, or a copy, leads.
fn followed(route: &RouteMessage) -> Option<Destination> {
    match route.header.table {
        DEFAULT_TABLE | DEFAULT_COPY => {
            (route.header.destination_prefix_length == 0).then(|| Ipv6Net::default().into())
        }
        _ => destination(route),
    }
}

pub(super) fn destination(route: &RouteMessage) -> Option<Destination> {
    let address = route.attributes.iter().find_map(|part| match part {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

/// The copy of a default route needs no source, because the rule that leads to it already matches
/// the source.
fn copy(mut route: RouteMessage) -> RouteMessage {
    route.header.table = if route.header.table == DEFAULT_TABLE {
        DEFAULT_COPY
    } else {
        FALLBACK_TABLE
    };
    route.header.source_prefix_length = 0;
    route.header.protocol = PROTOCOL;
    // The kernel's state flags are not part of the route.
    route.header.flags &= RouteFlags::Onlink;
    route.attributes.retain(|part| {
        matches!(
            part,
            RouteAttribute::Destination(_)
                | RouteAttribute::Gateway(_)
                | RouteAttribute::Via(_)
                | RouteAttribute::Oif(_)
                | RouteAttribute::PrefSource(_)
                | RouteAttribute::Priority(_)
        )
    });
    route
}
