//! The fallback route table, which keeps copies of babeld's routes for a moment after babeld deleted them.
//!
//! babeld changes a route by deleting it and adding the next one. In between, the kernel would have
//! no route, so packets of that moment use the copy of the old route.

use super::{
    Kernel, KernelError,
    numbers::{
        BABEL_PROTOCOL, DEFAULT_FALLBACK_TABLE, DEFAULT_TABLE, FALLBACK_TABLE, FAMILIES, PROTOCOL,
        TABLE,
    },
    request::Request,
};
use futures_util::{Stream, StreamExt};
use ipnet::{IpNet, Ipv6Net};
use nix::errno::Errno;
use policies::alternates::NextHop;
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
    },
};
use std::{collections::BTreeSet, net::IpAddr};
use wire::overlay::link_local;

/// The destination of a route; `::/0` is the destination of the default route to an exit gateway.
pub type Destination = IpNet;

/// Each of babeld's tables, with the table for its copies.
const TABLE_PAIRS: [(u8, u8); 2] = [
    (TABLE, FALLBACK_TABLE),
    (DEFAULT_TABLE, DEFAULT_FALLBACK_TABLE),
];

/// A change of one of babeld's tables.
#[derive(Clone, Debug)]
pub enum RouteChange {
    /// A route was added or replaced.
    Added(Destination, Box<RouteMessage>),
    /// A route was deleted, or became unreachable.
    Deleted(Destination),
    /// The daemon has made a destination unreachable, because its node is revoked.
    Blocked(Destination),
    /// The daemon no longer makes a destination unreachable.
    Unblocked(Destination),
    /// The kernel dropped some messages about changes, so the whole tables must be read again.
    Overrun,
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
            std::future::ready(route_change(message.payload))
        })))
    }

    /// Copies a route of babeld into the fallback route table, or into that of the default route.
    ///
    /// # Errors
    ///
    /// The kernel rejects it.
    pub async fn copy_route(&self, route: RouteMessage) -> Result<(), KernelError> {
        self.execute(copy_request(copy_of(route))).await
    }

    /// Deletes the copy of the route to a destination.
    ///
    /// # Errors
    ///
    /// The kernel rejects it.
    pub async fn delete_copy(&self, to: Destination) -> Result<(), KernelError> {
        let mut message = RouteMessage::default();
        let (family, address) = match to.addr() {
            IpAddr::V4(address) => (AddressFamily::Inet, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, RouteAddress::Inet6(address)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = to.prefix_len();
        message.header.table = if to.prefix_len() == 0 {
            DEFAULT_FALLBACK_TABLE
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
        self.execute(request.forgive(&[Errno::ESRCH])).await
    }

    /// Copies all routes of babeld, and deletes the copies of routes that no longer exist.
    ///
    /// # Errors
    ///
    /// The kernel rejects a change.
    pub async fn copy_all_routes(&self) -> Result<(), KernelError> {
        for family in FAMILIES {
            for (table, fallback_table) in TABLE_PAIRS {
                let (mut copies, mut destinations) = (Vec::new(), BTreeSet::new());
                self.each_route(family, table, |route| {
                    if is_usable(&route) {
                        destinations.extend(copied_destination(&route));
                        copies.push(copy_of(route));
                    }
                })
                .await?;
                let mut outdated = Vec::new();
                self.each_route(family, fallback_table, |route| {
                    let to = copied_destination(&route);
                    outdated.extend(to.filter(|to| !destinations.contains(to)));
                })
                .await?;
                for to in outdated {
                    self.delete_copy(to).await?;
                }
                self.execute_all(copies.into_iter().map(copy_request))
                    .await?;
            }
        }
        Ok(())
    }
}

/// An IPv6 route of babeld to one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHopRoute {
    /// The destination of the route.
    pub to: Ipv6Net,
    /// The source of the packets that the route is for; `None` for all packets.
    pub from: Option<Ipv6Net>,
    /// The neighbour and the slot by which packets leave.
    pub next_hop: NextHop,
}

impl NextHopRoute {
    /// Builds the route as babeld adds it; the source address is that of this node.
    fn message(self, link: u32, source: Option<IpAddr>) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = AddressFamily::Inet6;
        header.destination_prefix_length = self.to.prefix_len();
        header.protocol = BABEL_PROTOCOL;
        header.kind = RouteType::Unicast;
        header.flags = RouteFlags::Onlink;
        header.table = match self.from {
            Some(_) => DEFAULT_TABLE,
            None => TABLE,
        };
        let inet6 = RouteAddress::Inet6;
        let parts = &mut message.attributes;
        parts.push(RouteAttribute::Destination(inet6(self.to.addr())));
        if let Some(from) = self.from {
            message.header.source_prefix_length = from.prefix_len();
            parts.push(RouteAttribute::Source(inet6(from.network())));
        }
        if let Some(IpAddr::V6(source)) = source {
            parts.push(RouteAttribute::PrefSource(inet6(source)));
        }
        let gateway = RouteAttribute::Gateway(inet6(link_local(self.next_hop.via)));
        parts.extend([gateway, RouteAttribute::Oif(link)]);
        message
    }
}

