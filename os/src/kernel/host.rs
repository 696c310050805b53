//! The node's address and routes on the host, and babeld's leavings.

use super::{
    Kernel, KernelError, exit_routing,
    numbers::{
        BABEL_PROTOCOL, DEFAULT_COPY, DEFAULT_TABLE, FALLBACK_PRIORITY, FALLBACK_TABLE, FAMILIES,
        PROTOCOL, RULE_PRIORITY, TABLE,
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

/// Our rules: which table is looked into, and with which priority.
const RULES: [(u8, u32); 2] = [(TABLE, RULE_PRIORITY), (FALLBACK_TABLE, FALLBACK_PRIORITY)];
/// Metric of the `unreachable` route of the node's range: any real route of it wins.
pub const NODE_METRIC: u32 = 4_294_967;
/// Metric of the `unreachable` route of the network's range.
pub const NETWORK_METRIC: u32 = 4_294_968;

/// Metric of the `unreachable` route of a blocked node; it takes precedence over any route of
/// babeld's (1024).
const BAR_METRIC: u32 = 1;

impl Kernel {
    /// Gives the host the node's address (on `lo`), the `unreachable` routes of the node's and the
    /// network's range, and the rule that looks into babeld's table. Does nothing twice.
    ///
    /// # Errors
    ///
    /// Link `lo` is down, or the kernel refuses.
    pub async fn join_host(&self, network: Network, me: Prefix) -> Result<(), KernelError> {
        let lo = loopback()?;
        if !self.is_up(lo).await? {
            return Err(KernelError::LoopbackDown);
        }
        let range = network.node_range(me);
        // The node's route first: by it a later sweep knows the address.
        self.ask_all([
            make_unreachable(range.into(), NODE_METRIC),
            make_unreachable(network.range().into(), NETWORK_METRIC),
            give_address(lo, network.node_address(me).into()),
        ])
        .await?;
        self.ask_all(make_rules(AddressFamily::Inet6)).await
    }

    /// Makes the host's part in the network's IPv4 what it shall be: the node's address (on `lo`), the
    /// `unreachable` routes, the rules, and forwarding of what comes in by slots, of nothing else. With
    /// `None` all of it goes. Does nothing twice.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn carry_ipv4(
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
                && !wanted.iter().any(|wanted| is_that(&route, wanted))
            {
                requests.extend(node_address(&route).map(|address| take_address(lo, address)));
                requests.push(delete(route));
            }
        }
        requests.extend(
            wanted
                .into_iter()
                .map(|(range, metric)| make_unreachable(range, metric)),
        );
        requests.extend(own.map(|own| give_address(lo, first_address(own).into())));
        let rules = if network.is_some() {
            make_rules
        } else {
            delete_rules
        };
        requests.extend(rules(AddressFamily::Inet));
        self.ask_all(requests).await?;
        self.slots()
            .iter()
            .try_for_each(|slot| sysctl::forward_ipv4(&slot.to_string(), network.is_some()))
    }

    /// Makes a node's range unreachable, whatever routes babeld knows. Has no effect the second
    /// time.
    ///
    /// # Errors
    ///
    /// The kernel rejects it.
    pub async fn bar(&self, range: IpNet) -> Result<(), KernelError> {
        let message = RouteNetlinkMessage::NewRoute(unreachable(range, TABLE, BAR_METRIC));
        self.ask(Request::create(format!("bar {range}"), message).forgive(&[Errno::EEXIST]))
            .await
    }

    /// Takes [`Self::bar`] back.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn unbar(&self, range: IpNet) -> Result<(), KernelError> {
        let message = RouteNetlinkMessage::DelRoute(unreachable(range, TABLE, BAR_METRIC));
        self.ask(Request::change(format!("bar {range} no more"), message).forgive(&[Errno::ESRCH]))
            .await
    }

    /// Takes away what [`Self::join_host`] gave, whichever node's it was; how many things.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(super) async fn leave_host(&self) -> Result<usize, KernelError> {
        let lo = loopback()?;
        let mut requests = Vec::new();
        for family in FAMILIES {
            for route in self.routes(family, RouteHeader::RT_TABLE_MAIN).await? {
                if route.header.protocol == PROTOCOL {
                    requests.extend(node_address(&route).map(|address| take_address(lo, address)));
                    requests.push(delete(route));
                }
            }
            requests.extend(
                self.routes(family, FALLBACK_TABLE)
                    .await?
                    .into_iter()
                    .map(delete),
            );
        }
        let copies = self.routes(AddressFamily::Inet6, DEFAULT_COPY).await?;
        requests.extend(copies.into_iter().map(delete));
        let found = requests.len();
        requests.extend(
            FAMILIES
                .into_iter()
                .flat_map(delete_rules)
                .chain(exit_routing::delete_all()),
        );
        self.ask_all(requests).await?;
        Ok(found)
    }

    /// Deletes what a dead babeld left: all of its tables, and its routes in main that leave by our
    /// slots; how many.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn flush_babel_routes(&self) -> Result<usize, KernelError> {
        let ours: Vec<u32> = self.state().slots.values().copied().collect();
        let (mut doomed, mut strays) = (Vec::new(), Vec::new());
        for family in FAMILIES {
            doomed.extend(self.routes(family, TABLE).await?);
            strays.extend(self.routes(family, RouteHeader::RT_TABLE_MAIN).await?);
        }
        doomed.extend(self.routes(AddressFamily::Inet6, DEFAULT_TABLE).await?);
        let by_us = |route: &RouteMessage| {
            let by = |part: &RouteAttribute| matches!(part, RouteAttribute::Oif(index) if ours.contains(index));
            route.header.protocol == BABEL_PROTOCOL && route.attributes.iter().any(by)
        };
        doomed.extend(strays.into_iter().filter(by_us));
        let found = doomed.len();
        self.ask_all(doomed.into_iter().map(delete)).await?;
        Ok(found)
    }

    /// All routes of one table.
    pub(super) async fn routes(
        &self,
        family: AddressFamily,
        table: u8,
    ) -> Result<Vec<RouteMessage>, KernelError> {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        // The kernel filters by it where it can (Linux 4.20), and else ignores it.
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
        let mut up = false;
        self.links(|link| {
            up |= link.header.index == index && link.header.flags.contains(LinkFlags::Up);
        })
        .await?;
        Ok(up)
    }

    /// Calls `each` with every link.
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

