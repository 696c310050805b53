//! Dials peers again at once when an uplink of the host has come back: that they could not be reached says nothing of them.

use super::Tunnels;
use crate::{messages::UplinkRestored, store::DialHistory};
use actix::{Context, Handler};
use policies::{
    names::Role,
    observation::{Phase, TunnelReading},
    orders::CloseReason,
};

impl Handler<UplinkRestored> for Tunnels {
    type Result = ();

    fn handle(&mut self, _: UplinkRestored, _: &mut Context<Self>) {
        let mut table = self.common.table.borrow_mut();
        for history in table.dials.values_mut() {
            let good = history.good;
            *history = DialHistory {
                good,
                ..DialHistory::default()
            };
        }
        // OpenVPN repeats its first packet more and more rarely, so a dial that has not got through yet starts from the beginning.
        let is_stuck = |tunnel: &&TunnelReading| {
            tunnel.role() == Role::Dialled && tunnel.phase == Phase::Connecting
        };
        let stuck = table.tunnels.values().filter(is_stuck);
        let slots: Vec<_> = stuck.map(|tunnel| tunnel.slot).collect();
        drop(table);
        slots
            .into_iter()
            .for_each(|slot| self.close(slot, CloseReason::DialFailed));
    }
}
