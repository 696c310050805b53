//! Decides whether a node may close tunnels by plan now, or one of its neighbours does.
//!
//! Each node has one restart lock, for itself or for one neighbour. A node that restarts its processes holds its
//! own lock and those of all its neighbours, so the routes that traffic moves to are not closed at the same time.

use crate::{names::Prefix, orders::Order, units::Uptime, waits::Wait};
use std::time::Duration;

/// A lock that is not released expires after this time.
pub const HOLD_TIME: Duration = Wait::LockHeld.limit();
/// Nobody acquires the lock for this long after a tunnel here has changed, since routes still move.
const SETTLING_TIME: Duration = Duration::from_secs(2);

/// The restart lock of one node.
#[derive(Clone, Debug, Default)]
pub struct RestartLock {
    /// The holder, and when its lock expires.
    holder: Option<(Prefix, Uptime)>,
    /// The moment from which on the routes count as settled.
    settled_from: Uptime,
}

impl RestartLock {
    /// Gives the lock to `node`, which may hold it already, and returns whether that was possible.
    pub fn acquire(&mut self, node: Prefix, now: Uptime) -> bool {
        let holder = self.holder(now);
        let is_free = holder.is_none() && self.settled_from <= now;
        let is_granted = is_free || holder == Some(node);
        if is_granted {
            self.holder = Some((node, now + HOLD_TIME));
        }
        is_granted
    }

    /// Releases the lock, if `node` still holds it.
    pub fn release(&mut self, node: Prefix) {
        self.holder = self.holder.filter(|(holder, _)| *holder != node);
    }

    /// Frees an expired lock, and returns the node that did not release it in time.
    pub fn take_expired(&mut self, now: Uptime) -> Option<Prefix> {
        let (holder, expires_at) = self.holder?;
        if expires_at > now {
            return None;
        }
        self.holder = None;
        Some(holder)
    }

    /// Takes notice that a tunnel of this node is not simply up: it connects, drains or closes.
    pub fn note_tunnel_change(&mut self, now: Uptime) {
        self.settled_from = now + SETTLING_TIME;
    }

    /// The node that holds the lock.
    pub fn holder(&self, now: Uptime) -> Option<Prefix> {
        self.holder
            .filter(|(_, expires_at)| *expires_at > now)
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

    /// The node that requests the lock, at which second, and whether it gets it.
    #[track_caller]
    fn check(lock: &mut RestartLock, node: u32, second: u64, expected: bool) {
        let node = Prefix::new(node, 16).unwrap();
        assert_eq!(lock.acquire(node, Uptime::from_secs(second)), expected);
        if expected {
            assert_eq!(lock.holder(Uptime::from_secs(second)), Some(node));
        }
    }

    #[test]
    fn one_node_at_a_time_holds_the_lock_until_it_releases_it_or_the_lock_expires() {
        let mut lock = RestartLock::default();
        check(&mut lock, 7, 100, true);
        check(&mut lock, 8, 101, false);
        check(&mut lock, 7, 101, true);
        lock.release(Prefix::new(8, 16).unwrap());
        check(&mut lock, 8, 102, false);
        lock.release(Prefix::new(7, 16).unwrap());
        check(&mut lock, 8, 103, true);
        check(&mut lock, 7, 162, false);
        check(&mut lock, 7, 163, true);
    }

    #[test]
    fn a_lock_that_is_not_released_is_reported_once_it_has_expired() {
        let mut lock = RestartLock::default();
        check(&mut lock, 7, 100, true);
        assert_eq!(lock.take_expired(Uptime::from_secs(159)), None);
        assert_eq!(
            lock.take_expired(Uptime::from_secs(160)),
            Prefix::new(7, 16)
        );
        assert_eq!(lock.take_expired(Uptime::from_secs(160)), None);
    }

    #[test]
    fn nobody_acquires_the_lock_while_a_tunnel_changes_but_its_holder_keeps_it() {
        let mut lock = RestartLock::default();
        lock.note_tunnel_change(Uptime::from_secs(100));
        check(&mut lock, 7, 101, false);
        check(&mut lock, 7, 102, true);
        lock.note_tunnel_change(Uptime::from_secs(103));
        check(&mut lock, 7, 104, true);
    }

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
}
