//! Ends what waits for longer than its limit ([`policies::waits`]).

use super::Tunnels;
use crate::messages::WaitOverdue;
use policies::waits::{OverdueTunnel, Wait};

impl Tunnels {
    /// Closes tunnels whose phase has lasted for longer than its limit, and reports waits that have ended that way.
    pub(super) fn close_overdue(&mut self) {
        let now = self.common.now();
        if let Some(holder) = self.restart_lock.take_expired() {
            tracing::warn!(%holder, "restart lock expired: its holder has not released it; it is free again");
            self.report_overdue(Wait::LockHeld);
        }
        let overdue = {
            let mut processes = self.connections.0.borrow_mut();
            let tunnels = &self.common.table.borrow().tunnels;
            processes.overdue.take(tunnels, now)
        };
        for OverdueTunnel {
            wait,
            waited,
            close,
        } in overdue
        {
            let slot = close.slot();
            tracing::warn!(tunnel = %slot, phase = wait.label(), waited_s = waited.as_secs(), "tunnel has not left this phase in time; closing it");
            self.report_overdue(wait);
            if wait == Wait::Connecting {
                let processes = self.connections.0.borrow();
                if let Some(dial) = processes.dials.get(&slot) {
                    dial.record_failure(&self.common);
                }
            }
            self.carry_out(close);
        }
    }

    pub(super) fn report_overdue(&self, wait: Wait) {
        self.common.facts.overdue.do_send(WaitOverdue { wait });
    }
}
