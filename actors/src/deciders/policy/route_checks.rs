//! Closes the tunnels of neighbours whose routes fail the checks of `policies::route_checks`.

use super::*;
use policies::{
    orders::{CloseReason, Decision, Order},
    route_checks::Suspicion,
};

impl Policy {
    /// Checks a reading of babeld's tables, orders the close of the tunnels by which false routes came, and reports each.
    pub(super) fn check_routes(&mut self, reading: &RoutesRead) {
        let Some(table) = &reading.table else {
            return;
        };
        let now = self.clock.now();
        let suspicions = {
            let tunnels = &self.tunnels.borrow().tunnels;
            let mut checks = self.route_checks.borrow_mut();
            checks.check(&reading.claims, table, tunnels, self.members.get(), now)
        };
        self.close_tunnels(&suspicions, now);
    }

    /// Checks the claims of a packet that has just arrived, so that the tunnel is closed before babeld has passed the routes on.
    pub(super) fn check_packet(&mut self, claimed: &OriginsClaimed) {
        let now = self.clock.now();
        let suspicion = {
            let tunnels = &self.tunnels.borrow().tunnels;
            let mut checks = self.route_checks.borrow_mut();
            checks.check_packet(&claimed.claims, claimed.foreign, tunnels, now)
        };
        self.close_tunnels(suspicion.as_slice(), now);
    }

    fn close_tunnels(&mut self, suspicions: &[Suspicion], now: Uptime) {
        for suspicion in suspicions {
            let (slot, peer, node) = (suspicion.slot, suspicion.peer, suspicion.node);
            let kind = suspicion.kind;
            tracing::warn!(tunnel = %slot, %peer, %node, kind = kind.label(), "false route: {}", suspicion.terms());
            if !suspicion.closes_in.is_zero() {
                continue;
            }
            let suspected = RoutesSuspected { slot, peer, kind };
            self.out.suspected.do_send(suspected);
            if self.settings.mode == Mode::Watch {
                continue;
            }
            let decision = Decision {
                order: Order::Close {
                    slot,
                    reason: CloseReason::FalseRoutes,
                },
                terms: suspicion.terms(),
            };
            self.out.orders.do_send(Ordered {
                order: decision.order.clone(),
                about: None,
            });
            let decided = Decided {
                at: now,
                decisions: vec![decision],
                verdicts: None,
            };
            self.out
                .decided
                .iter()
                .for_each(|to| to.do_send(decided.clone()));
        }
        if !suspicions.is_empty() {
            self.leave_out_liars();
        }
    }

    /// Removes the nodes that announced false routes from those that could be dialled.
    pub(super) fn leave_out_liars(&mut self) {
        let (checks, now) = (self.route_checks.borrow(), self.clock.now());
        self.observation
            .candidates
            .retain(|candidate| !checks.is_banned(candidate.peer, now));
    }
}
