//! Keeps the valid announcements, and selects the nodes to which newcomers are referred.

use crate::{
    clock::UnixSeconds,
    service::{limits::SourceNetwork, machines::Machines},
    store::StoredAnnouncement,
};
use policies::names::{Endpoint, Prefix};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use wire::{
    endpoints::{EndpointError, class_of},
    registry::Node,
};

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
    /// The machines that announced themselves as this node.
    machines: Machines,
}

impl Entry {
    /// Returns the endpoints that a caller from this address may know; all, if there is none.
    fn visible_endpoints(&self, site: Option<IpAddr>) -> impl Iterator<Item = Endpoint> {
        let announcement = &self.announcement;
        let is_same_site = site.is_none_or(|caller| {
            announcement
                .source
                .is_some_and(|source| are_same_site(source, caller))
        });
        let endpoints = announcement.endpoints.iter().copied();
        endpoints.filter(move |endpoint| {
            is_same_site || class_of(endpoint.address.ip()) != Some(EndpointError::Private)
        })
    }

    fn is_unreachable(&self, now: UnixSeconds) -> bool {
        let fresh = |(_, at): &&(Prefix, UnixSeconds)| {
            (0..REPORT_LIFETIME_S).contains(&now.seconds_since(*at))
        };
        self.reporters.iter().filter(fresh).count() >= MIN_REPORTERS
    }
}

/// Returns whether two nodes that connect from these addresses are probably in one LAN: both use private addresses, as the
/// registry then does, or they come from the same public IPv4 address or /64.
fn are_same_site(one: IpAddr, other: IpAddr) -> bool {
    let is_local = |address: IpAddr| {
        matches!(
            class_of(address.to_canonical()),
            Some(EndpointError::Private | EndpointError::Loopback | EndpointError::LinkLocal)
        )
    };
    (is_local(one) && is_local(other)) || SourceNetwork::from(one) == SourceNetwork::from(other)
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

    /// Records the number of the daemon that has announced itself as this node. Returns the address of another machine that does so in turn.
    pub(super) fn note_machine(
        &mut self,
        prefix: Prefix,
        (instance, from): (u64, IpAddr),
        now: UnixSeconds,
    ) -> Option<IpAddr> {
        let entry = self.entries.get_mut(&prefix)?;
        entry.machines.announce(instance, from, now)
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

    /// Returns the number of nodes that have announced themselves.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn remove(&mut self, prefix: Prefix) {
        self.entries.remove(&prefix);
    }

    /// Returns up to `count` nodes other than `caller` that can be dialled: those that were selected least
    /// often, at random among equals. Nodes that were reported as unreachable come last.
    ///
    /// With `site`, the address of the caller, the private endpoints of nodes from other sites are hidden. Also returns the number
    /// of nodes that have no others.
    pub(super) fn select(
        &mut self,
        caller: Prefix,
        site: Option<IpAddr>,
        count: usize,
        now: UnixSeconds,
    ) -> (Vec<Node>, u32) {
        self.entries
            .retain(|_, entry| entry.announcement.valid_until > now);
        let candidates = self.entries.iter().filter(|(prefix, entry)| {
            **prefix != caller && !entry.announcement.endpoints.is_empty()
        });
        let (visible, hidden): (Vec<_>, Vec<_>) =
            candidates.partition(|(_, entry)| entry.visible_endpoints(site).next().is_some());
        let hidden_nodes = u32::try_from(hidden.len()).unwrap_or(u32::MAX);
        let mut ranked: Vec<_> = visible
            .into_iter()
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
                endpoints: entry.visible_endpoints(site).collect(),
            })
        });
        (selected.collect(), hidden_nodes)
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
            let selected = directory.select(prefix(1_000 + caller), None, count, NOW).0;
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
        (0..100).for_each(|caller| drop(directory.select(prefix(1_000 + caller), None, 5, NOW)));
        directory.announce(prefix(11), announcement(UnixSeconds(10)));
        let hits = (0..11).filter(|caller| {
            directory
                .select(prefix(2_000 + caller), None, 1, NOW)
                .0
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
            let (nodes, _) = directory.select(prefix(9), None, 2, now);
            nodes.iter().any(|node| node.prefix == prefix(1))
        };
        (0..4).for_each(|_| directory.report_unreachable(prefix(2), &[prefix(1)], NOW));
        assert!((0..9).any(|_| is_selected(&mut directory, NOW)));
        directory.report_unreachable(prefix(3), &[prefix(1)], NOW);
        assert!(!(0..9).any(|_| is_selected(&mut directory, NOW)));
        assert_eq!(directory.select(prefix(9), None, 3, NOW).0.len(), 3);
        assert!((0..9).any(|_| is_selected(&mut directory, UnixSeconds(REPORT_LIFETIME_S))));
    }

    /// Compares which endpoints of a node that announced itself from `source` a caller from `site` gets, and how many nodes are
    /// hidden from it.
    #[track_caller]
    fn check_site(source: Option<&str>, site: Option<&str>, expected: (&[&str], u32)) {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut private_only = StoredAnnouncement {
            endpoints: vec!["udp:192.168.1.2:1194".parse().unwrap()],
            source: source.map(address),
            ..announcement(UnixSeconds(10))
        };
        let mut directory = EndpointDirectory::default();
        directory.announce(prefix(1), private_only.clone());
        private_only
            .endpoints
            .insert(0, "udp:45.67.0.1:1194".parse().unwrap());
        directory.announce(prefix(2), private_only);
        let (mut nodes, hidden) = directory.select(prefix(9), site.map(address), 9, NOW);
        nodes.sort_by_key(|node| node.prefix);
        let shown: Vec<_> = nodes
            .iter()
            .flat_map(|node| &node.endpoints)
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            (shown, hidden),
            (
                expected.0.iter().map(ToString::to_string).collect(),
                expected.1
            )
        );
    }

    #[test]
    fn private_endpoints_are_shown_to_callers_of_the_same_site() {
        let all: (&[&str], u32) = (
            &[
                "udp:192.168.1.2:1194",
                "udp:45.67.0.1:1194",
                "udp:192.168.1.2:1194",
            ],
            0,
        );
        let public: (&[&str], u32) = (&["udp:45.67.0.1:1194"], 1);
        for (source, site, expected) in [
            (Some("45.67.0.9"), Some("45.67.0.9"), all),
            (Some("45.67.0.9"), Some("45.67.0.8"), public),
            (Some("2001:db8:1:1::1"), Some("2001:db8:1:1::2"), all),
            (Some("2001:db8:1:1::1"), Some("2001:db8:1:2::2"), public),
            (Some("192.168.1.2"), Some("10.0.0.1"), all),
            (Some("192.168.1.2"), Some("::ffff:10.0.0.1"), all),
            (Some("192.168.1.2"), Some("45.67.0.9"), public),
            (Some("45.67.0.9"), Some("192.168.1.2"), public),
            (None, Some("192.168.1.2"), public),
            (None, None, all),
        ] {
            check_site(source, site, expected);
        }
    }
}
