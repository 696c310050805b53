//! What the node has put on its host, and what must therefore be there as long as the node runs.

use super::{
    exit_routing::{Exit, wanted_rules},
    ledger::Change,
    numbers::{BLOCK_METRIC, NETWORK_METRIC, NODE_METRIC, TABLE},
    packet_filter::PacketFilter,
    rules::table_rules,
};
use ipnet::IpNet;
use policies::names::{Prefix, Slot};
use rtnetlink::packet_route::{AddressFamily, route::RouteHeader, rule::RuleMessage};
use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};
use wire::overlay::{Network, Network4, first_address};

/// The requests of the node that are in force.
#[derive(Clone, Default)]
pub(super) struct Placed {
    /// The network and this node's prefix, once the node has joined the host.
    pub(super) ipv6: Option<(Network, Prefix)>,
    /// The IPv4 range for payload and this node's prefix; `None` if the network carries no IPv4.
    pub(super) ipv4: Option<(Network4, Prefix)>,
    /// The role in exit routing.
    pub(super) exit: Option<(Network, Exit)>,
    /// The ranges that are unreachable because their nodes are revoked.
    pub(super) blocked: BTreeSet<IpNet>,
    /// The ledger of changed settings; `None` before the node changes settings.
    pub(super) ledger: Option<PathBuf>,
    /// The changes that the ledger lists.
    pub(super) changes: Vec<Change>,
    /// The slots that were set up last, and not down.
    pub(super) up: BTreeSet<Slot>,
    /// The slots that must not have their multicast route.
    pub(super) silenced: BTreeSet<Slot>,
    /// The nftables table; `None` if the kernel has no nftables.
    pub(super) packet_filter: Option<PacketFilter>,
}

/// An `unreachable` route of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreachable {
    pub(super) range: IpNet,
    pub(super) table: u8,
    pub(super) metric: u32,
}

impl Placed {
    /// Returns the rules of one family.
    pub(super) fn rules(&self, family: AddressFamily) -> Vec<RuleMessage> {
        let is_ipv6 = family == AddressFamily::Inet6;
        let has_tables = match is_ipv6 {
            true => self.ipv6.is_some(),
            false => self.ipv4.is_some(),
        };
        let tables = has_tables.then(|| table_rules(family));
        let exit = self.exit.filter(|_| is_ipv6);
        let exit = exit.map(|(network, exit)| wanted_rules(network, exit));
        let tables = tables.into_iter().flatten();
        tables.chain(exit.into_iter().flatten()).collect()
    }

    /// Returns the `unreachable` routes of one family. The node's own comes first, since a later sweep derives the
    /// address from it.
    pub(super) fn routes(&self, family: AddressFamily) -> Vec<Unreachable> {
        let is_ipv6 = family == AddressFamily::Inet6;
        let (own, network): (Option<IpNet>, Option<IpNet>) = if is_ipv6 {
            let own = self.ipv6.map(|(network, me)| network.node_range(me).into());
            (own, self.ipv6.map(|(network, _)| network.range().into()))
        } else {
            let own = self.ipv4.and_then(|(network, me)| network.node_range(me));
            let network = self.ipv4.map(|(network, _)| network.range().into());
            (own.map(IpNet::from), network)
        };
        let main = |metric| {
            move |range| Unreachable {
                range,
                table: RouteHeader::RT_TABLE_MAIN,
                metric,
            }
        };
        let blocked = self.blocked.iter();
        let blocked = blocked
            .filter(|range| range.addr().is_ipv6() == is_ipv6)
            .map(|range| Unreachable {
                range: *range,
                table: TABLE,
                metric: BLOCK_METRIC,
            });
        let own = own.map(main(NODE_METRIC)).into_iter();
        own.chain(network.map(main(NETWORK_METRIC)))
            .chain(blocked)
            .collect()
    }

    /// Returns the node's address of one family on `lo`; `None` if it has none.
    pub(super) fn address(&self, family: AddressFamily) -> Option<IpAddr> {
        if family == AddressFamily::Inet6 {
            return self
                .ipv6
                .map(|(network, me)| network.node_address(me).into());
        }
        let range = self.ipv4.and_then(|(network, me)| network.node_range(me));
        range.map(|range| first_address(range).into())
    }
}
