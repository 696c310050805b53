//! Knows which nodes can be dialled, and spreads newcomers over them.

use crate::{clock::UnixSeconds, store::StoredAnnouncement};
use policies::names::Prefix;
use std::collections::{BTreeMap, BTreeSet};
use wire::registry::Node;

/// Number of other nodes that must report a node as unreachable before it is handed out last: a
/// single reporter may lie, or sit behind a broken firewall.
const MIN_REPORTERS: usize = 2;

/// Most reporters that are remembered of one node.
const MAX_REPORTERS: usize = 8;

/// A report expires after this.
const REPORT_LIFETIME_S: i64 = 600;

#[derive(Debug, Default)]
struct Line {
    report: StoredAnnouncement,
    /// The number of times the node was handed to others.
    told: u64,
    /// The nodes that could not dial it, and when they reported that.
    reporters: Vec<(Prefix, UnixSeconds)>,
}

impl Line {
    fn is_unreachable(&self, now: UnixSeconds) -> bool {
        let fresh = |(_, at): &&(Prefix, UnixSeconds)| {
            (0..REPORT_LIFETIME_S).contains(&now.seconds_since(*at))
        };
        self.reporters.iter().filter(fresh).count() >= MIN_REPORTERS
    }
}

/// All that was announced and counts still.
#[derive(Debug, Default)]
pub(super) struct EndpointDirectory {
    lines: BTreeMap<Prefix, Line>,
}

impl EndpointDirectory {
    pub(super) fn new(all: Vec<(Prefix, StoredAnnouncement)>) -> Self {
        let lines = all.into_iter().map(|(prefix, report)| {
            (
                prefix,
                Line {
                    report,
                    ..Line::default()
                },
            )
        });
        Self {
            lines: lines.collect(),
        }
    }

    /// Takes an announcement. A new node starts with the count of the others, so that it is not
    /// handed to everybody at once; a node with new endpoints loses the reports against it.
    pub(super) fn announce(&mut self, prefix: Prefix, report: StoredAnnouncement) {
        let least = self
            .lines
            .values()
            .filter(|line| !line.report.endpoints.is_empty());
        let least = least.map(|line| line.told).min().unwrap_or(0);
        let line = self.lines.entry(prefix).or_insert(Line {
            told: least,
            ..Line::default()
        });
        if line.report.endpoints != report.endpoints {
            line.reporters.clear();
            line.told = line.told.max(least);
        }
        line.report = report;
    }

    /// Notes that `reporter` could not dial these nodes.
    pub(super) fn unreachable(&mut self, reporter: Prefix, nodes: &[Prefix], now: UnixSeconds) {
        for node in nodes.iter().filter(|node| **node != reporter) {
            if let Some(line) = self.lines.get_mut(node) {
                line.reporters.retain(|(other, _)| *other != reporter);
                if line.reporters.len() >= MAX_REPORTERS {
                    line.reporters.remove(0);
                }
                line.reporters.push((reporter, now));
            }
        }
    }

    pub(super) fn remove(&mut self, prefix: Prefix) {
        self.lines.remove(&prefix);
    }

    /// Returns up to `count` nodes that can be dialled, without `asker`: those that were handed
    /// out least, at random among equals; those reported as unreachable come last.
    pub(super) fn select(&mut self, asker: Prefix, count: usize, now: UnixSeconds) -> Vec<Node> {
        self.lines.retain(|_, line| line.report.valid_until > now);
        let good = self
            .lines
            .iter()
            .filter(|(prefix, line)| **prefix != asker && !line.report.endpoints.is_empty());
        let mut ranked: Vec<_> = good
            .map(|(prefix, line)| {
                (
                    (line.is_unreachable(now), line.told, fastrand::u64(..)),
                    *prefix,
                )
            })
            .collect();
        if let Some(last) = count.checked_sub(1).filter(|last| *last < ranked.len()) {
            ranked.select_nth_unstable(last);
        }
        ranked.truncate(count);
        fastrand::shuffle(&mut ranked);
        let told = ranked.into_iter().filter_map(|(_, prefix)| {
            let line = self.lines.get_mut(&prefix)?;
            line.told += 1;
            Some(Node {
                prefix,
                endpoints: line.report.endpoints.clone(),
            })
        });
        told.collect()
    }

