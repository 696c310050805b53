//! What follows from the state of the host: a node whose packets for others are dropped carries no transit traffic, and one whose
//! own networks overlap the network's IPv4 range has no IPv4 there.

use super::HostReconciler;
use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use ipnet::Ipv4Net;
use policies::observation::INFINITY;
use wire::{errors::Chain, peer::NodeDocument};

impl HostReconciler {
    /// Returns the network's IPv4 range.
    pub(super) fn ipv4_range(&self) -> Option<Ipv4Net> {
        let documents = self.deps.store.documents.load();
        let network = documents.network()?;
        network.payload4().map(|range| range.range())
    }

    /// Turns IPv4 off as soon as the range overlaps a network of the host or the endpoint of a tunnel; babeld follows when it
    /// restarts, which also turns IPv4 on again. Returns what overlaps the range.
    pub(super) fn note_overlap(
        &self,
        overlap: Option<String>,
        ctx: &mut Context<Self>,
    ) -> Option<String> {
        let range = self.ipv4_range()?;
        let overlap = overlap.or_else(|| self.endpoint_within(range));
        let store = &self.deps.store;
        let is_new = overlap.is_some() && !store.has_ipv4_overlap.replace(overlap.is_some());
        store.has_ipv4_overlap.set(overlap.is_some());
        if is_new {
            let (kernel, me) = (self.deps.kernel.clone(), self.deps.me);
            let removed = async move { kernel.apply_ipv4(None, me).await };
            ctx.spawn(removed.into_actor(self).map(|result, _, _| {
                if let Err(error) = result {
                    tracing::warn!(error = %Chain(&error), "cannot remove the node's IPv4 address and routes");
                }
            }));
        }
        overlap.map(|overlap| format!("{range} overlaps {overlap}"))
    }

    /// Returns the endpoint of a tunnel within the range: packets of the tunnel would otherwise enter the network themselves.
    fn endpoint_within(&self, range: Ipv4Net) -> Option<String> {
        let table = self.deps.store.tunnels.borrow();
        let endpoints = table.tunnels.values().filter_map(|tunnel| tunnel.endpoint);
        let mut addresses = endpoints.map(|endpoint| endpoint.address.ip().to_canonical());
        let within = addresses.find(|address| match address {
            std::net::IpAddr::V4(address) => range.contains(address),
            std::net::IpAddr::V6(_) => false,
        });
        within.map(|address| format!("{address}, the endpoint of a tunnel"))
    }

    /// Compares what was found of forwarding with what the node believes, and changes that after two contradictions in a row. Returns
    /// whether one contradiction awaits confirmation.
    pub(super) fn note_forwarding(&mut self, forwards: Option<bool>) -> bool {
        let store = &self.deps.store;
        let is_blocked = store.is_transit_blocked.get();
        match forwards {
            Some(forwards) if forwards == is_blocked => {
                self.contradictions = self.contradictions.saturating_add(1);
            }
            Some(_) => self.contradictions = 0,
            None => {}
        }
        if self.contradictions >= 2 {
            store.is_transit_blocked.set(!is_blocked);
            self.contradictions = 0;
        }
        self.publish_transit_cost();
        self.contradictions > 0
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
