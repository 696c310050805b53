//! Carries out the orders of other actors, unless they are outdated or have to wait.

use super::Tunnels;
use crate::messages::Ordered;
use actix::Handler;
use policies::{orders::Order, restart_lock::is_deferred};

impl Tunnels {
    /// Returns whether the tunnel that an order is about still has the slot.
    fn is_about_this_tunnel(&self, ordered: &Ordered) -> bool {
        let Some(about) = ordered.about else {
            return true;
        };
        let table = self.common.table.borrow();
        let present = table.tunnels.get(&ordered.order.slot());
        let is_present = present.is_some_and(|tunnel| tunnel.identity() == about);
        if !is_present {
            tracing::debug!(order = ?ordered.order, "order dropped: its slot has another tunnel by now");
        }
        is_present
    }

    /// Carries out an order of the planner or the prober, unless the daemon shuts down or the order must wait
    /// for the restart lock; the planner repeats an order that was not carried out.
    fn carry_out_unless_deferred(&mut self, order: Order) {
        let is_close = matches!(order, Order::Close { .. });
        let lock_holders = self.restart_lock.holders();
        let is_deferred = is_deferred(&order, self.common.settings.me, &lock_holders);
        if is_deferred || (!is_close && self.is_paused() && !matches!(order, Order::Undrain { .. }))
        {
            return tracing::debug!(?order, ?lock_holders, "order not carried out now");
        }
        self.carry_out(order);
    }
}

impl Handler<Ordered> for Tunnels {
    type Result = ();

    fn handle(&mut self, ordered: Ordered, _: &mut Self::Context) {
        if self.is_about_this_tunnel(&ordered) {
            self.carry_out_unless_deferred(ordered.order);
        }
    }
}
