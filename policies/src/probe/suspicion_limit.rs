//! Limits how often suspicions of peers are spread.

use crate::{names::Prefix, units::Uptime};
use std::{collections::BTreeMap, time::Duration};

/// Least time between two suspicions of the same peer.
pub const SUSPICION_PACE: Duration = Duration::from_secs(5);

/// Most peers that are suspected at once; more would mean that the fault is this node's own.
const MAX_SUSPECTS: usize = 256;

/// Allows one suspicion per peer and [`SUSPICION_PACE`].
#[derive(Clone, Debug, Default)]
pub struct SuspicionLimit(BTreeMap<Prefix, Uptime>);

impl SuspicionLimit {
    /// Returns whether a suspicion of this peer may be sent, or acted on, now; counts it if so.
    pub fn allow(&mut self, peer: Prefix, now: Uptime) -> bool {
        self.0.retain(|_, at| now.since(*at) < SUSPICION_PACE);
        let is_allowed = !self.0.contains_key(&peer) && self.0.len() < MAX_SUSPECTS;
        if is_allowed {
            self.0.insert(peer, now);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_suspected_once_in_five_seconds() {
        let mut limit = SuspicionLimit::default();
        let peers = [Prefix::new(1, 16).unwrap(), Prefix::new(2, 16).unwrap()];
        let allowed = [(0, 0), (1, 0), (1, 1), (4, 0), (5, 0), (6, 1), (6, 0)]
            .map(|(second, peer)| limit.allow(peers[peer], Uptime::from_secs(second)));
        assert_eq!(allowed, [true, false, true, false, true, true, false]);
    }

    #[test]
    fn a_limited_number_of_peers_is_suspected_at_once() {
        let mut limit = SuspicionLimit::default();
        let mut allowed = |second| {
            let peers = (0..1_000).map(|number| Prefix::new(number, 16).unwrap());
            let allowed = peers.filter(|peer| limit.allow(*peer, Uptime::from_secs(second)));
            allowed.count()
        };
        assert_eq!([0, 4, 5].map(&mut allowed), [MAX_SUSPECTS, 0, MAX_SUSPECTS]);
    }
}
