//! Cuts revoked nodes off: at once for their own traffic, after a drain for that of others.

use super::Tunnels;
use crate::effects::link_orders::LinkOrder;
use ipnet::IpNet;
use policies::{
    names::{Prefix, Slot},
    orders::CloseReason,
    world::{Phase, TunnelReading},
};
use std::{collections::BTreeSet, time::Duration};

/// A revoked peer's tunnel drains for so long, so that the traffic of others leaves it unharmed.
const CUT_AFTER: Duration = Duration::from_secs(10);

/// A revoked node is barred for so long: until its tunnels are cut everywhere and babeld has forgotten it.
const BARRED: Duration = Duration::from_secs(20);

impl Tunnels {
    /// Sends nothing more to revoked nodes, takes Babel off their tunnels, and ends these after
    /// [`CUT_AFTER`], come what may.
    ///
    /// A server shows its serial number to nobody, so a tunnel that we dialled ends with any revocation of
    /// that peer; if it has another certificate by now it is dialled again.
    pub(super) fn cut_off(&mut self, revoked: &BTreeSet<Prefix>) {
        let held = self.common.held.load_full();
        for peer in revoked
            .iter()
            .filter(|peer| **peer != self.common.settings.me)
        {
            self.ranges(*peer)
                .for_each(|range| self.common.links.order(LinkOrder::Block(range)));
            let until = self.common.now() + BARRED;
            self.connections.0.borrow_mut().barred.insert(*peer, until);
        }
        let slots: Vec<Slot> = {
            let processes = self.connections.0.borrow();
            let accepted = processes
                .servers
                .values()
                .flat_map(|server| server.barred(&held));
            let dialled = processes
                .dials
                .iter()
                .filter(|(_, dial)| revoked.contains(&dial.peer()));
            accepted.chain(dialled.map(|(slot, _)| *slot)).collect()
        };
        for slot in slots {
            let tunnel = self.common.table.borrow().tunnels.get(&slot).cloned();
            let Some(TunnelReading { peer, phase, .. }) = tunnel else {
                continue;
            };
            if phase == Phase::Connecting {
                self.close(slot, CloseReason::Revoked);
                continue;
            }
            tracing::info!(%slot, %peer, "peer revoked: its tunnel drains and is cut off");
            self.drain(slot, CloseReason::Revoked);
            let at = self.common.now() + CUT_AFTER;
            self.connections
                .0
                .borrow_mut()
                .cut
                .entry(slot)
                .or_insert((peer, at));
        }
    }

    pub(super) fn cut_due(&mut self) {
        let now = self.common.now();
        let due: Vec<Slot> = {
            let mut processes = self.connections.0.borrow_mut();
            let table = self.common.table.borrow();
            let stands = |slot: &Slot, peer: &Prefix| {
                table.tunnels.get(slot).is_some_and(|is| is.peer == *peer)
            };
            processes.cut.retain(|slot, (peer, _)| stands(slot, peer));
            processes.barred.retain(|peer, until| {
                if *until <= now {
                    self.ranges(*peer)
                        .for_each(|range| self.common.links.order(LinkOrder::Unblock(range)));
                }
                *until > now
            });
            processes
                .cut
                .iter()
                .filter(|(_, (_, at))| *at <= now)
                .map(|(slot, _)| *slot)
                .collect()
        };
        due.into_iter()
            .for_each(|slot| self.close(slot, CloseReason::Revoked));
    }

    /// What a node has of the network.
    fn ranges(&self, node: Prefix) -> impl Iterator<Item = IpNet> + use<> {
        let ipv4 = self
            .common
            .held
            .load()
            .network()
            .and_then(|network| network.payload4()?.node_range(node));
        let ipv6 = self.common.settings.network.node_range(node);
        ipv4.map(IpNet::from).into_iter().chain([ipv6.into()])
    }
}
