//! Stops all tunnels when the daemon shuts down: first drains them, then stops the OpenVPN processes.

use super::*;

/// Begins the shutdown: accepts and opens no tunnel any more, and drains all.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct DrainAll;

/// Stops all OpenVPN processes.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct StopAll;

impl Handler<DrainAll> for Tunnels {
    type Result = ();

    fn handle(&mut self, _: DrainAll, _: &mut Self::Context) {
        self.common.is_shutting_down.set(true);
        let slots: Vec<Slot> = self.common.table.borrow().tunnels.keys().copied().collect();
        for slot in slots {
            self.drain(slot, CloseReason::Shutdown);
        }
    }
}

impl Handler<StopAll> for Tunnels {
    type Result = ();

    fn handle(&mut self, _: StopAll, _: &mut Self::Context) {
        self.common.is_shutting_down.set(true);
        let mut processes = self.connections.0.borrow_mut();
        processes.are_stopped = true;
        let closed: Vec<_> = processes
            .dials
            .iter_mut()
            .filter_map(|(slot, dial)| {
                let reason = dial.close(&self.common, CloseReason::Shutdown)?;
                Some((*slot, reason))
            })
            .collect();
        for (slot, reason) in closed {
            self.remove_dial(&mut processes, slot, reason);
        }
        processes
            .servers
            .values_mut()
            .for_each(|server| server.stop(&self.common));
    }
}