fn give_address(lo: u32, address: IpAddr) -> Request {
    let mut message = address_message(lo, address, if address.is_ipv4() { 32 } else { 128 });
    message.header.flags = AddressHeaderFlags::Nodad;
    Request::replace(
        "give lo the node's address",
        RouteNetlinkMessage::NewAddress(message),
    )
}

fn take_address(lo: u32, address: IpAddr) -> Request {
    let message = address_message(lo, address, if address.is_ipv4() { 32 } else { 128 });
    let message = RouteNetlinkMessage::DelAddress(message);
    Request::change("take the node's address from lo", message).forgive(&[Errno::EADDRNOTAVAIL])
}

fn rule(family: AddressFamily, table: u8, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.table = table;
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Priority(priority));
    message
}

/// Whether this is the route of that range with that metric.
fn is_that(route: &RouteMessage, (range, metric): &(IpNet, u32)) -> bool {
    let has = |part: &RouteAttribute| matches!(part, RouteAttribute::Priority(is) if is == metric);
    super::fallback_routes::destination(route) == Some(*range) && route.attributes.iter().any(has)
}

/// The node's address, where this is the route of a node's range.
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

/// Builds a request that deletes exactly this route, by the attributes that distinguish it.
fn delete(mut route: RouteMessage) -> Request {
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
    // Flags of the answer, such as a missing carrier, are not the route's.
    route.header.flags = rtnetlink::packet_route::route::RouteFlags::empty();
    // Unreachable routes are shown on lo, which is not how they were made.
    if route.header.kind != RouteType::Unicast {
        route
            .attributes
            .retain(|part| !matches!(part, RouteAttribute::Oif(_)));
    }
    Request::change("delete a route", RouteNetlinkMessage::DelRoute(route)).forgive(&[Errno::ESRCH])
}
