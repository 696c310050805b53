//! Knows which nodes can be dialled, and spreads newcomers over them.

use crate::store::StoredAnnouncement;
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
    reporters: Vec<(Prefix, i64)>,
}

impl Line {
    fn is_unreachable(&self, now_s: i64) -> bool {
        let fresh = |(_, at_s): &&(Prefix, i64)| (0..REPORT_LIFETIME_S).contains(&(now_s - at_s));
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
    pub(super) fn unreachable(&mut self, reporter: Prefix, nodes: &[Prefix], now_s: i64) {
        for node in nodes.iter().filter(|node| **node != reporter) {
            if let Some(line) = self.lines.get_mut(node) {
                line.reporters.retain(|(other, _)| *other != reporter);
                if line.reporters.len() >= MAX_REPORTERS {
                    line.reporters.remove(0);
                }
                line.reporters.push((reporter, now_s));
            }
        }
    }

    pub(super) fn remove(&mut self, prefix: Prefix) {
        self.lines.remove(&prefix);
    }

    /// Returns up to `count` nodes that can be dialled, without `asker`: those that were handed
    /// out least, at random among equals; those reported as unreachable come last.
    pub(super) fn select(&mut self, asker: Prefix, count: usize, now_s: i64) -> Vec<Node> {
        self.lines.retain(|_, line| line.report.until_s > now_s);
        let good = self
            .lines
            .iter()
            .filter(|(prefix, line)| **prefix != asker && !line.report.endpoints.is_empty());
        let mut ranked: Vec<_> = good
            .map(|(prefix, line)| {
                (
                    (line.is_unreachable(now_s), line.told, fastrand::u64(..)),
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
    pub(super) fn report(&self, prefix: Prefix, now_s: i64) -> Option<&StoredAnnouncement> {
        self.lines
            .get(&prefix)
            .map(|line| &line.report)
            .filter(|report| report.until_s > now_s)
    }

    /// Nodes that others cannot dial.
    pub(super) fn unreachable_nodes(&self, now_s: i64) -> BTreeSet<Prefix> {
        self.lines
            .iter()
            .filter(|(_, line)| line.is_unreachable(now_s))
            .map(|(prefix, _)| *prefix)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn report(until_s: i64) -> StoredAnnouncement {
        StoredAnnouncement {
            endpoints: vec!["udp:45.67.0.1:1194".parse().unwrap()],
            until_s,
            ..StoredAnnouncement::default()
        }
    }

    /// Lets `askers` ask for `count` of `nodes` each; returns the least and the most that any node
    /// was handed out.
    #[track_caller]
    fn check(nodes: u32, askers: u32, count: usize, expected: (usize, usize)) {
        let mut directory = EndpointDirectory::new(
            (1..=nodes)
                .map(|number| (prefix(number), report(10)))
                .collect(),
        );
        let mut told: BTreeMap<Prefix, usize> =
            (1..=nodes).map(|number| (prefix(number), 0)).collect();
        for asker in 0..askers {
            let some = directory.select(prefix(1_000 + asker), count, 0);
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
                .map(|number| (prefix(number), report(10)))
                .collect(),
        );
        (0..100).for_each(|asker| drop(directory.select(prefix(1_000 + asker), 5, 0)));
        directory.announce(prefix(11), report(10));
        let hits = (0..11).filter(|asker| {
            directory
                .select(prefix(2_000 + asker), 1, 0)
                .iter()
                .any(|node| node.prefix == prefix(11))
        });
        assert!(hits.count() <= 2);
    }

    #[test]
    fn who_cannot_be_dialled_comes_last_and_one_witness_does_not_count() {
        let mut directory = EndpointDirectory::new(
            (1..=3)
                .map(|number| (prefix(number), report(10_000)))
                .collect(),
        );
        let told = |directory: &mut EndpointDirectory, now_s| {
            let nodes = directory.select(prefix(9), 2, now_s);
            nodes.iter().any(|node| node.prefix == prefix(1))
        };
        (0..4).for_each(|_| directory.unreachable(prefix(2), &[prefix(1)], 0));
        assert!((0..9).any(|_| told(&mut directory, 0)));
        directory.unreachable(prefix(3), &[prefix(1)], 0);
        assert!(!(0..9).any(|_| told(&mut directory, 0)));
        assert_eq!(directory.select(prefix(9), 3, 0).len(), 3);
        assert!((0..9).any(|_| told(&mut directory, REPORT_LIFETIME_S)));
    }
}
