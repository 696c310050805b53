//! What the actors and the peer API's thread share about paths between nodes behind NATs.

use os::clock::Clock;
use policies::{names::Prefix, units::Uptime};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use wire::peer::Observer;

/// The state of hole punching. Clones share it.
#[derive(Clone)]
pub struct SharedHolePunches {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

#[derive(Default)]
struct State {
    observers: Vec<Observer>,
    neighbours: BTreeSet<Prefix>,
    /// The node with which this one opens a path by its own request.
    trying: Option<Prefix>,
    /// The nodes to which a path was opened at their request: their address, and until when they are expected.
    expected: BTreeMap<Prefix, (IpAddr, Uptime)>,
}

impl SharedHolePunches {
    /// The state of a node that has no tunnels.
    pub fn new(clock: Clock) -> Self {
        Self {
            state: Arc::default(),
            clock,
        }
    }

    /// Records the nodes that can see this node's datagrams, and those to which a tunnel leads.
    pub(crate) fn set_neighbours(&self, observers: Vec<Observer>, neighbours: BTreeSet<Prefix>) {
        let mut state = self.lock();
        (state.observers, state.neighbours) = (observers, neighbours);
    }

    /// Returns the nodes that can see this node's datagrams.
    pub(crate) fn observers(&self) -> Vec<Observer> {
        self.lock().observers.clone()
    }

    /// Records with which node this one opens a path by its own request, if with any.
    pub(crate) fn set_trying(&self, peer: Option<Prefix>) {
        self.lock().trying = peer;
    }

    /// Returns why node `me` does not take part in the request of this caller, if it does not.
    pub(crate) fn reason_to_decline(&self, me: Prefix, caller: Prefix) -> Option<&'static str> {
        let state = self.lock();
        if state.neighbours.contains(&caller) {
            return Some("there is a tunnel between the two nodes already");
        }
        let is_first = state.trying == Some(caller) && me < caller;
        is_first.then_some("this node opens the same path by its own request")
    }

    /// Expects a client at this address until then.
    pub(crate) fn expect(&self, peer: Prefix, from: IpAddr, until: Uptime) {
        let mut state = self.lock();
        let now = self.clock.now();
        state.expected.retain(|_, (_, until)| *until > now);
        state.expected.insert(peer, (from, until));
    }

    /// Returns whether the node is still expected.
    pub(crate) fn is_expected(&self, peer: Prefix) -> bool {
        let now = self.clock.now();
        let state = self.lock();
        let expected = state.expected.get(&peer);
        expected.is_some_and(|(_, until)| *until > now)
    }

    /// Records that a client came from this address; returns whether it was expected there.
    pub(crate) fn take_expected(&self, peer: Prefix, from: IpAddr) -> bool {
        let mut state = self.lock();
        let expected = state.expected.get(&peer);
        let is_expected = expected.is_some_and(|(address, until)| {
            *address == from.to_canonical() && *until > self.clock.now()
        });
        if is_expected {
            state.expected.remove(&peer);
        }
        is_expected
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    #[test]
    fn a_node_takes_no_part_if_a_tunnel_exists_or_if_it_asked_first_by_its_prefix() {
        let punches = SharedHolePunches::new(Clock::boottime());
        punches.set_neighbours(Vec::new(), [node(3)].into());
        punches.set_trying(Some(node(5)));
        let refused = |me, caller| punches.reason_to_decline(node(me), node(caller)).is_some();
        assert_eq!(
            [refused(4, 3), refused(4, 5), refused(9, 5), refused(4, 6)],
            [true, true, false, false]
        );
    }

    #[test]
    fn a_client_is_expected_once_and_only_at_its_address() {
        let clock = Clock::boottime();
        let punches = SharedHolePunches::new(clock.clone());
        let address: IpAddr = "45.67.2.1".parse().unwrap();
        punches.expect(node(3), address, clock.now() + Duration::from_secs(60));
        let take = |from: &str| punches.take_expected(node(3), from.parse().unwrap());
        assert!(punches.is_expected(node(3)) && !punches.is_expected(node(4)));
        let taken = ["45.67.2.9", "::ffff:45.67.2.1", "45.67.2.1"].map(take);
        assert_eq!(taken, [false, true, false]);
        punches.expect(node(3), address, clock.now());
        assert!(!take("45.67.2.1"));
    }
}
