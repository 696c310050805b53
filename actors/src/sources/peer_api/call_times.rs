//! Limits how often a call is answered.

use policies::{names::Prefix, units::Uptime};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The times of the last calls of one kind. Clones share them.
#[derive(Clone)]
pub(super) struct CallTimes {
    times: Arc<Mutex<BTreeMap<Prefix, Uptime>>>,
    /// Minimum interval between two calls of one node.
    interval: Duration,
    /// Maximum number of calls within that interval.
    max_calls: usize,
}

impl CallTimes {
    /// No calls yet.
    pub(super) fn new(interval: Duration, max_calls: usize) -> Self {
        Self {
            times: Arc::default(),
            interval,
            max_calls,
        }
    }

    /// Returns whether a call of this node is answered now; counts it if so.
    pub(super) fn allow(&self, caller: Prefix, now: Uptime) -> bool {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.retain(|_, at| now.since(*at) < self.interval);
        let is_allowed = !times.contains_key(&caller) && times.len() < self.max_calls;
        if is_allowed {
            times.insert(caller, now);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_answered_once_in_an_interval_and_all_together_to_a_limit() {
        let times = CallTimes::new(Duration::from_secs(10), 64);
        let calls = |second, nodes| {
            let callers = (0..nodes).map(|number| Prefix::new(number, 16).unwrap());
            let allowed = callers.filter(|caller| times.allow(*caller, Uptime::from_secs(second)));
            allowed.count()
        };
        assert_eq!([calls(0, 1), calls(9, 1), calls(10, 1)], [1, 0, 1]);
        assert_eq!(
            [calls(30, 1_000), calls(39, 1_000), calls(40, 1_000)],
            [64, 0, 64]
        );
    }
}
