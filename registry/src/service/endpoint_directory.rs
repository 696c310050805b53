//! Keeps the valid announcements, and selects the nodes to which newcomers are referred.

use crate::{clock::UnixSeconds, store::StoredAnnouncement};
use policies::names::Prefix;
use std::collections::{BTreeMap, BTreeSet};
use wire::registry::Node;

/// Number of other nodes that must report a node as unreachable before it is selected last. A single reporter
/// may lie, or may itself be behind a broken firewall.
const MIN_REPORTERS: usize = 2;

/// Largest number of reporters that are remembered for one node.
const MAX_REPORTERS: usize = 8;

/// Seconds after which a report of an unreachable node is ignored: 10 minutes.
const REPORT_LIFETIME_S: i64 = 600;

#[derive(Debug, Default)]
struct Entry {
    announcement: StoredAnnouncement,
    /// The number of answers that contained the node.
    times_selected: u64,
    /// The nodes that could not dial this one, with the times of their reports.
    reporters: Vec<(Prefix, UnixSeconds)>,
}

impl Entry {
    fn is_unreachable(&self, now: UnixSeconds) -> bool {
        let fresh = |(_, at): &&(Prefix, UnixSeconds)| {
            (0..REPORT_LIFETIME_S).contains(&now.seconds_since(*at))
        };
        self.reporters.iter().filter(fresh).count() >= MIN_REPORTERS
    }
}

/// The last announcement of each node, with the reports about the node.
#[derive(Debug, Default)]
pub(super) struct EndpointDirectory {
    entries: BTreeMap<Prefix, Entry>,
}

