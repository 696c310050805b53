//! Reads the Babel packets that arrive, and reports those whose routes do not fit their sender.
//!
//! Readings of babeld's tables come every two seconds, and by then babeld has passed a false route on.

use super::*;
use actix::StreamHandler;
use futures_util::stream::unfold;
use os::{
    babel_listener::{BabelListener, Packet},
    kernel::slot_of_link,
};
use policies::names::{Prefix, Slot};
use wire::babel_updates::{announcements, claims, foreign_range};

/// Pause after an error of the listening socket, so that a persistent error does not cause a busy loop.
const ERROR_PAUSE: Duration = Duration::from_secs(5);

/// Span after a packet with a false route in which the tables are read often, so that they show soon whether the route stays.
const SUSPICION_SPAN: Duration = Duration::from_secs(10);

/// Shortest time between two rounds of requests for suspicious routes.
const REQUEST_INTERVAL: Duration = Duration::from_millis(500);

/// Most requests in one round.
const MAX_REQUESTS: usize = 16;

impl Babeld {
    /// Requests the routes that have a false router id from the neighbours that announce them. babeld does not send a retraction
    /// to a neighbour through which its route leads now (split horizon), so an honest neighbour's entry may be long outdated.
    pub(super) fn verify_claims(&mut self, claims: &[OriginClaim]) {
        let now = self.clock.now();
        let is_too_early = |at| now.since(at) < REQUEST_INTERVAL;
        if self.verified_at.is_some_and(is_too_early) {
            return;
        }
        let is_false = |claim: &&OriginClaim| claim.originator != Some(claim.node);
        for claim in claims.iter().filter(is_false).take(MAX_REQUESTS) {
            self.verified_at = Some(now);
            let Some(peer) = self.peer_on(claim.slot) else {
                continue;
            };
            let BabelConfig { network, ipv4, .. } = self.settings.config;
            let range = network.node_range(claim.node).into();
            let range4 = ipv4.and_then(|ipv4| ipv4.node_range(claim.node));
            for range in [Some(range), range4.map(Into::into)].into_iter().flatten() {
                let request = LinkOrder::RequestRoute(claim.slot, peer, range);
                self.links.order(request);
            }
        }
    }

    /// Returns whether a packet with a false route came lately.
    pub(super) fn is_suspicious(&self, now: Uptime) -> bool {
        self.suspected_at
            .is_some_and(|at| now.since(at) < SUSPICION_SPAN)
    }

    /// Begins to read packets. Without them, only readings of the tables find false routes.
    pub(super) fn listen(&self, ctx: &mut Context<Self>) {
        match BabelListener::open() {
            Ok(listener) => drop(ctx.add_stream(unfold(listener, |listener| async move {
                loop {
                    match listener.receive().await {
                        Ok(packet) => return Some((packet, listener)),
                        Err(error) => {
                            tracing::debug!(%error, "cannot receive copies of Babel packets");
                            tokio::time::sleep(ERROR_PAUSE).await;
                        }
                    }
                }
            }))),
            Err(error) => {
                tracing::warn!(%error, "cannot receive copies of Babel packets; false routes are found by the next reading of babeld's tables");
            }
        }
    }

    /// Returns the peer of the tunnel on a slot.
    pub(super) fn peer_on(&self, slot: Slot) -> Option<Prefix> {
        self.table
            .borrow()
            .tunnels
            .get(&slot)
            .map(|tunnel| tunnel.peer)
    }
}

impl StreamHandler<Packet> for Babeld {
    fn handle(&mut self, packet: Packet, _: &mut Self::Context) {
        let BabelConfig { network, ipv4, .. } = self.settings.config;
        let Some(slot) = slot_of_link(packet.link) else {
            return;
        };
        let peer = self.peer_on(slot);
        let announced = announcements(&packet.bytes);
        let foreign = foreign_range(&announced, slot, network);
        let mut claims = claims(&announced, (slot, packet.from), network, ipv4);
        let fits = |claim: &babel::OriginClaim| {
            claim.via == peer && Some(claim.node) == peer && claim.originator == peer
        };
        claims.retain(|claim| !fits(claim));
        if (claims.is_empty() && foreign.is_none()) || peer.is_none() {
            return;
        }
        self.suspected_at = Some(self.clock.now());
        self.note_false_seqnos(slot, &claims);
        offer(&self.claims_to, OriginsClaimed { claims, foreign });
    }
}
