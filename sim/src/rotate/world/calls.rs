//! The calls by which nodes acquire restart locks, one after the other, and release them, all at the same time.

use super::*;

/// A call takes so many round trips: one for TCP, one for TLS, and one for the request.
const ROUND_TRIPS_PER_CALL: u32 = 3;

impl World<'_> {
    /// The time of a call between the two nodes until the request arrives, and until the answer arrives.
    fn call(&self, node: u32, other: u32) -> (Duration, Duration) {
        let call = span(self.space.rtt(node, other)) * ROUND_TRIPS_PER_CALL;
        (call - call / (2 * ROUND_TRIPS_PER_CALL), call)
    }

    pub(super) fn acquire(&mut self, node: u32, neighbours: &BTreeSet<Prefix>) {
        self.counts.requests += 1;
        let mut nodes: Vec<_> = neighbours.iter().map(|node| node.number()).collect();
        nodes.push(node);
        nodes.sort_unstable();
        let first = nodes.first().map_or(node, |first| *first);
        self.with(node, |node, _| node.requested = nodes);
        let (arrival, _) = self.call(node, first);
        self.after(arrival, Event::Request(node, 0));
    }

    /// The request for the lock at that position arrives.
    pub(super) fn request(&mut self, node: u32, position: usize) {
        let requested = self.with(node, |node, _| node.requested.clone());
        let requested = requested.unwrap_or_default();
        let Some(other) = requested.get(position).copied() else {
            return;
        };
        let granted = self.with(other, |other, now| other.lock.acquire(prefix(node), now));
        let (arrival, end) = self.call(node, other);
        let answered = end - arrival;
        if granted != Some(true) {
            let earlier = requested.get(..position).unwrap_or_default();
            let released = self.release(node, earlier);
            self.after(answered + released, Event::Answer(node, false));
        } else if let Some(next) = requested.get(position + 1) {
            let (arrival, _) = self.call(node, *next);
            self.after(answered + arrival, Event::Request(node, position + 1));
        } else {
            self.after(answered, Event::Answer(node, true));
        }
    }

    /// Releases the locks of these nodes, all at the same time; returns the time that this takes.
    pub(super) fn release(&mut self, node: u32, nodes: &[u32]) -> Duration {
        let mut longest = Duration::ZERO;
        for other in nodes {
            let (arrival, end) = self.call(node, *other);
            self.after(arrival, Event::Release(node, *other));
            longest = longest.max(end);
        }
        longest
    }

    pub(super) fn answer(&mut self, node: u32, granted: bool) {
        self.counts.rejections += u64::from(!granted);
        let Some(node_state) = self.nodes.get_mut(index(node)) else {
            return;
        };
        let requested = std::mem::take(&mut node_state.requested).into_iter();
        let neighbours = requested.filter(|other| *other != node).map(prefix);
        let neighbours = neighbours.collect();
        let restart = &mut node_state.restart;
        restart.on_lock_answer(granted, neighbours, self.now, &mut self.rng);
    }
}
