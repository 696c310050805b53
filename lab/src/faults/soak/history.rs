//! Checks the history of a soak: each lost ping must follow from a fault that touched its pair shortly before.
//!
//! Pure: faults, paths and losses are arguments, and all moments are times since the pinger's start.

use std::{collections::BTreeMap, time::Duration};

/// Promised time from the end of a fault until every pair that it touched is whole again.
pub(super) const WHOLE_AGAIN: Duration = Duration::from_secs(15);
/// Time before a fault in which a ping may have been sent that the fault still hits.
const PING_IN_FLIGHT: Duration = Duration::from_millis(250);
/// Time after a fault in which routes may still begin to lead through its node, since others do not know of it yet.
const UNNOTICED: Duration = Duration::from_secs(3);

/// Which pairs a fault may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// None: traffic must go on.
    Nothing,
    /// Pairs that the node is an end of.
    Ends,
    /// Pairs that the node is an end of, or whose packets it forwards.
    Paths,
}

/// One fault, and the pairs that it may hit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) node: usize,
    pub(super) reach: Reach,
    pub(super) start: Duration,
    pub(super) end: Duration,
}

/// The node before and the nodes on the way, by pair.
pub(super) type Paths = BTreeMap<(usize, usize), Vec<usize>>;

/// The paths of all pairs at several moments, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct PathHistory(Vec<(Duration, Paths)>);

impl PathHistory {
    /// Adds the paths at a later moment. A pair without a path keeps the last one that it had.
    pub(super) fn add(&mut self, at: Duration, mut paths: Paths) {
        if let Some((_, last)) = self.0.last() {
            for (pair, path) in last {
                paths.entry(*pair).or_insert_with(|| path.clone());
            }
        }
        self.0.push((at, paths));
    }

    /// Whether packets of a pair, or their replies, passed the node at some moment of this span.
    fn passed(&self, (from, to): (usize, usize), node: usize, span: (Duration, Duration)) -> bool {
        // The reading before the span shows the paths at its start.
        let first = self.0.partition_point(|(at, _)| *at < span.0);
        let readings = self.0.get(first.saturating_sub(1)..).unwrap_or_default();
        let readings = readings.iter().take_while(|(at, _)| *at <= span.1);
        readings
            .flat_map(|(_, paths)| [paths.get(&(from, to)), paths.get(&(to, from))])
            .flatten()
            .any(|path| path.contains(&node))
    }
}

impl Fault {
    /// Whether the fault may have cost a pair a ping that was sent at this moment.
    fn explains(&self, pair: (usize, usize), sent_at: Duration, paths: &PathHistory) -> bool {
        let span = (
            self.start.saturating_sub(PING_IN_FLIGHT),
            self.end + WHOLE_AGAIN,
        );
        if self.reach == Reach::Nothing || sent_at < span.0 || sent_at > span.1 {
            return false;
        }
        let is_end = pair.0 == self.node || pair.1 == self.node;
        let passed = || paths.passed(pair, self.node, (span.0, self.end + UNNOTICED));
        is_end || (self.reach == Reach::Paths && passed())
    }
}

/// The lost pings that follow from no fault: the pair, and when the ping was sent.
pub(super) fn unexplained(
    losses: &[(usize, usize, Vec<Duration>)],
    faults: &[Fault],
    paths: &PathHistory,
) -> Vec<(usize, usize, Duration)> {
    let is_unexplained = |from, to, at| {
        let mut faults = faults.iter();
        !faults.any(|fault| fault.explains((from, to), at, paths))
    };
    let pings = losses
        .iter()
        .flat_map(|(from, to, moments)| moments.iter().map(|at| (*from, *to, *at)));
    pings
        .filter(|(from, to, at)| is_unexplained(*from, *to, *at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Packets from 0 to 2 go by 1, and from the tenth second on by 3. Returns how many pings of the pair at this moment a fault of
    /// this node, from the fifth second to the sixth, leaves unexplained.
    #[track_caller]
    fn check(node: usize, reach: Reach, pair: (usize, usize), sent_at: u64, expected: usize) {
        let mut paths = PathHistory::default();
        let by = |transit: usize| Paths::from([((0, 2), vec![transit, 2])]);
        paths.add(s(0), by(1));
        paths.add(s(4), Paths::new());
        paths.add(s(10), by(3));
        let fault = Fault {
            node,
            reach,
            start: s(5),
            end: s(6),
        };
        let losses = [(pair.0, pair.1, vec![s(sent_at)])];
        let found = unexplained(&losses, &[fault], &paths);
        assert_eq!(found.len(), expected, "{fault:?}");
    }

    #[test]
    fn a_fault_explains_losses_of_pairs_whose_packets_passed_the_node() {
        check(1, Reach::Paths, (0, 2), 5, 0);
        check(1, Reach::Paths, (2, 0), 20, 0);
        check(3, Reach::Paths, (0, 2), 8, 1);
        check(1, Reach::Ends, (0, 2), 5, 1);
    }

    #[test]
    fn a_fault_explains_losses_of_its_own_node_until_the_promised_time() {
        check(2, Reach::Ends, (0, 2), 21, 0);
        check(2, Reach::Paths, (0, 2), 22, 1);
        check(2, Reach::Paths, (0, 2), 4, 1);
        check(2, Reach::Nothing, (0, 2), 5, 1);
    }
}
