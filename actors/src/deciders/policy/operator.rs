//! Passes what an operator orders to the planner, and keeps the pins.

use super::Policy;
use crate::operator::{MAX_PINS, OperatorOrdered};
use actix::Handler;
use policies::planner::Request;
use std::sync::Arc;

impl Handler<OperatorOrdered> for Policy {
    type Result = ();

    fn handle(&mut self, ordered: OperatorOrdered, _: &mut Self::Context) {
        tracing::info!(order = ordered.label(), peer = %ordered.node(), "an operator ordered this over the control socket");
        let now = self.clock.now();
        match ordered {
            OperatorOrdered::Dial(peer) => self.planner.request(Request::Dial(peer), now),
            OperatorOrdered::Close(slot, peer) => {
                self.planner.request(Request::Close(slot, peer), now);
            }
            OperatorOrdered::Pin(peer) => self.change_pins(|pins| {
                if pins.len() < MAX_PINS {
                    pins.insert(peer);
                }
            }),
            OperatorOrdered::Unpin(peer) => self.change_pins(|pins| {
                pins.remove(&peer);
            }),
        }
        self.plan();
    }
}

impl Policy {
    fn change_pins(
        &mut self,
        change: impl Fn(&mut std::collections::BTreeSet<policies::names::Prefix>),
    ) {
        let mut pins = self.pins.load().as_ref().clone();
        change(&mut pins);
        self.planner.set_pins(pins.clone());
        self.pins.store(Arc::new(pins));
    }
}
