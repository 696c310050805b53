//! Carries out what [`policies::revocation`] decides.

use super::{Processes, Tunnels};
use crate::effects::link_orders::LinkOrder;
use ipnet::IpNet;
use policies::{
    names::{Prefix, Slot},
    revocation::{RevocationOrder, Revoked},
};
use std::collections::BTreeSet;

impl Tunnels {
    /// Closes the tunnels to these nodes, whose certificates are newly revoked, and blocks their ranges.
    pub(super) fn on_revoked(&mut self, nodes: &BTreeSet<Prefix>) {
        let orders = {
            let current = self.common.documents.load_full();
            let mut processes = self.connections.0.borrow_mut();
            let Processes {
                servers,
                revocation,
                ..
            } = &mut *processes;
            let servers = servers.values();
            let accepted: BTreeSet<Slot> = servers
                .flat_map(|server| server.revoked_slots(&current))
                .collect();
            let revoked = Revoked {
                nodes,
                accepted: &accepted,
            };
            let tunnels = &self.common.table.borrow().tunnels;
            revocation.on_revoked(revoked, self.common.settings.me, tunnels, self.common.now())
        };
        self.carry_out_revocation(orders);
    }

    /// Carries out the steps of earlier revocations that are due.
    pub(super) fn step_revocation(&mut self) {
        let orders = {
            let mut processes = self.connections.0.borrow_mut();
            let tunnels = &self.common.table.borrow().tunnels;
            processes.revocation.step(tunnels, self.common.now())
        };
        self.carry_out_revocation(orders);
    }

    fn carry_out_revocation(&mut self, orders: Vec<RevocationOrder>) {
        for order in orders {
            match order {
                RevocationOrder::Block(node) => self
                    .ranges(node)
                    .for_each(|range| self.common.links.order(LinkOrder::Block(range))),
                RevocationOrder::Unblock(node) => self
                    .ranges(node)
                    .for_each(|range| self.common.links.order(LinkOrder::Unblock(range))),
                RevocationOrder::Tunnel(decision) => {
                    self.report(decision.clone());
                    self.carry_out(decision.order);
                }
            }
        }
    }

    /// Returns the node's IPv4 range, if it has one, and its IPv6 range.
    fn ranges(&self, node: Prefix) -> impl Iterator<Item = IpNet> + use<> {
        let ipv4 = self
            .common
            .documents
            .load()
            .network()
            .and_then(|network| network.payload4()?.node_range(node));
        let ipv6 = self.common.settings.network.node_range(node);
        ipv4.map(IpNet::from).into_iter().chain([ipv6.into()])
    }
}
