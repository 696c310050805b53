//! What the snapshot records of tunnels that open, come up and close.

use super::{
    counts::{DrainOutcome, increment},
    snapshot::Snapshot,
    traffic::CameUp,
};
use crate::messages::{TunnelCameUp, TunnelClosed, TunnelOpened};
use policies::orders::CloseReason;
use std::sync::Arc;

impl Snapshot {
    /// Counts an opened tunnel, and adds it.
    pub fn on_tunnel_opened(&mut self, fact: &TunnelOpened) {
        increment(
            &mut Arc::make_mut(&mut self.counts).opened,
            fact.slot.role(),
        );
        self.rows.on_tunnel_opened(fact);
    }

    /// Counts a tunnel that came up, and how long that took; logs one that came up again.
    pub fn on_tunnel_up(&mut self, fact: &TunnelCameUp) {
        let (slot, role) = (fact.slot, fact.slot.role());
        let counts = Arc::make_mut(&mut self.counts);
        increment(&mut counts.came_up, role);
        match self.rows.on_tunnel_up(fact) {
            Some(CameUp::First { took }) => {
                if let Some(times) = counts.setup.get_mut(&role) {
                    times.observe(took);
                }
            }
            Some(CameUp::Again { times }) => {
                let terms = format!("times={times}");
                let peer = Some(fact.peer);
                self.log(fact.at, "reconnected", slot, peer, "restarted", terms);
            }
            None => {}
        }
    }

    /// Counts and logs a closed tunnel.
    pub fn on_tunnel_closed(&mut self, fact: &TunnelClosed) {
        let counts = Arc::make_mut(&mut self.counts);
        increment(&mut counts.closed, (fact.slot.role(), fact.reason));
        if Arc::make_mut(&mut self.draining).remove(&fact.slot) {
            increment(&mut counts.drains, DrainOutcome::Interrupted);
        }
        if matches!(
            fact.reason,
            CloseReason::PeerDead | CloseReason::ProcessDied
        ) {
            Arc::make_mut(&mut self.route_history).on_loss(fact.slot, fact.decided_at);
        }
        let carried = self.rows.on_tunnel_closed(fact).unwrap_or_default();
        let terms = format!(
            "lived={} s received={} B sent={} B",
            fact.lived.as_secs(),
            carried.rx_bytes,
            carried.tx_bytes
        );
        self.log(
            fact.at,
            "closed",
            fact.slot,
            Some(fact.peer),
            fact.reason.label(),
            terms,
        );
    }
}