impl EndpointDirectory {
    pub(super) fn new(all: Vec<(Prefix, StoredAnnouncement)>) -> Self {
        let entries = all.into_iter().map(|(prefix, announcement)| {
            (
                prefix,
                Entry {
                    announcement,
                    ..Entry::default()
                },
            )
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// Records an announcement. A new node starts with the lowest count of the others, so that not all newcomers
    /// are referred to it at once. If a node has new endpoints, older reports about it are dropped.
    pub(super) fn announce(&mut self, prefix: Prefix, announcement: StoredAnnouncement) {
        let lowest = self
            .entries
            .values()
            .filter(|entry| !entry.announcement.endpoints.is_empty());
        let lowest = lowest.map(|entry| entry.times_selected).min().unwrap_or(0);
        let entry = self.entries.entry(prefix).or_insert(Entry {
            times_selected: lowest,
            ..Entry::default()
        });
        if entry.announcement.endpoints != announcement.endpoints {
            entry.reporters.clear();
            entry.times_selected = entry.times_selected.max(lowest);
        }
        entry.announcement = announcement;
    }

    /// Records that `reporter` could not dial these nodes.
    pub(super) fn report_unreachable(
        &mut self,
        reporter: Prefix,
        nodes: &[Prefix],
        now: UnixSeconds,
    ) {
        for node in nodes.iter().filter(|node| **node != reporter) {
            if let Some(entry) = self.entries.get_mut(node) {
                entry.reporters.retain(|(other, _)| *other != reporter);
                if entry.reporters.len() >= MAX_REPORTERS {
                    entry.reporters.remove(0);
                }
                entry.reporters.push((reporter, now));
            }
        }
    }

    pub(super) fn remove(&mut self, prefix: Prefix) {
        self.entries.remove(&prefix);
    }

    /// Returns up to `count` nodes other than `caller` that can be dialled: those that were selected least
    /// often, at random among equals. Nodes that were reported as unreachable come last.
    pub(super) fn select(&mut self, caller: Prefix, count: usize, now: UnixSeconds) -> Vec<Node> {
        self.entries
            .retain(|_, entry| entry.announcement.valid_until > now);
        let candidates = self.entries.iter().filter(|(prefix, entry)| {
            **prefix != caller && !entry.announcement.endpoints.is_empty()
        });
        let mut ranked: Vec<_> = candidates
            .map(|(prefix, entry)| {
                (
                    (
                        entry.is_unreachable(now),
                        entry.times_selected,
                        fastrand::u64(..),
                    ),
                    *prefix,
                )
            })
            .collect();
        if let Some(last) = count.checked_sub(1).filter(|last| *last < ranked.len()) {
            ranked.select_nth_unstable(last);
        }
        ranked.truncate(count);
        fastrand::shuffle(&mut ranked);
        let selected = ranked.into_iter().filter_map(|(_, prefix)| {
            let entry = self.entries.get_mut(&prefix)?;
            entry.times_selected += 1;
            Some(Node {
                prefix,
                endpoints: entry.announcement.endpoints.clone(),
            })
        });
        selected.collect()
    }

    /// Returns the announcement of a node, if it is still valid.
    pub(super) fn announcement(
        &self,
        prefix: Prefix,
        now: UnixSeconds,
    ) -> Option<&StoredAnnouncement> {
        self.entries
            .get(&prefix)
            .map(|entry| &entry.announcement)
            .filter(|announcement| announcement.valid_until > now)
    }

    /// Returns the nodes that were reported as unreachable.
    pub(super) fn unreachable_nodes(&self, now: UnixSeconds) -> BTreeSet<Prefix> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.is_unreachable(now))
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

    fn announcement(valid_until: UnixSeconds) -> StoredAnnouncement {
        StoredAnnouncement {
            endpoints: vec!["udp:45.67.0.1:1194".parse().unwrap()],
            valid_until,
            ..StoredAnnouncement::default()
        }
    }

    /// Lets `callers` ask for `count` of `nodes` each, and compares the lowest and the highest number of times
    /// that a node was selected.
    #[track_caller]
    fn check(nodes: u32, callers: u32, count: usize, expected: (usize, usize)) {
        let mut directory = EndpointDirectory::new(
            (1..=nodes)
                .map(|number| (prefix(number), announcement(UnixSeconds(10))))
                .collect(),
        );
        let mut times_selected: BTreeMap<Prefix, usize> =
            (1..=nodes).map(|number| (prefix(number), 0)).collect();
        for caller in 0..callers {
            let selected = directory.select(prefix(1_000 + caller), count, NOW);
            let distinct: BTreeSet<_> = selected.iter().map(|node| node.prefix).collect();
            assert_eq!(
                distinct.len(),
                selected.len(),
                "a node is in one answer twice"
            );
            for node in selected {
                *times_selected.get_mut(&node.prefix).unwrap() += 1;
            }
        }
        let (min, max) = (times_selected.values().min(), times_selected.values().max());
        assert_eq!((*min.unwrap(), *max.unwrap()), expected);
    }

    #[test]
    fn a_hundred_newcomers_are_spread_evenly() {
        check(50, 100, 10, (20, 20));
        check(7, 100, 3, (42, 43));
        check(3, 100, 10, (100, 100));
    }

    #[test]
    fn not_all_callers_are_referred_to_a_node_that_has_just_announced_itself() {
        let mut directory = EndpointDirectory::new(
            (1..=10)
                .map(|number| (prefix(number), announcement(UnixSeconds(10))))
                .collect(),
        );
        (0..100).for_each(|caller| drop(directory.select(prefix(1_000 + caller), 5, NOW)));
        directory.announce(prefix(11), announcement(UnixSeconds(10)));
        let hits = (0..11).filter(|caller| {
            directory
                .select(prefix(2_000 + caller), 1, NOW)
                .iter()
                .any(|node| node.prefix == prefix(11))
        });
        assert!(hits.count() <= 2);
    }

    #[test]
    fn a_node_that_two_others_report_as_unreachable_is_selected_last() {
        let mut directory = EndpointDirectory::new(
            (1..=3)
                .map(|number| (prefix(number), announcement(UnixSeconds(10_000))))
                .collect(),
        );
        let is_selected = |directory: &mut EndpointDirectory, now| {
            let nodes = directory.select(prefix(9), 2, now);
            nodes.iter().any(|node| node.prefix == prefix(1))
        };
        (0..4).for_each(|_| directory.report_unreachable(prefix(2), &[prefix(1)], NOW));
        assert!((0..9).any(|_| is_selected(&mut directory, NOW)));
        directory.report_unreachable(prefix(3), &[prefix(1)], NOW);
        assert!(!(0..9).any(|_| is_selected(&mut directory, NOW)));
        assert_eq!(directory.select(prefix(9), 3, NOW).len(), 3);
        assert!((0..9).any(|_| is_selected(&mut directory, UnixSeconds(REPORT_LIFETIME_S))));
    }
}
