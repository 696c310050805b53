//! Leaves UDP for TCP where the path of a tunnel carries neither large packets nor their fragments.

use super::*;
use policies::{names::Transport, path_mtu::FullSize};

impl Prober {
    /// Orders the close of each dialled UDP tunnel that carries small packets only, if its peer can also be dialled by TCP, whose
    /// segments are small enough to pass. The next dial begins with TCP. A tunnel that stays narrow nevertheless is not closed
    /// again within [`NARROW_SPAN`](crate::store::NARROW_SPAN).
    pub(super) fn leave_narrow_paths(&mut self, now: Uptime) {
        for (slot, tunnel) in &mut self.tunnels {
            let is_dialled_by_udp = slot.role() == Role::Dialled
                && tunnel
                    .endpoint
                    .is_some_and(|endpoint| endpoint.transport == Transport::Udp);
            let is_leaving = tunnel.close_ordered_at.is_some() || tunnel.is_draining(now);
            if tunnel.path_mtu.full_size() != FullSize::Lost || !is_dialled_by_udp || is_leaving {
                continue;
            }
            let candidates = self.candidates.load();
            let mut known = candidates.iter();
            let offers_tcp = known.any(|candidate| {
                let mut endpoints = candidate.endpoints.iter();
                candidate.peer == tunnel.peer
                    && endpoints.any(|endpoint| endpoint.transport == Transport::Tcp)
            });
            let mut table = self.table.borrow_mut();
            if !offers_tcp || table.prefers_tcp(tunnel.peer, now) {
                continue;
            }
            table.narrow_since.insert(tunnel.peer, now);
            tunnel.close_ordered_at = Some(now);
            let order = Order::Close {
                slot: *slot,
                reason: CloseReason::SmallPacketsOnly,
            };
            self.orders.do_send(Ordered {
                order,
                about: Some(tunnel.identity()),
            });
        }
    }
}