impl Kernel {
    /// Restores a route of babeld that somebody deleted, unless there is one to the destination.
    ///
    /// # Errors
    ///
    /// The kernel rejects it, for instance since the link is down.
    pub async fn restore_route(&self, route: NextHopRoute) -> Result<(), KernelError> {
        let link = self.index(route.next_hop.slot)?;
        // babeld is configured to install routes to nodes with this source address.
        let source = self.state().placed.address(AddressFamily::Inet6);
        let message = route.message(link, source.filter(|_| route.from.is_none()));
        let message = RouteNetlinkMessage::NewRoute(message);
        let doing = format!("restore the route to {}", route.to);
        self.execute(Request::create(doing, message).forgive(&[Errno::EEXIST]))
            .await
    }

    /// Deletes a restored route that babeld does not have any more. It is no error if the route does not exist.
    ///
    /// # Errors
    ///
    /// The kernel rejects it.
    pub async fn delete_restored(&self, route: NextHopRoute) -> Result<(), KernelError> {
        let link = self.index(route.next_hop.slot)?;
        let message = RouteNetlinkMessage::DelRoute(route.message(link, None));
        let doing = format!("delete the restored route to {}", route.to);
        self.execute(Request::change(doing, message).forgive(&[Errno::ESRCH]))
            .await
    }

    /// Copies those routes of babeld that have no copy; returns the destinations of all routes of babeld.
    ///
    /// # Errors
    ///
    /// The kernel rejects a change.
    pub async fn copy_missing_routes(&self) -> Result<BTreeSet<Destination>, KernelError> {
        let mut present = BTreeSet::new();
        for family in FAMILIES {
            for (table, fallback_table) in TABLE_PAIRS {
                let mut copies = BTreeSet::new();
                self.each_route(family, fallback_table, |copy| {
                    copies.extend(copied_destination(&copy));
                })
                .await?;
                let mut missing = Vec::new();
                self.each_route(family, table, |route| {
                    let to = copied_destination(&route);
                    present.extend(to);
                    if is_usable(&route) && to.is_some_and(|to| !copies.contains(&to)) {
                        missing.push(copy_of(route));
                    }
                })
                .await?;
                self.execute_all(missing.into_iter().map(copy_request))
                    .await?;
            }
        }
        Ok(present)
    }
}

/// Returns the request that adds a copy, or replaces the former one.
fn copy_request(copy: RouteMessage) -> Request {
    // The link may have gone down since the route was reported.
    let forgiven: &[Errno] = &[
        Errno::ENODEV,
        Errno::ENETDOWN,
        Errno::EHOSTUNREACH,
        Errno::EINVAL,
    ];
    let message = RouteNetlinkMessage::NewRoute(copy);
    Request::replace("copy a route", message).forgive(forgiven)
}

fn route_change(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<RouteChange> {
    let (route, is_new) = match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => (route, true),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => (route, false),
        NetlinkPayload::Overrun(_) => return Some(RouteChange::Overrun),
        _ => return None,
    };
    if !TABLE_PAIRS
        .iter()
        .any(|(table, _)| *table == route.header.table)
    {
        return None;
    }
    let to = copied_destination(&route)?;
    let is_own = route.header.protocol == PROTOCOL;
    Some(match (is_new, is_own) {
        (true, true) => RouteChange::Blocked(to),
        (false, true) => RouteChange::Unblocked(to),
        (true, false) if is_usable(&route) => RouteChange::Added(to, Box::new(route)),
        (true | false, false) => RouteChange::Deleted(to),
    })
}

fn is_usable(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unicast
}

/// Returns the destination of a route in one of babeld's tables, or of a copy; `None` if the route is not copied.
fn copied_destination(route: &RouteMessage) -> Option<Destination> {
    match route.header.table {
        DEFAULT_TABLE | DEFAULT_FALLBACK_TABLE => {
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

/// Returns the copy of a route. The copy of a default route needs no source prefix, since the rule that
/// leads to its table already matches the source.
fn copy_of(mut route: RouteMessage) -> RouteMessage {
    route.header.table = if route.header.table == DEFAULT_TABLE {
        DEFAULT_FALLBACK_TABLE
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
    route.attributes.shrink_to_fit();
    route
}
