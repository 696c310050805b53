//! What follows from the state of the host: a node whose packets for others are dropped carries no transit traffic, and one whose
//! own networks overlap the network's IPv4 range has no IPv4 there.

use super::HostReconciler;
use crate::{effects::link_orders::LinkOrder, messages::Ordered};
use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use ipnet::Ipv4Net;
use policies::{
    ipv4_overlap::Ipv4Overlap,
    names::Slot,
    observation::{INFINITY, Phase},
    orders::{CloseReason, Order},
    units::Uptime,
};
use wire::{errors::Chain, peer::NodeDocument};

impl HostReconciler {
    /// Returns the network's IPv4 range.
    pub(super) fn ipv4_range(&self) -> Option<Ipv4Net> {
        let documents = self.deps.store.documents.load();
        let network = documents.network()?;
        network.payload4().map(|range| range.range())
    }

    /// Turns IPv4 off as soon as the range overlaps a network of the host; babeld follows when it restarts, which also turns IPv4 on
    /// again. Nothing changes while the host's routes cannot be read. Returns what overlaps the range.
    pub(super) fn note_overlap(
        &mut self,
        found: Option<Option<String>>,
        ctx: &mut Context<Self>,
    ) -> Option<String> {
        let range = self.ipv4_range()?;
        let (overlapped, overlap) = &mut self.overlap;
        if overlapped.replace(range) != Some(range) {
            *overlap = Ipv4Overlap::default();
        }
        let is_read = found.is_some();
        if let Some(found) = found {
            overlap.read(found, self.clock.now());
        }
        let overlap = overlap.present().map(str::to_owned);
        if is_read {
            self.switch_ipv4(overlap.is_some(), ctx);
        }
        overlap.map(|overlap| format!("{range} overlaps {overlap}"))
    }

    fn switch_ipv4(&self, has_overlap: bool, ctx: &mut Context<Self>) {
        let store = &self.deps.store;
        let had_overlap = store.has_ipv4_overlap.replace(has_overlap);
        if has_overlap && !had_overlap {
            let (kernel, me) = (self.deps.kernel.clone(), self.deps.me);
            let removed = async move { kernel.apply_ipv4(None, me).await };
            ctx.spawn(removed.into_actor(self).map(|result, _, _| {
                if let Err(error) = result {
                    tracing::warn!(error = %Chain(&error), "cannot remove the node's IPv4 address and routes");
                }
            }));
        }
    }

    /// Compares what was found of forwarding with what the node believes, and changes that once it was contradicted for a while. Returns
    /// whether a contradiction awaits confirmation.
    pub(super) fn note_forwarding(&mut self, forwards: Option<bool>, at: Uptime) -> bool {
        let is_blocked = &self.deps.store.is_transit_blocked;
        if let Some(forwards) = forwards {
            is_blocked.set(self.forwarding.believed(is_blocked.get(), !forwards, at));
        }
        self.publish_transit_cost();
        self.forwarding.is_contradicted()
    }

    /// Closes tunnels whose links somebody deleted: OpenVPN does not notice that, and logs an error for each packet.
    pub(super) fn close_tunnels(&self, deleted: &[Slot]) {
        let table = self.deps.store.tunnels.borrow();
        for slot in deleted
            .iter()
            .filter(|slot| table.tunnels.contains_key(slot))
        {
            let (slot, reason) = (*slot, CloseReason::ProcessDied);
            let order = Order::Close { slot, reason };
            self.deps.ordered_to.do_send(Ordered { order, about: None });
        }
    }

    /// Requests all routes from the neighbours on links that were set up again: babeld has dropped theirs, and would get them with the next
    /// periodic update only.
    pub(super) fn request_routes(&self, restored: &[Slot]) {
        let table = self.deps.store.tunnels.borrow();
        let tunnels = restored.iter().filter_map(|slot| table.tunnels.get(slot));
        for tunnel in tunnels.filter(|tunnel| tunnel.phase == Phase::Up) {
            let request = LinkOrder::RequestRoutes(tunnel.slot, tunnel.peer);
            self.deps.links.order(request);
        }
    }

    /// Publishes to other nodes at which cost this one carries their traffic.
    fn publish_transit_cost(&self) {
        let store = &self.deps.store;
        let transit_cost = match store.is_transit_blocked.get() {
            true => INFINITY,
            false => self.deps.transit_cost,
        };
        if store.node_document.load().transit_cost != transit_cost {
            store.node_document.rcu(|node| NodeDocument {
                transit_cost,
                ..(**node).clone()
            });
        }
    }
}
