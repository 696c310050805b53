//! Decides whether a node may end tunnels by plan now, or a neighbour of it does.
//!
//! Each node has one turn to give, to itself or to one neighbour. Who ends tunnels by plan holds its own
//! and those of all its neighbours: so the ways that traffic moves to are not ending as well.

use crate::{names::Prefix, orders::Order, units::Uptime};
use std::time::Duration;

/// A turn that is not given back ends by itself: longer than the longest drain, a start and new dials.
const LASTS: Duration = Duration::from_secs(60);
/// Nobody gets the turn for so long after a tunnel here has come or gone: routes still move.
const CALM: Duration = Duration::from_secs(2);

/// The turn that one node has to give.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    holder: Option<(Prefix, Uptime)>,
    calm_from: Uptime,
}

impl Turn {
    /// Gives it to `by`, who may hold it already; whether that was possible.
    pub fn take(&mut self, by: Prefix, now: Uptime) -> bool {
        let again = self.holder(now) == Some(by);
        if !again && (self.holder(now).is_some() || self.calm_from > now) {
            return false;
        }
        self.holder = Some((by, now + LASTS));
        true
    }

    /// Takes it back from `by`, who may not hold it any more.
    pub fn give_back(&mut self, by: Prefix) {
        self.holder = self.holder.filter(|(holder, _)| *holder != by);
    }

    /// A tunnel here is coming or going.
    pub fn disturb(&mut self, now: Uptime) {
        self.calm_from = now + CALM;
    }

    /// Who holds it.
    pub fn holder(&self, now: Uptime) -> Option<Prefix> {
        self.holder
            .filter(|(_, until)| *until > now)
            .map(|(holder, _)| holder)
    }
}

/// Whether an order of the planner has to wait while `holder` holds this node's lock: nothing else is drained
/// meanwhile. The planner repeats its order.
pub fn is_deferred(order: &Order, holder: Option<Prefix>) -> bool {
    match order {
        Order::Drain { .. } => holder.is_some(),
        Order::Open { .. } | Order::Undrain { .. } | Order::Close { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        names::Slot,
        orders::{AbandonReason, CloseReason},
    };

    #[test]
    fn only_drains_wait_while_a_lock_is_held() {
        let (slot, reason) = (Slot::Dialling(0), CloseReason::Unused);
        let holder = Prefix::new(7, 16);
        let drain = Order::Drain { slot, reason };
        let undrain = Order::Undrain {
            slot,
            reason: AbandonReason::Deadline,
        };
        assert!(is_deferred(&drain, holder));
        assert!(!is_deferred(&drain, None));
        assert!(!is_deferred(&undrain, holder));
        assert!(!is_deferred(&Order::Close { slot, reason }, holder));
    }

    /// Who asks at which second, and whether it gets the turn.
    #[track_caller]
    fn check(turn: &mut Turn, by: u32, second: u64, expected: bool) {
        let by = Prefix::new(by, 16).unwrap();
        assert_eq!(turn.take(by, Uptime::from_secs(second)), expected);
        if expected {
            assert_eq!(turn.holder(Uptime::from_secs(second)), Some(by));
        }
    }

    #[test]
    fn one_at_a_time_has_the_turn_until_it_gives_it_back_or_is_late() {
        let mut turn = Turn::default();
        check(&mut turn, 7, 100, true);
        check(&mut turn, 8, 101, false);
        check(&mut turn, 7, 101, true);
        turn.give_back(Prefix::new(8, 16).unwrap());
        check(&mut turn, 8, 102, false);
        turn.give_back(Prefix::new(7, 16).unwrap());
        check(&mut turn, 8, 103, true);
        check(&mut turn, 7, 162, false);
        check(&mut turn, 7, 163, true);
    }

    #[test]
    fn nobody_gets_the_turn_while_a_tunnel_comes_or_goes_but_who_has_it_keeps_it() {
        let mut turn = Turn::default();
        turn.disturb(Uptime::from_secs(100));
        check(&mut turn, 7, 101, false);
        check(&mut turn, 7, 102, true);
        turn.disturb(Uptime::from_secs(103));
        check(&mut turn, 7, 104, true);
    }
}
