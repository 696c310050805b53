//! Gives the host the node's address, routes and rules, and removes them, and also the routes that a dead babeld left.

use super::{
    Kernel, KernelError,
    numbers::{
        ALTERNATE_PRIORITY, ALTERNATE_TABLE, BABEL_PROTOCOL, DEFAULT_FALLBACK_TABLE, DEFAULT_TABLE,
        FALLBACK_PRIORITY, FALLBACK_TABLE, FAMILIES, PROTOCOL, RULE_PRIORITY, TABLE,
    },
    request::Request,
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
        route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::overlay::{Network, Network4, first_address};

/// The tables for which the node adds a rule, with the priority of each rule.
pub(super) const RULES: [(u8, u32); 3] = [
    (ALTERNATE_TABLE, ALTERNATE_PRIORITY),
    (TABLE, RULE_PRIORITY),
    (FALLBACK_TABLE, FALLBACK_PRIORITY),
];
/// Metric of the `unreachable` route for the node's own range; any other route takes precedence.
pub const NODE_METRIC: u32 = 4_294_967;
/// Metric of the `unreachable` route for the network's range.
pub const NETWORK_METRIC: u32 = 4_294_968;

/// Metric of the `unreachable` route for a blocked range; it takes precedence over babeld's routes, which
/// have metric 1024.
const BLOCK_METRIC: u32 = 1;

impl Kernel {
    /// Gives the host the node's address (on `lo`), `unreachable` routes for the node's and the
    /// network's range, and the rules for babeld's table, the alternate and the fallback routes. A second call changes nothing.
    ///
    /// # Errors
    ///
    /// Link `lo` is down, or the kernel rejects a change.
    pub async fn join_host(&self, network: Network, me: Prefix) -> Result<(), KernelError> {
        let lo = loopback()?;
        if !self.is_up(lo).await? {
            return Err(KernelError::LoopbackDown);
        }
        let range = network.node_range(me);
        // The node's route comes first, since a later sweep derives the address from it.
        self.execute_all([
            make_unreachable(range.into(), NODE_METRIC),
            make_unreachable(network.range().into(), NETWORK_METRIC),
            add_address(lo, network.node_address(me).into()),
        ])
        .await?;
        self.execute_all(make_rules(AddressFamily::Inet6)).await
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
        let lo = loopback()?;
        let own = network.and_then(|network| network.node_range(me));
        let wanted: Vec<(IpNet, u32)> = own
            .map(|own| (own.into(), NODE_METRIC))
            .into_iter()
            .chain(network.map(|network| (network.range().into(), NETWORK_METRIC)))
            .collect();
        let mut requests = Vec::new();
        for route in self
            .routes(AddressFamily::Inet, RouteHeader::RT_TABLE_MAIN)
            .await?
        {
            if route.header.protocol == PROTOCOL
                && !wanted.iter().any(|wanted| matches_route(&route, wanted))
            {
                requests.extend(node_address(&route).map(|address| delete_address(lo, address)));
                requests.push(delete_route(route));
            }
        }
        requests.extend(
            wanted
                .into_iter()
                .map(|(range, metric)| make_unreachable(range, metric)),
        );
        requests.extend(own.map(|own| add_address(lo, first_address(own).into())));
        let rules = if network.is_some() {
            make_rules
        } else {
            delete_rules
        };
        requests.extend(rules(AddressFamily::Inet));
        self.execute_all(requests).await?;
        self.state().forwards_ipv4 = network.is_some();
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
        let message = RouteNetlinkMessage::NewRoute(unreachable(range, TABLE, BLOCK_METRIC));
        self.execute(Request::create(format!("block {range}"), message).forgive(&[Errno::EEXIST]))
            .await
    }

    /// Makes a range reachable again that [`Self::block`] made unreachable. A second call changes nothing.
    ///
    /// # Errors
    ///
    /// The kernel rejects the change.
    pub async fn unblock(&self, range: IpNet) -> Result<(), KernelError> {
        let message = RouteNetlinkMessage::DelRoute(unreachable(range, TABLE, BLOCK_METRIC));
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
            for route in self.routes(family, RouteHeader::RT_TABLE_MAIN).await? {
                if route.header.protocol == PROTOCOL {
                    addresses.extend(node_address(&route));
                    routes.push(route);
                }
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
            main.extend(self.routes(family, RouteHeader::RT_TABLE_MAIN).await?);
        }
        leftover.extend(self.routes(AddressFamily::Inet6, DEFAULT_TABLE).await?);
        let is_babelds = |route: &RouteMessage| {
            let is_slot = |part: &RouteAttribute| matches!(part, RouteAttribute::Oif(index) if slot_indexes.contains(index));
            route.header.protocol == BABEL_PROTOCOL && route.attributes.iter().any(is_slot)
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
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        // Linux 4.20 and later filter by the table; an older kernel lists all routes.
        query
            .attributes
            .push(RouteAttribute::Table(u32::from(table)));
        let mut routes = Vec::new();
        self.dump(
            "list routes",
            RouteNetlinkMessage::GetRoute(query),
            |entry| {
                if let RouteNetlinkMessage::NewRoute(route) = entry
                    && route.header.table == table
                {
                    routes.push(route);
                }
            },
        )
        .await?;
        Ok(routes)
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

fn loopback() -> Result<u32, KernelError> {
    if_nametoindex("lo").map_err(|errno| KernelError::refused("find link lo")(errno.into()))
}

fn unreachable(range: IpNet, table: u8, metric: u32) -> RouteMessage {
    let mut route = match range {
        IpNet::V4(range) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .build(),
        IpNet::V6(range) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .build(),
    };
    route.header.table = table;
    route.header.kind = RouteType::Unreachable;
    route.header.protocol = PROTOCOL;
    route.attributes.push(RouteAttribute::Priority(metric));
    route
}

fn make_unreachable(range: IpNet, metric: u32) -> Request {
    let message =
        RouteNetlinkMessage::NewRoute(unreachable(range, RouteHeader::RT_TABLE_MAIN, metric));
    Request::create(format!("make {range} unreachable"), message).forgive(&[Errno::EEXIST])
}

fn make_rules(family: AddressFamily) -> [Request; RULES.len()] {
    RULES.map(|(table, priority)| {
        let message = RouteNetlinkMessage::NewRule(rule(family, table, priority));
        Request::create(format!("make the rule for table {table}"), message)
            .forgive(&[Errno::EEXIST])
    })
}

fn delete_rules(family: AddressFamily) -> [Request; RULES.len()] {
    RULES.map(|(table, priority)| {
        let message = RouteNetlinkMessage::DelRule(rule(family, table, priority));
        let forgiven: &[Errno] = &[Errno::ENOENT, Errno::EAFNOSUPPORT];
        Request::change(format!("delete the rule for table {table}"), message).forgive(forgiven)
    })
}

fn add_address(lo: u32, address: IpAddr) -> Request {
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

pub(super) fn rule(family: AddressFamily, table: u8, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.table = table;
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Priority(priority));
    if table == ALTERNATE_TABLE {
        // Only packets that this host sends "arrive" by lo; forwarded packets use no alternate routes, which could form loops.
        message
            .attributes
            .push(RuleAttribute::Iifname("lo".to_owned()));
    }
    message
}

/// Returns whether this is the route to the given range with the given metric.
fn matches_route(route: &RouteMessage, (range, metric): &(IpNet, u32)) -> bool {
    let has_metric =
        |part: &RouteAttribute| matches!(part, RouteAttribute::Priority(is) if is == metric);
    super::fallback_routes::destination(route) == Some(*range)
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
