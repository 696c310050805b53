//! Decides whether a node may close tunnels by plan now, or its neighbours do.
//!
//! Each node has one restart lock. A node that restarts its processes holds its own lock alone, and shares those of all
//! its neighbours. So no two nodes with a tunnel between them restart at the same time, and nodes that only have neighbours
//! in common do, as long as the routes of these neighbours allow it: each keeps a route to every node by tunnels to others,
//! and only few of its tunnels drain at once.

use crate::{
    names::{Prefix, Slot},
    observation::{BabelTable, Phase, TunnelReading},
    orders::Order,
    routes::RouteIndex,
    units::Uptime,
    waits::Wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// A lock that is not released expires after this time.
pub const HOLD_TIME: Duration = Wait::LockHeld.limit();
/// Nobody acquires the lock for this long after a tunnel here has changed, since routes still move.
const SETTLING_TIME: Duration = Duration::from_secs(2);

/// The tunnels to a new holder drain for about this long.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// One of so many neighbours may drain its tunnels at the same time as another one.
const NEIGHBOURS_PER_DRAIN: usize = 4;

/// The restart lock of one node.
#[derive(Clone, Debug)]
pub struct RestartLock {
    /// The node whose lock this is.
    me: Prefix,
    /// The holders, and when the lock of each expires.
    holders: BTreeMap<Prefix, Uptime>,
    /// When each of the last holders acquired the lock.
    acquired: BTreeMap<Prefix, Uptime>,
    /// The moment from which on the routes count as settled.
    settled_from: Uptime,
    /// The peer of each tunnel that is up.
    peers: BTreeMap<Slot, Prefix>,
    /// babeld's table; `None` while it does not answer.
    table: Option<Arc<BabelTable>>,
}

impl RestartLock {
    /// The lock of node `me`, which nobody holds.
    pub fn new(me: Prefix) -> Self {
        Self {
            me,
            holders: BTreeMap::new(),
            acquired: BTreeMap::new(),
            settled_from: Uptime::default(),
            peers: BTreeMap::new(),
            table: None,
        }
    }

    /// Gives the lock to `node`, which may hold it already, and returns whether that was possible.
    pub fn acquire(&mut self, node: Prefix, now: Uptime) -> bool {
        self.holders
            .retain(|holder, expires_at| *holder == node || *expires_at > now);
        let is_holder = self.is_holder(node, now);
        self.acquired
            .retain(|_, acquired| now.since(*acquired) < DRAIN_TIME);
        let is_granted = is_holder || (self.settled_from <= now && self.can_be_shared_with(node));
        if is_granted {
            self.holders.insert(node, now + HOLD_TIME);
            self.acquired.entry(node).or_insert(now);
        }
        is_granted
    }

    /// Returns whether `node` can hold the lock beside its present holders.
    fn can_be_shared_with(&self, node: Prefix) -> bool {
        let mut others = self.holders.keys().filter(|holder| **holder != node);
        if others.next().is_none() {
            return true;
        }
        let can_drain_together = self.acquired.is_empty()
            || (self.acquired.len() + 1) * NEIGHBOURS_PER_DRAIN <= self.peers.len();
        node != self.me
            && !self.holders.contains_key(&self.me)
            && can_drain_together
            && !self.would_lose_nodes(node)
    }

    /// Returns whether some node could be out of reach of this one while its tunnels to the holders and to `node` are
    /// closed.
    fn would_lose_nodes(&self, node: Prefix) -> bool {
        let Some(table) = &self.table else {
            return true;
        };
        let restarts = |peer: &Prefix| *peer == node || self.holders.contains_key(peer);
        let stays = |slot: Slot| self.peers.get(&slot).is_some_and(|peer| !restarts(peer));
        let index = RouteIndex::new(&table.routes, self.me, stays);
        let mut closing = self.peers.iter().filter(|(_, peer)| restarts(peer));
        closing.any(|(slot, _)| index.service(*slot).only_route.is_some())
    }

    /// Releases the lock, if `node` still holds it. Its tunnels to this node do not drain any more: it has restarted, has
    /// given up, or did not get the lock of another neighbour.
    pub fn release(&mut self, node: Prefix) {
        self.holders.remove(&node);
        self.acquired.remove(&node);
    }

    /// Frees the expired lock of one holder, and returns the node that did not release it in time.
    pub fn take_expired(&mut self, now: Uptime) -> Option<Prefix> {
        let mut holders = self.holders.iter();
        let (holder, _) = holders.find(|(_, expires_at)| **expires_at <= now)?;
        let holder = *holder;
        self.holders.remove(&holder);
        Some(holder)
    }

    /// Takes notice of this node's tunnels. While one connects, drains or closes that does not lead to a holder, nobody
    /// else acquires the lock.
    pub fn note_tunnels(&mut self, tunnels: &BTreeMap<Slot, TunnelReading>, now: Uptime) {
        let is_up = |tunnel: &&TunnelReading| tunnel.phase == Phase::Up;
        let up = tunnels.values().filter(is_up);
        self.peers = up.map(|tunnel| (tunnel.slot, tunnel.peer)).collect();
        let mut changing = tunnels.values().filter(|tunnel| !is_up(tunnel));
        if changing.any(|tunnel| !self.holders.contains_key(&tunnel.peer)) {
            self.settled_from = now + SETTLING_TIME;
        }
    }

    /// Replaces babeld's table.
    pub fn note_table(&mut self, table: Option<Arc<BabelTable>>) {
        self.table = table;
    }

    /// Returns whether `node` holds the lock.
    pub fn is_holder(&self, node: Prefix, now: Uptime) -> bool {
        let expires_at = self.holders.get(&node);
        expires_at.is_some_and(|expires_at| *expires_at > now)
    }

    /// The nodes that hold the lock.
    pub fn holders(&self, now: Uptime) -> BTreeSet<Prefix> {
        let holders = self.holders.keys().copied();
        holders
            .filter(|holder| self.is_holder(*holder, now))
            .collect()
    }
}

/// Whether an order of the planner has to wait while these nodes hold the lock of node `me`: nothing else is drained meanwhile,
/// and a tunnel that ends for a restart is not replaced, since it comes back. The planner repeats its order.
pub fn is_deferred(order: &Order, me: Prefix, holders: &BTreeSet<Prefix>) -> bool {
    match order {
        Order::Drain { .. } => !holders.is_empty(),
        Order::Open { peer, .. } => holders.contains(peer) || holders.contains(&me),
        Order::Undrain { .. } | Order::Close { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observation::Route,
        orders::{AbandonReason, CloseReason, OpenReason},
    };

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn lock() -> RestartLock {
        RestartLock::new(node(1))
    }

    /// The node that requests the lock, at which second, and whether it gets it.
    #[track_caller]
    fn check(lock: &mut RestartLock, requester: u32, second: u64, expected: bool) {
        let now = Uptime::from_secs(second);
        assert_eq!(lock.acquire(node(requester), now), expected);
        assert_eq!(lock.is_holder(node(requester), now), expected);
    }

    fn tunnels(list: &[(u16, u32, Phase)]) -> BTreeMap<Slot, TunnelReading> {
        let tunnel = |(number, peer, phase): &(u16, u32, Phase)| {
            let slot = Slot::Dialling(*number);
            let tunnel = TunnelReading {
                slot,
                peer: node(*peer),
                phase: *phase,
                since: Uptime::default(),
                up_since: None,
                endpoint: None,
            };
            (slot, tunnel)
        };
        list.iter().map(tunnel).collect()
    }

    /// Routes to these nodes, each by a slot and with a metric; the first to a node is installed.
    fn table(list: &[(u32, u16, u16)]) -> Option<Arc<BabelTable>> {
        let mut seen = BTreeSet::new();
        let route = |(destination, slot, metric): &(u32, u16, u16)| Route {
            node: node(*destination),
            slot: Slot::Dialling(*slot),
            via: node(*destination),
            installed: seen.insert(*destination),
            metric: *metric,
            refmetric: 0,
        };
        Some(Arc::new(BabelTable {
            routes: list.iter().map(route).collect(),
            neighbours: Vec::new(),
        }))
    }

    #[test]
    fn a_neighbour_holds_the_lock_until_it_releases_it_or_the_lock_expires() {
        let mut lock = lock();
        check(&mut lock, 7, 100, true);
        check(&mut lock, 1, 101, false);
        check(&mut lock, 7, 101, true);
        lock.release(node(8));
        check(&mut lock, 1, 102, false);
        lock.release(node(7));
        check(&mut lock, 1, 103, true);
        check(&mut lock, 7, 162, false);
        check(&mut lock, 7, 163, true);
    }

    #[test]
    fn a_lock_that_is_not_released_is_reported_once_it_has_expired() {
        let mut lock = lock();
        check(&mut lock, 7, 100, true);
        assert_eq!(lock.take_expired(Uptime::from_secs(159)), None);
        assert_eq!(lock.take_expired(Uptime::from_secs(160)), Some(node(7)));
        assert_eq!(lock.take_expired(Uptime::from_secs(160)), None);
    }

    #[test]
    fn neighbours_share_the_lock_while_another_tunnel_leads_to_every_node() {
        let up = |peers: &[u32]| {
            let numbered = (0..).zip(peers);
            tunnels(
                &numbered
                    .map(|(slot, peer)| (slot, *peer, Phase::Up))
                    .collect::<Vec<_>>(),
            )
        };
        let three = up(&[7, 8, 9]);
        let by_9 = [(7, 0, 96), (8, 1, 96), (9, 2, 96), (7, 2, 192), (8, 2, 192)];
        let by_each_other = [(7, 0, 96), (8, 1, 96), (8, 0, 192), (7, 1, 192)];
        for (tunnels, table, expected) in [
            (&three, table(&by_9), true),
            // Node 8 is reached by its own tunnel alone.
            (&three, table(&by_9[..4]), false),
            // The only other way leads through node 7, which restarts, too.
            (&up(&[7, 8]), table(&by_each_other), false),
            (&three, None, false),
        ] {
            let mut lock = lock();
            lock.note_tunnels(tunnels, Uptime::from_secs(90));
            lock.note_table(table);
            check(&mut lock, 7, 100, true);
            check(&mut lock, 8, 104, false);
            check(&mut lock, 8, 105, expected);
            check(&mut lock, 1, 105, false);
            assert_eq!(
                lock.holders(Uptime::from_secs(105)).len(),
                if expected { 2 } else { 1 }
            );
        }
    }

    #[test]
    fn nobody_acquires_the_lock_while_a_tunnel_changes_but_its_holder_keeps_it() {
        let mut lock = lock();
        let changing = tunnels(&[(0, 7, Phase::Closing)]);
        lock.note_tunnels(&changing, Uptime::from_secs(100));
        check(&mut lock, 7, 101, false);
        check(&mut lock, 7, 102, true);
        lock.note_tunnels(
            &tunnels(&[(0, 9, Phase::Connecting)]),
            Uptime::from_secs(103),
        );
        check(&mut lock, 7, 104, true);
    }

    #[test]
    fn a_tunnel_that_a_holder_restarts_keeps_nobody_else_from_the_lock() {
        let mut lock = lock();
        check(&mut lock, 7, 100, true);
        lock.note_tunnels(&tunnels(&[(0, 7, Phase::Closing)]), Uptime::from_secs(103));
        lock.note_table(table(&[]));
        check(&mut lock, 8, 105, true);
    }

    #[test]
    fn a_quarter_of_the_neighbours_may_drain_at_the_same_time() {
        let peers = (0..8).map(|slot| (slot, 20 + u32::from(slot), Phase::Up));
        let mut lock = lock();
        let now = Uptime::from_secs(90);
        lock.note_tunnels(&tunnels(&peers.collect::<Vec<_>>()), now);
        lock.note_table(table(&[]));
        check(&mut lock, 20, 100, true);
        check(&mut lock, 21, 100, true);
        check(&mut lock, 22, 104, false);
        check(&mut lock, 22, 105, true);
        check(&mut lock, 23, 105, true);
        check(&mut lock, 24, 105, false);
        // A node that released the lock does not drain any more.
        lock.release(node(23));
        check(&mut lock, 24, 105, true);
    }

    #[test]
    fn drains_and_dials_of_holders_wait_while_a_lock_is_held() {
        let (slot, reason) = (Slot::Dialling(0), CloseReason::Unused);
        let open = |peer| Order::Open {
            slot,
            peer: node(peer),
            endpoints: Vec::new(),
            reason: OpenReason::Fill,
        };
        let drain = Order::Drain { slot, reason };
        let undrain = Order::Undrain {
            slot,
            reason: AbandonReason::Deadline,
        };
        let close = Order::Close { slot, reason };
        for (order, by_7, by_me) in [
            (drain, true, true),
            (open(7), true, true),
            (open(8), false, true),
            (undrain, false, false),
            (close, false, false),
        ] {
            let is_deferred = |holders: &[u32]| {
                let holders = holders.iter().copied().map(node).collect();
                is_deferred(&order, node(1), &holders)
            };
            assert!(!is_deferred(&[]), "{order:?}");
            let seen = (is_deferred(&[7]), is_deferred(&[1]));
            assert_eq!(seen, (by_7, by_me), "{order:?}");
        }
    }
}
