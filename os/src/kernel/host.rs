//! Gives the host the node's address, routes and rules, and removes them, and also the routes that a dead babeld left.

use super::{
    Kernel, KernelError,
    numbers::{
        ALTERNATE_TABLE, BABEL_PROTOCOL, BLOCK_METRIC, DEFAULT_FALLBACK_TABLE, DEFAULT_TABLE,
        FALLBACK_TABLE, FAMILIES, NODE_METRIC, PROTOCOL, TABLE,
    },
    placed::Unreachable,
    request::Request,
    rules::{add_rule, delete_rule, table_rules},
    slots::address_message,
    sysctl,
};
use ipnet::{IpNet, Ipv4Net};
use nix::{errno::Errno, net::if_::if_nametoindex};
use policies::names::Prefix;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::AddressHeaderFlags,
        link::{LinkFlags, LinkMessage},
        route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
    },
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::overlay::{Network, Network4, first_address};

impl Kernel {
    /// Gives the host the node's address (on `lo`), `unreachable` routes for the node's and the
    /// network's range, and the rules for babeld's table, the alternate and the fallback routes. A second call changes nothing.
    ///
    /// # Errors
    ///
    /// Link `lo` is down, or the kernel rejects a change.
    pub async fn join_host(&self, network: Network, me: Prefix) -> Result<(), KernelError> {
        let _changing = self.host_changes.lock().await;
        let lo = loopback()?;
        if !self.is_up(lo).await? {
            return Err(KernelError::LoopbackDown);
        }
        self.state().placed.ipv6 = Some((network, me));
        self.execute_all(self.place(AddressFamily::Inet6, lo)).await
    }

    /// Builds the requests that create all that the node has on the host for one address family. What exists is no error.
    fn place(&self, family: AddressFamily, lo: u32) -> Vec<Request> {
        let placed = self.state().placed.clone();
        let routes = placed.routes(family).into_iter().map(make_unreachable);
        let address = placed.address(family);
        let address = address.map(|address| add_address(lo, address));
        let rules = placed.rules(family).into_iter().map(add_rule);
        routes.chain(address).chain(rules).collect()
    }

    /// Gives the host the node's IPv4 address (on `lo`), `unreachable` routes, rules, and forwarding of
    /// IPv4 packets that arrive on slots, as the network's IPv4 range requires. Removes all of these if
    /// `network` is `None`. A second call changes nothing.
    ///
    /// # Errors
    ///
    /// The kernel rejects a change.
    pub async fn apply_ipv4(
        &self,
        network: Option<Network4>,
        me: Prefix,
    ) -> Result<(), KernelError> {
        let _changing = self.host_changes.lock().await;
        let lo = loopback()?;
        self.state().placed.ipv4 = network.map(|network| (network, me));
        let wanted = self.state().placed.routes(AddressFamily::Inet);
        let mut requests = Vec::new();
        for route in self.main_routes(AddressFamily::Inet, PROTOCOL).await? {
            let is_wanted = wanted.iter().any(|wanted| matches_route(&route, *wanted));
            if !is_wanted {
                requests.extend(node_address(&route).map(|address| delete_address(lo, address)));
                requests.push(delete_route(route));
            }
        }
        if network.is_none() {
            requests.extend(table_rules(AddressFamily::Inet).map(delete_rule));
        }
        requests.extend(self.place(AddressFamily::Inet, lo));
        self.execute_all(requests).await?;
        self.slots()
            .iter()
            .try_for_each(|slot| sysctl::set_ipv4_forwarding(&slot.to_string(), network.is_some()))
    }

    /// Makes a node's range unreachable, whatever routes babeld knows. A second call changes nothing.
    ///
    /// # Errors
    ///
    /// The kernel rejects the change.
    pub async fn block(&self, range: IpNet) -> Result<(), KernelError> {
        let _changing = self.host_changes.lock().await;
        self.state().placed.blocked.insert(range);
        self.execute(make_unreachable(blocked(range))).await
    }

    /// Makes a range reachable again that [`Self::block`] made unreachable. A second call changes nothing.
    ///
    /// # Errors
    ///
    /// The kernel rejects the change.
    pub async fn unblock(&self, range: IpNet) -> Result<(), KernelError> {
        let _changing = self.host_changes.lock().await;
        self.state().placed.blocked.remove(&range);
        let message = RouteNetlinkMessage::DelRoute(unreachable(blocked(range)));
        self.execute(Request::change(format!("unblock {range}"), message).forgive(&[Errno::ESRCH]))
            .await
    }

