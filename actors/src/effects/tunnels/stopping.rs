//! Stops all tunnels in order: first the drain, then the processes.

use super::*;

/// The end begins: no tunnel is opened or let in from now on, and Babel is taken off all that stand.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct DrainAll;

/// Ends all OpenVPN processes.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct EndAll;

impl Handler<DrainAll> for Tunnels {
    type Result = ();

    fn handle(&mut self, _: DrainAll, _: &mut Self::Context) {
        self.common.stopping.set(true);
        let slots: Vec<Slot> = self.common.table.borrow().tunnels.keys().copied().collect();
        for slot in slots {
            self.drain(slot, CloseReason::Shutdown);
        }
    }
}

impl Handler<EndAll> for Tunnels {
    type Result = ();

    fn handle(&mut self, _: EndAll, _: &mut Self::Context) {
        self.common.stopping.set(true);
        let mut processes = self.connections.0.borrow_mut();
        processes.stopped = true;
        processes
            .dials
            .values_mut()
            .for_each(|dial| dial.close(&self.common, CloseReason::Shutdown));
        processes
            .servers
            .values_mut()
            .for_each(|server| server.stop(&self.common));
    }
}