    /// Returns the last announcement of a node.
    pub(super) fn report(&self, prefix: Prefix, now: UnixSeconds) -> Option<&StoredAnnouncement> {
        self.lines
            .get(&prefix)
            .map(|line| &line.report)
            .filter(|report| report.valid_until > now)
    }

    /// Nodes that others cannot dial.
    pub(super) fn unreachable_nodes(&self, now: UnixSeconds) -> BTreeSet<Prefix> {
        self.lines
            .iter()
            .filter(|(_, line)| line.is_unreachable(now))
            .map(|(prefix, _)| *prefix)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(0);

    fn prefix(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn report(valid_until: UnixSeconds) -> StoredAnnouncement {
        StoredAnnouncement {
            endpoints: vec!["udp:45.67.0.1:1194".parse().unwrap()],
            valid_until,
            ..StoredAnnouncement::default()
        }
    }

    /// Lets `askers` ask for `count` of `nodes` each; returns the least and the most that any node
    /// was handed out.
    #[track_caller]
    fn check(nodes: u32, askers: u32, count: usize, expected: (usize, usize)) {
        let mut directory = EndpointDirectory::new(
            (1..=nodes)
                .map(|number| (prefix(number), report(UnixSeconds(10))))
                .collect(),
        );
        let mut told: BTreeMap<Prefix, usize> =
            (1..=nodes).map(|number| (prefix(number), 0)).collect();
        for asker in 0..askers {
            let some = directory.select(prefix(1_000 + asker), count, NOW);
            let distinct: BTreeSet<_> = some.iter().map(|node| node.prefix).collect();
            assert_eq!(distinct.len(), some.len(), "told twice in one answer");
            some.iter()
                .for_each(|node| *told.get_mut(&node.prefix).unwrap() += 1);
        }
        assert_eq!(
            (*told.values().min().unwrap(), *told.values().max().unwrap()),
            expected
        );
    }

    #[test]
    fn a_hundred_newcomers_are_spread_evenly() {
        check(50, 100, 10, (20, 20));
        check(7, 100, 3, (42, 43));
        check(3, 100, 10, (100, 100));
    }

    #[test]
    fn who_announces_later_is_not_told_to_everybody() {
        let mut directory = EndpointDirectory::new(
            (1..=10)
                .map(|number| (prefix(number), report(UnixSeconds(10))))
                .collect(),
        );
        (0..100).for_each(|asker| drop(directory.select(prefix(1_000 + asker), 5, NOW)));
        directory.announce(prefix(11), report(UnixSeconds(10)));
        let hits = (0..11).filter(|asker| {
            directory
                .select(prefix(2_000 + asker), 1, NOW)
                .iter()
                .any(|node| node.prefix == prefix(11))
        });
        assert!(hits.count() <= 2);
    }

    #[test]
    fn who_cannot_be_dialled_comes_last_and_one_witness_does_not_count() {
        let mut directory = EndpointDirectory::new(
            (1..=3)
                .map(|number| (prefix(number), report(UnixSeconds(10_000))))
                .collect(),
        );
        let told = |directory: &mut EndpointDirectory, now| {
            let nodes = directory.select(prefix(9), 2, now);
            nodes.iter().any(|node| node.prefix == prefix(1))
        };
        (0..4).for_each(|_| directory.unreachable(prefix(2), &[prefix(1)], NOW));
        assert!((0..9).any(|_| told(&mut directory, NOW)));
        directory.unreachable(prefix(3), &[prefix(1)], NOW);
        assert!(!(0..9).any(|_| told(&mut directory, NOW)));
        assert_eq!(directory.select(prefix(9), 3, NOW).len(), 3);
        assert!((0..9).any(|_| told(&mut directory, UnixSeconds(REPORT_LIFETIME_S))));
    }
}