    /// Removes the addresses, routes and copies of routes of any node on this host; returns the numbers of routes
    /// and of addresses.
    ///
    /// # Errors
    ///
    /// The kernel rejects a change.
    pub(super) async fn leave_host(&self) -> Result<(usize, usize), KernelError> {
        let lo = loopback()?;
        let (mut routes, mut addresses) = (Vec::new(), Vec::new());
        for family in FAMILIES {
            for route in self.main_routes(family, PROTOCOL).await? {
                addresses.extend(node_address(&route));
                routes.push(route);
            }
            routes.extend(self.routes(family, FALLBACK_TABLE).await?);
            routes.extend(self.routes(family, ALTERNATE_TABLE).await?);
        }
        let copies = self.routes(AddressFamily::Inet6, DEFAULT_FALLBACK_TABLE);
        routes.extend(copies.await?);
        let found = (routes.len(), addresses.len());
        let addresses = addresses
            .into_iter()
            .map(|address| delete_address(lo, address));
        self.execute_all(addresses.chain(routes.into_iter().map(delete_route)))
            .await?;
        Ok(found)
    }

    /// Deletes the routes of a babeld that has exited: all routes of its tables, and its routes in the main table
    /// that leave by slots of this node. Returns how many there were.
    ///
    /// # Errors
    ///
    /// The kernel rejects a change.
    pub async fn flush_babel_routes(&self) -> Result<usize, KernelError> {
        let slot_indexes: Vec<u32> = self.state().slots.values().copied().collect();
        let (mut leftover, mut main) = (Vec::new(), Vec::new());
        for family in FAMILIES {
            leftover.extend(self.routes(family, TABLE).await?);
            main.extend(self.main_routes(family, BABEL_PROTOCOL).await?);
        }
        leftover.extend(self.routes(AddressFamily::Inet6, DEFAULT_TABLE).await?);
        let is_babelds = |route: &RouteMessage| {
            let is_slot = |part: &RouteAttribute| matches!(part, RouteAttribute::Oif(index) if slot_indexes.contains(index));
            route.attributes.iter().any(is_slot)
        };
        leftover.extend(main.into_iter().filter(is_babelds));
        let count = leftover.len();
        self.execute_all(leftover.into_iter().map(delete_route))
            .await?;
        Ok(count)
    }

    /// Returns all routes of one table.
    pub(super) async fn routes(
        &self,
        family: AddressFamily,
        table: u8,
    ) -> Result<Vec<RouteMessage>, KernelError> {
        let mut routes = Vec::new();
        self.each_route(family, table, |route| routes.push(route))
            .await?;
        Ok(routes)
    }

    /// Calls `each` with each route of a table.
    pub(super) async fn each_route(
        &self,
        family: AddressFamily,
        table: u8,
        each: impl FnMut(RouteMessage),
    ) -> Result<(), KernelError> {
        let mut query = RouteMessage::default();
        query.header.table = table;
        self.each_filtered_route(family, query, each).await
    }

    /// Returns the routes with the table, protocol and kind of `query`, of those that it names.
    pub(super) async fn filtered_routes(
        &self,
        family: AddressFamily,
        query: RouteMessage,
    ) -> Result<Vec<RouteMessage>, KernelError> {
        let mut routes = Vec::new();
        self.each_filtered_route(family, query, |route| routes.push(route))
            .await?;
        Ok(routes)
    }

    async fn each_filtered_route(
        &self,
        family: AddressFamily,
        mut query: RouteMessage,
        mut each: impl FnMut(RouteMessage),
    ) -> Result<(), KernelError> {
        let RouteHeader {
            table,
            protocol,
            kind,
            ..
        } = query.header;
        query.header.address_family = family;
        query.header.table = RouteHeader::RT_TABLE_UNSPEC;
        if table != RouteHeader::RT_TABLE_UNSPEC {
            // Linux 4.20 and later filter by it; an older kernel lists all routes.
            let attribute = RouteAttribute::Table(u32::from(table));
            query.attributes.push(attribute);
        }
        let matches = |route: &RouteHeader| {
            [RouteHeader::RT_TABLE_UNSPEC, route.table].contains(&table)
                && [RouteProtocol::Unspec, route.protocol].contains(&protocol)
                && [RouteType::Unspec, route.kind].contains(&kind)
        };
        let query = RouteNetlinkMessage::GetRoute(query);
        self.dump("list routes", query, |entry| {
            if let RouteNetlinkMessage::NewRoute(route) = entry
                && matches(&route.header)
            {
                each(route);
            }
        })
        .await
    }

    async fn is_up(&self, index: u32) -> Result<bool, KernelError> {
        let link = self.link(index).await?;
        Ok(link.is_some_and(|link| link.header.flags.contains(LinkFlags::Up)))
    }

    /// Returns the link with this index; `None` if there is no such link.
    pub(super) async fn link(&self, index: u32) -> Result<Option<LinkMessage>, KernelError> {
        let mut query = LinkMessage::default();
        query.header.index = index;
        let query = RouteNetlinkMessage::GetLink(query);
        let found = self.find("read a link", query, &[Errno::ENODEV]).await?;
        Ok(found.and_then(|found| match found {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        }))
    }

