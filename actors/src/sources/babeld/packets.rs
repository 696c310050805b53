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

/// Pause after an error of the listening socket, so that a persistent error does not cause a busy loop.
const ERROR_PAUSE: Duration = Duration::from_secs(5);

impl Babeld {
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
    fn peer_on(&self, slot: Slot) -> Option<Prefix> {
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
        let mut claims = babel::claims_of_packet(&packet.bytes, (slot, packet.from), network, ipv4);
        let fits = |claim: &babel::OriginClaim| {
            claim.via == peer && Some(claim.node) == peer && claim.originator == peer
        };
        claims.retain(|claim| !fits(claim));
        if !claims.is_empty() && peer.is_some() {
            offer(&self.claims_to, OriginsClaimed { claims });
        }
    }
}
