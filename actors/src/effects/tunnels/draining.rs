//! Drains tunnels, and gives drains up.

use super::*;

impl Tunnels {
    /// Drains a tunnel that is up. If it drains already, only the reason changes, unless the present one is
    /// final.
    pub(super) fn drain(&self, slot: Slot, reason: CloseReason) {
        let Some((peer, phase)) = self.peer_and_phase(slot) else {
            return;
        };
        let drained = phase.drained_for(reason);
        if phase == Phase::Up && drained != phase {
            self.common.set_phase(slot, drained);
            self.common.links.order(LinkOrder::Silence(slot, peer));
        } else if drained != phase {
            self.common.set_drain_reason(slot, drained);
        }
    }

    /// Gives up the drain of a tunnel, unless the reason of the drain is final.
    pub(super) fn undrain(&self, slot: Slot) {
        if let Some((peer, phase)) = self.peer_and_phase(slot)
            && phase.undrained() != phase
        {
            self.common.set_phase(slot, phase.undrained());
            self.common.links.order(LinkOrder::Unsilence(slot));
            self.common
                .links
                .order(LinkOrder::RequestRoutes(slot, peer));
        }
    }

    pub(super) fn peer_and_phase(&self, slot: Slot) -> Option<(Prefix, Phase)> {
        let table = self.common.table.borrow();
        let tunnel = table.tunnels.get(&slot)?;
        Some((tunnel.peer, tunnel.phase))
    }
}