    /// Calls `each` with each link of the network namespace.
    pub(super) async fn links(&self, mut each: impl FnMut(LinkMessage)) -> Result<(), KernelError> {
        let query = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump("list links", query, |entry| {
            if let RouteNetlinkMessage::NewLink(link) = entry {
                each(link);
            }
        })
        .await
    }
}

/// Returns the index of `lo`.
pub(super) fn loopback() -> Result<u32, KernelError> {
    if_nametoindex("lo").map_err(|errno| KernelError::refused("find link lo")(errno.into()))
}

/// Returns the route by which a node's range is blocked.
fn blocked(range: IpNet) -> Unreachable {
    Unreachable {
        range,
        table: TABLE,
        metric: BLOCK_METRIC,
    }
}

fn unreachable(wanted: Unreachable) -> RouteMessage {
    let mut route = match wanted.range {
        IpNet::V4(range) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .build(),
        IpNet::V6(range) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .build(),
    };
    route.header.table = wanted.table;
    route.header.kind = RouteType::Unreachable;
    route.header.protocol = PROTOCOL;
    route
        .attributes
        .push(RouteAttribute::Priority(wanted.metric));
    route
}

/// Builds a request that creates an `unreachable` route. It is no error if the route exists.
pub(super) fn make_unreachable(wanted: Unreachable) -> Request {
    let doing = format!("make {} unreachable", wanted.range);
    let message = RouteNetlinkMessage::NewRoute(unreachable(wanted));
    Request::create(doing, message).forgive(&[Errno::EEXIST])
}

/// Builds a request that adds the node's address to `lo`.
pub(super) fn add_address(lo: u32, address: IpAddr) -> Request {
    let mut message = address_message(lo, address, if address.is_ipv4() { 32 } else { 128 });
    message.header.flags = AddressHeaderFlags::Nodad;
    Request::replace(
        "add the node's address to lo",
        RouteNetlinkMessage::NewAddress(message),
    )
}

fn delete_address(lo: u32, address: IpAddr) -> Request {
    let message = address_message(lo, address, if address.is_ipv4() { 32 } else { 128 });
    let message = RouteNetlinkMessage::DelAddress(message);
    Request::change("delete the node's address from lo", message).forgive(&[Errno::EADDRNOTAVAIL])
}

/// Returns whether this is the given route of the node.
pub(super) fn matches_route(route: &RouteMessage, wanted: Unreachable) -> bool {
    let has_metric = |part: &RouteAttribute| matches!(part, RouteAttribute::Priority(is) if *is == wanted.metric);
    super::fallback_routes::destination(route) == Some(wanted.range)
        && route.header.table == wanted.table
        && route.attributes.iter().any(has_metric)
}

/// Returns the address of the node for whose range this route was made; `None` if it is another route.
fn node_address(route: &RouteMessage) -> Option<IpAddr> {
    use rtnetlink::packet_route::route::RouteAddress;
    let metric = route.attributes.iter().find_map(|part| match part {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    })?;
    let address = route.attributes.iter().find_map(|part| match part {
        RouteAttribute::Destination(RouteAddress::Inet6(range)) => {
            Some(Ipv6Addr::from_bits(range.to_bits() | 1).into())
        }
        RouteAttribute::Destination(RouteAddress::Inet(range)) => Some(
            first_address(Ipv4Net::new(*range, route.header.destination_prefix_length).ok()?)
                .into(),
        ),
        _ => None,
    })?;
    (metric == NODE_METRIC).then_some(address)
}

/// Builds a request that deletes exactly this route, by the attributes that distinguish it from others.
pub(super) fn delete_route(mut route: RouteMessage) -> Request {
    let distinguishes = |part: &RouteAttribute| {
        matches!(
            part,
            RouteAttribute::Destination(_)
                | RouteAttribute::Source(_)
                | RouteAttribute::Gateway(_)
                | RouteAttribute::Via(_)
                | RouteAttribute::Oif(_)
                | RouteAttribute::Priority(_)
                | RouteAttribute::Table(_)
        )
    };
    route.attributes.retain(distinguishes);
    // The kernel's answer contains flags of the link's state, such as a missing carrier, which would not match.
    route.header.flags = rtnetlink::packet_route::route::RouteFlags::empty();
    // The kernel reports unreachable routes with link lo, with which they were not created.
    if route.header.kind != RouteType::Unicast {
        route
            .attributes
            .retain(|part| !matches!(part, RouteAttribute::Oif(_)));
    }
    Request::change("delete a route", RouteNetlinkMessage::DelRoute(route)).forgive(&[Errno::ESRCH])
}
