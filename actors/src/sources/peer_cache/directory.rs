//! The known peers and their endpoints, in memory. Decides which of two reports counts, and which peers are dropped first.
//!
//! Reads no clock and no disk.

mod lan;

use crate::{messages::PeerSource, store::DialHistory};
use lan::OnLan;
use membership::{documents::is_private, peer_api::PeerReport};
use policies::{
    gain::PROBED_PER_REFRESH,
    names::{Endpoint, Prefix, Transport},
    observation::{Candidate, DEAD_FAILURES},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Maximum number of peers in the directory.
pub const MAX_PEERS: usize = 1024;
/// Minimum capacity of the directory: enough that some endpoints still work after a restart of this node.
pub const MIN_CAPACITY: usize = 200;
/// Maximum number of endpoints of a peer.
pub const MAX_ENDPOINTS: usize = 8;
/// Time for which a node's report about itself outweighs all other reports, and the registry's report outweighs those of other
/// nodes.
const PRECEDENCE_LIFETIME: Duration = Duration::from_secs(3600);

/// A peer as it is stored on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The prefix of the peer.
    pub peer: Prefix,
    /// The endpoints, best first.
    pub endpoints: Vec<Endpoint>,
    /// The source of the endpoints.
    pub source: PeerSource,
    /// The sequence number of the last report about the peer; a later report has a higher one.
    pub last_report: u64,
    /// Failed dials in a row.
    pub failures: u32,
}

/// The changes to be written to disk: the new row of each changed peer, `None` for a dropped one.
pub type Changes = BTreeMap<Prefix, Option<Row>>;

/// A peer in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownPeer {
    /// The endpoints that were reported; empty if the peer is known from a LAN only.
    endpoints: Vec<Endpoint>,
    /// Where it answers on a LAN of this host, and since when it is known there.
    on_lan: Option<OnLan>,
    source: PeerSource,
    last_report: u64,
    /// The time of the last report in this run.
    confirmed_at: Option<Uptime>,
    /// The time since which these are its endpoints; earlier failed dials concern other endpoints.
    endpoints_since: Option<Uptime>,
    dials: DialHistory,
    /// The cost that the peer itself reported in this run; 0 until then.
    transit_cost: u16,
}

/// All known peers, and the changes that are not on disk yet.
pub struct PeerDirectory {
    me: Prefix,
    peers: BTreeMap<Prefix, KnownPeer>,
    /// The peers whose changes are not on disk yet.
    unwritten: BTreeSet<Prefix>,
    /// The sequence number of the last report.
    last_report: u64,
    /// The number of tunnels that this node dials.
    tunnels: u16,
    /// The highest number of other nodes that was ever observed.
    max_node_count: usize,
}

/// Returns the number of peers to keep: as many as are probed while `tunnels` tunnels are replaced one after the other
/// (`docs/POLICY-REASONS.md`), but not more than there are nodes, and from [`MIN_CAPACITY`] to [`MAX_PEERS`].
fn capacity(tunnels: u16, max_node_count: usize) -> usize {
    let probed = u32::from(tunnels).saturating_mul(PROBED_PER_REFRESH);
    usize::try_from(probed)
        .unwrap_or(usize::MAX)
        .min(max_node_count)
        .clamp(MIN_CAPACITY, MAX_PEERS)
}

impl KnownPeer {
    /// Returns whether the peer itself reported its endpoints in this run.
    fn is_first_hand(&self) -> bool {
        self.source == PeerSource::Itself && self.confirmed_at.is_some()
    }

    /// Returns whether what is known outweighs a report from `source`.
    fn outweighs(&self, source: PeerSource, at: Uptime) -> bool {
        let is_recent = self
            .confirmed_at
            .is_some_and(|confirmed| at.since(confirmed) < PRECEDENCE_LIFETIME);
        is_recent
            && match source {
                PeerSource::Itself => false,
                // If a dial has failed, the registry may know newer endpoints.
                PeerSource::Registry => {
                    self.source == PeerSource::Itself && self.dials.failures == 0
                }
                PeerSource::Gossip => self.source != PeerSource::Gossip,
            }
    }
}

impl PeerDirectory {
    /// Creates an empty directory for node `me`, which dials this many tunnels.
    pub fn new(me: Prefix, tunnels: u16) -> Self {
        Self {
            me,
            peers: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            last_report: 0,
            tunnels,
            max_node_count: 0,
        }
    }

    /// Sets the number of tunnels that this node dials, and drops the peers that are too many with it.
    pub fn set_tunnels(&mut self, tunnels: u16) {
        self.tunnels = tunnels;
        self.evict();
    }

    /// Records the number of other nodes. A lower number than before may be temporary, so it has no effect.
    pub fn note_node_count(&mut self, nodes: usize) {
        self.max_node_count = self.max_node_count.max(nodes);
    }

    /// Loads the rows from disk, without the endpoints that `is_dialable` rejects.
    pub fn load(&mut self, rows: Vec<Row>, is_dialable: impl Fn(Endpoint) -> bool) {
        self.note_node_count(rows.len());
        for row in rows {
            self.last_report = self.last_report.max(row.last_report);
            let endpoints: Vec<_> = row
                .endpoints
                .into_iter()
                .filter(|endpoint| is_dialable(*endpoint))
                .take(MAX_ENDPOINTS)
                .collect();
            if row.peer == self.me || endpoints.is_empty() {
                continue;
            }
            let dials = DialHistory {
                failures: row.failures,
                ..DialHistory::default()
            };
            let known = KnownPeer {
                endpoints,
                on_lan: None,
                source: row.source,
                last_report: row.last_report,
                confirmed_at: None,
                endpoints_since: None,
                dials,
                transit_cost: 0,
            };
            self.peers.insert(row.peer, known);
        }
        self.evict();
    }

    /// Restores from the last reading of this run what the disk does not store: when each peer was confirmed, and its transit cost.
    pub fn restore_unstored(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            if let Some(known) = self.peers.get_mut(&candidate.peer) {
                known.confirmed_at = candidate.confirmed_at;
                known.transit_cost = candidate.transit_cost;
            }
        }
    }

    /// Removes from reports of nodes the private endpoints that the registry has not named before.
    ///
    /// A node could name any host of this node's LAN, while the registry compares from where nodes announce themselves.
    pub fn remove_unconfirmed(&self, reports: &mut [PeerReport]) {
        for report in reports {
            let known = self.peers.get(&report.peer);
            report.endpoints.retain(|endpoint| {
                !is_private(*endpoint)
                    || known.is_some_and(|known| known.endpoints.contains(endpoint))
            });
        }
    }

    /// Applies reports about peers; returns whether anything changed.
    pub fn apply_reports(
        &mut self,
        source: PeerSource,
        at: Uptime,
        peers: Vec<PeerReport>,
    ) -> bool {
        let mut changed = false;
        for report in peers {
            if report.peer != self.me {
                changed |= self.apply_report(source, at, report);
            }
        }
        self.evict();
        changed
    }

    fn apply_report(&mut self, source: PeerSource, at: Uptime, report: PeerReport) -> bool {
        let PeerReport {
            peer,
            mut endpoints,
            transit_cost,
        } = report;
        endpoints.truncate(MAX_ENDPOINTS);
        let old = self.peers.get(&peer);
        let unchanged = old.filter(|old| old.endpoints == endpoints);
        // A report that confirms what is known always counts, unless it comes from another node.
        let needs_precedence = unchanged.is_none() || source == PeerSource::Gossip;
        if needs_precedence && old.is_some_and(|old| old.outweighs(source, at)) {
            return false;
        }
        if endpoints.is_empty() {
            // A peer without endpoints cannot be dialled. Only its own report of that counts.
            return source == PeerSource::Itself && self.remove_reported(peer);
        }
        self.last_report += 1;
        let transit_cost = transit_cost
            .or(old.map(|old| old.transit_cost))
            .unwrap_or(0);
        // The results of dials are kept with the same endpoints, and cleared with new ones.
        let (endpoints_since, dials) = unchanged
            .map_or((Some(at), DialHistory::default()), |old| {
                (old.endpoints_since, old.dials)
            });
        // If the registry repeats a peer's own report, it still counts as the peer's own.
        let source = unchanged
            .filter(|old| old.is_first_hand())
            .map_or(source, |old| old.source);
        let known = KnownPeer {
            endpoints,
            on_lan: old.and_then(|old| old.on_lan.clone()),
            source,
            last_report: self.last_report,
            confirmed_at: Some(at),
            endpoints_since,
            dials,
            transit_cost,
        };
        self.peers.insert(peer, known);
        self.unwritten.insert(peer);
        true
    }

    /// Removes a peer; returns whether it was known.
    pub fn remove(&mut self, peer: Prefix) -> bool {
        let known = self.peers.remove(&peer).is_some();
        self.unwritten.extend(known.then_some(peer));
        known
    }

    /// Returns whether the peer is in the directory.
    pub fn knows(&self, peer: Prefix) -> bool {
        self.peers.contains_key(&peer)
    }

    /// Applies the results of dials; returns whether anything changed.
    pub fn update_dials(&mut self, dials: &BTreeMap<Prefix, DialHistory>) -> bool {
        let mut changed = false;
        for (peer, dials) in dials {
            let Some(known) = self.peers.get_mut(peer) else {
                continue;
            };
            let is_about_old_endpoints = dials
                .failed
                .is_some_and(|failed| Some(failed) <= known.endpoints_since);
            let dials = if is_about_old_endpoints {
                DialHistory {
                    failures: 0,
                    failed: None,
                    good: dials.good,
                }
            } else {
                *dials
            };
            if known.dials != dials {
                known.dials = dials;
                self.unwritten.insert(*peer);
                changed = true;
            }
        }
        changed
    }

    /// Returns all peers by ascending prefix. Endpoints on a LAN come first. Of the others, the one at which a tunnel last came up is
    /// the first of its transport, and UDP comes before TCP: a dial leaves a silent endpoint soon, and
    /// the path may carry UDP again.
    pub fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(peer, known): (&Prefix, &KnownPeer)| {
            let mut endpoints = known.lan_endpoints().to_vec();
            let on_lan = endpoints.len();
            let mut reported = known.endpoints.clone();
            reported.retain(|endpoint| !endpoints.contains(endpoint));
            reported.sort_by_key(|endpoint| {
                let is_good = known.dials.good == Some(*endpoint);
                (endpoint.transport == Transport::Tcp, !is_good)
            });
            endpoints.extend(reported);
            let (failed, failures) = (known.dials.failed, known.dials.failures);
            let confirmed = known.on_lan.as_ref().map(|on_lan| on_lan.answered_at);
            Candidate {
                peer: *peer,
                endpoints,
                on_lan,
                confirmed_at: known.confirmed_at.max(confirmed),
                failed_at: failed,
                failures,
                transit_cost: known.transit_cost,
            }
        };
        self.peers.iter().map(candidate).collect()
    }

    /// Returns the endpoint of a peer at which a tunnel last came up.
    pub fn good_endpoint(&self, peer: Prefix) -> Option<Endpoint> {
        self.peers.get(&peer)?.dials.good
    }

    /// Returns the changes since the last call, to be written to disk.
    pub fn take_changes(&mut self) -> Changes {
        let row = |peer: Prefix| {
            let known = self.peers.get(&peer).filter(|known| known.is_reported())?;
            Some(Row {
                peer,
                endpoints: known.endpoints.clone(),
                source: known.source,
                last_report: known.last_report,
                failures: known.dials.failures,
            })
        };
        std::mem::take(&mut self.unwritten)
            .into_iter()
            .map(|peer| (peer, row(peer)))
            .collect()
    }

    /// Records that these changes did not reach the disk, so that the next ones include them.
    pub fn mark_unwritten(&mut self, changes: Changes) {
        self.unwritten.extend(changes.into_keys());
    }

    /// Drops the peers above the capacity. Peers that only other nodes reported may fill half of it, and peers that only the
    /// registry reported may fill another half.
    fn evict(&mut self) {
        let capacity = capacity(self.tunnels, self.max_node_count);
        self.evict_above(capacity / 2, |known| known.source == PeerSource::Gossip);
        self.evict_above(capacity / 2, |known| known.source == PeerSource::Registry);
        self.evict_above(capacity, |_| true);
    }

    /// Keeps at most `limit` peers of a kind. Dead peers are dropped first, then those that did not report themselves in this
    /// run. Among equals, the peer with the most failed dials is dropped first, then the one with the oldest report.
    fn evict_above(&mut self, limit: usize, kind: impl Fn(&KnownPeer) -> bool) {
        let of_kind = self.peers.iter().filter(|(_, known)| kind(known));
        let mut order: Vec<_> = of_kind
            .map(|(peer, known)| {
                let failures = known.dials.failures;
                let (is_alive, most_failures_first) =
                    (failures < DEAD_FAILURES, std::cmp::Reverse(failures));
                (
                    is_alive,
                    known.is_first_hand(),
                    most_failures_first,
                    known.last_report,
                    *peer,
                )
            })
            .collect();
        let excess = order.len().saturating_sub(limit);
        order.sort_unstable();
        for (.., peer) in order.into_iter().take(excess) {
            self.peers.remove(&peer);
            self.unwritten.insert(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn numbered_endpoint(number: u32) -> Endpoint {
        format!("udp:45.67.{}.{}:1194", number / 256, number % 256)
            .parse()
            .unwrap()
    }

    fn directory() -> PeerDirectory {
        PeerDirectory::new(peer(0), 10)
    }

    /// Applies a report (source, second, peer, endpoints), and compares whether it changed anything and which endpoints are known
    /// after it.
    #[track_caller]
    fn check(
        directory: &mut PeerDirectory,
        report: (PeerSource, u64, u32, &[u32]),
        changed: bool,
        known: &[(u32, &[u32])],
    ) {
        let (source, seconds, number, endpoints) = report;
        let endpoints = endpoints
            .iter()
            .map(|number| numbered_endpoint(*number))
            .collect();
        let report = PeerReport {
            peer: peer(number),
            endpoints,
            transit_cost: None,
        };
        let has_changed = directory.apply_reports(source, Uptime::from_secs(seconds), vec![report]);
        assert_eq!(has_changed, changed);
        let seen: Vec<_> = directory
            .candidates()
            .into_iter()
            .map(|c| (c.peer, c.endpoints))
            .collect();
        let known: Vec<(_, Vec<_>)> = known
            .iter()
            .map(|(n, e)| (peer(*n), e.iter().map(|n| numbered_endpoint(*n)).collect()))
            .collect();
        assert_eq!(seen, known);
    }

    /// Reports one endpoint of node 7 at that second, and compares which endpoint is known then.
    #[track_caller]
    fn report_7(
        directory: &mut PeerDirectory,
        (source, second, endpoint): (PeerSource, u64, u32),
        has_changed: bool,
        known: u32,
    ) {
        check(
            directory,
            (source, second, 7, &[endpoint]),
            has_changed,
            &[(7, &[known])],
        );
    }

    #[test]
    fn a_node_confirms_private_endpoints_that_the_registry_named_and_adds_none() {
        let mut directory = PeerDirectory::new(peer(0), 10);
        let report = |endpoints: &[&str]| PeerReport {
            peer: peer(7),
            endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
            transit_cost: None,
        };
        let (public, lan, forged) = ("udp:45.67.0.1:1", "udp:192.168.1.2:1", "tcp:192.168.1.1:80");
        let at = Uptime::from_secs(1);
        let reports = vec![report(&[public, lan])];
        directory.apply_reports(PeerSource::Registry, at, reports);
        let mut reports = [report(&[forged, public, lan, "udp:[fd00::1]:1"])];
        directory.remove_unconfirmed(&mut reports);
        assert_eq!(reports, [report(&[public, lan])]);
        let mut unknown = [PeerReport {
            peer: peer(8),
            ..report(&[lan, public])
        }];
        directory.remove_unconfirmed(&mut unknown);
        assert_eq!(unknown[0].endpoints, report(&[public]).endpoints);
    }

    #[test]
    fn a_nodes_own_report_outweighs_others_for_an_hour_unless_a_dial_fails() {
        let mut directory = directory();
        report_7(&mut directory, (PeerSource::Gossip, 1, 1), true, 1);
        report_7(&mut directory, (PeerSource::Itself, 2, 2), true, 2);
        report_7(&mut directory, (PeerSource::Gossip, 3, 3), false, 2);
        report_7(&mut directory, (PeerSource::Registry, 4, 4), false, 2);
        let failed = DialHistory {
            failures: 1,
            failed: Some(Uptime::from_secs(5)),
            good: None,
        };
        assert!(directory.update_dials(&[(peer(7), failed)].into()));
        report_7(&mut directory, (PeerSource::Registry, 6, 4), true, 4);
        report_7(&mut directory, (PeerSource::Gossip, 7, 3), false, 4);
        report_7(&mut directory, (PeerSource::Itself, 8, 2), true, 2);
        report_7(&mut directory, (PeerSource::Registry, 3608, 5), true, 5);
        report_7(&mut directory, (PeerSource::Gossip, 7208, 3), true, 3);
    }

    #[test]
    fn a_nodes_own_report_that_the_registry_repeats_still_counts_as_its_own() {
        let mut directory = directory();
        check(
            &mut directory,
            (PeerSource::Itself, 1, 7, &[2]),
            true,
            &[(7, &[2])],
        );
        check(
            &mut directory,
            (PeerSource::Registry, 2, 7, &[2]),
            true,
            &[(7, &[2])],
        );
        check(
            &mut directory,
            (PeerSource::Registry, 3, 7, &[4]),
            false,
            &[(7, &[2])],
        );
        check(
            &mut directory,
            (PeerSource::Gossip, 3, 7, &[2]),
            false,
            &[(7, &[2])],
        );
    }

    #[test]
    fn reports_without_a_transit_cost_keep_the_cost_that_the_node_itself_reported() {
        let mut directory = directory();
        let mut transit_cost_after = |source, transit_cost| {
            let report = PeerReport {
                peer: peer(7),
                endpoints: vec![numbered_endpoint(1)],
                transit_cost,
            };
            directory.apply_reports(source, Uptime::from_secs(1), vec![report]);
            directory.candidates()[0].transit_cost
        };
        assert_eq!(transit_cost_after(PeerSource::Registry, None), 0);
        assert_eq!(transit_cost_after(PeerSource::Itself, Some(10_000)), 10_000);
        assert_eq!(transit_cost_after(PeerSource::Registry, None), 10_000);
        assert_eq!(transit_cost_after(PeerSource::Itself, Some(0)), 0);
    }

    #[test]
    fn only_a_node_itself_can_report_that_it_cannot_be_dialled() {
        let mut directory = directory();
        check(
            &mut directory,
            (PeerSource::Registry, 1, 7, &[1]),
            true,
            &[(7, &[1])],
        );
        check(
            &mut directory,
            (PeerSource::Gossip, 2, 7, &[]),
            false,
            &[(7, &[1])],
        );
        check(
            &mut directory,
            (PeerSource::Registry, 2, 7, &[]),
            false,
            &[(7, &[1])],
        );
        check(&mut directory, (PeerSource::Itself, 2, 7, &[]), true, &[]);
        assert_eq!(directory.take_changes(), [(peer(7), None)].into());
    }

    #[test]
    fn reports_about_this_node_are_ignored() {
        check(
            &mut directory(),
            (PeerSource::Registry, 1, 0, &[1]),
            false,
            &[],
        );
    }

    #[test]
    fn the_endpoint_that_came_up_is_first_and_new_endpoints_clear_the_failures() {
        let mut directory = directory();
        check(
            &mut directory,
            (PeerSource::Itself, 1, 7, &[1, 2]),
            true,
            &[(7, &[1, 2])],
        );
        let failed = Some(Uptime::from_secs(2));
        let dials = DialHistory {
            failures: 3,
            failed,
            good: Some(numbered_endpoint(2)),
        };
        assert!(directory.update_dials(&[(peer(7), dials)].into()));
        assert!(!directory.update_dials(&[(peer(7), dials)].into()));
        check(
            &mut directory,
            (PeerSource::Itself, 3, 7, &[1, 2]),
            true,
            &[(7, &[2, 1])],
        );
        assert_eq!(directory.candidates()[0].failures, 3);
        check(
            &mut directory,
            (PeerSource::Itself, 4, 7, &[3]),
            true,
            &[(7, &[3])],
        );
        directory.update_dials(&[(peer(7), dials)].into());
        assert_eq!(directory.candidates()[0].failures, 0);
        let later = DialHistory {
            failures: 4,
            failed: Some(Uptime::from_secs(5)),
            good: None,
        };
        assert!(directory.update_dials(&[(peer(7), later)].into()));
        assert_eq!(directory.candidates()[0].failures, 4);
    }

    #[test]
    fn the_capacity_is_the_number_of_peers_probed_while_all_tunnels_are_replaced_within_limits() {
        for (tunnels, nodes, expected) in [
            (10, 5000, 600),
            (10, 400, 400),
            (10, 7, 200),
            (3, 5000, 200),
            (0, 0, 200),
            (17, 5000, 1020),
            (40, 5000, 1024),
            (u16::MAX, usize::MAX, 1024),
        ] {
            assert_eq!(
                capacity(tunnels, nodes),
                expected,
                "{tunnels} tunnels, {nodes} nodes"
            );
        }
    }

    fn report_of(number: u32, endpoint: u32) -> PeerReport {
        PeerReport {
            peer: peer(number),
            endpoints: vec![numbered_endpoint(endpoint)],
            transit_cost: None,
        }
    }

    fn reports(numbers: std::ops::Range<u32>) -> Vec<PeerReport> {
        numbers.map(|number| report_of(number, number)).collect()
    }

    /// Counts the known peers in a range of numbers that have the endpoint of the same number.
    fn count_kept(directory: &PeerDirectory, numbers: std::ops::Range<u32>) -> usize {
        let is_kept = |candidate: &Candidate| {
            numbers.contains(&candidate.peer.number())
                && candidate.endpoints == [numbered_endpoint(candidate.peer.number())]
        };
        directory
            .candidates()
            .iter()
            .filter(|candidate| is_kept(candidate))
            .count()
    }

    #[test]
    fn the_capacity_changes_with_the_numbers_of_tunnels_and_nodes() {
        let mut directory = directory();
        directory.apply_reports(PeerSource::Itself, Uptime::from_secs(1), reports(1..701));
        assert_eq!(directory.candidates().len(), 200);
        directory.note_node_count(5000);
        directory.note_node_count(3);
        directory.apply_reports(PeerSource::Itself, Uptime::from_secs(2), reports(1..701));
        assert_eq!(
            (
                directory.candidates().len(),
                count_kept(&directory, 101..701)
            ),
            (600, 600)
        );
        directory.set_tunnels(5);
        assert_eq!(
            (
                directory.candidates().len(),
                count_kept(&directory, 401..701)
            ),
            (300, 300)
        );
    }

    #[test]
    fn loaded_peers_are_kept_before_babels_table_is_known() {
        let row = |number| Row {
            peer: peer(number),
            endpoints: vec![numbered_endpoint(number)],
            source: PeerSource::Itself,
            last_report: u64::from(number),
            failures: 0,
        };
        let mut directory = directory();
        directory.load((1..501).map(row).collect(), |_| true);
        assert_eq!(count_kept(&directory, 1..501), 500);
    }

    #[test]
    fn gossip_fills_at_most_half_of_the_directory() {
        let mut directory = directory();
        directory.note_node_count(5000);
        directory.apply_reports(PeerSource::Registry, Uptime::from_secs(1), reports(1..401));
        directory.apply_reports(
            PeerSource::Gossip,
            Uptime::from_secs(2),
            reports(1000..4000),
        );
        assert_eq!(
            (
                count_kept(&directory, 1..401),
                count_kept(&directory, 3700..4000),
                directory.candidates().len()
            ),
            (300, 300, 600)
        );
    }

    #[test]
    fn a_lying_registry_neither_displaces_nor_changes_peers_that_reported_themselves() {
        let mut directory = directory();
        directory.note_node_count(5000);
        directory.apply_reports(PeerSource::Itself, Uptime::from_secs(1), reports(1..551));
        let invented = |number: u32| report_of(number % 3000 + 1, number % 3000 + 10_000);
        for first in (0..6000u32).step_by(16) {
            directory.apply_reports(
                PeerSource::Registry,
                Uptime::from_secs(2),
                (first..first + 16).map(invented).collect(),
            );
        }
        assert_eq!(
            (count_kept(&directory, 1..551), directory.candidates().len()),
            (550, 600)
        );
    }

    #[test]
    fn the_registry_fills_at_most_half_of_an_empty_directory_and_leaves_room_for_first_hand_reports()
     {
        let mut directory = directory();
        directory.apply_reports(PeerSource::Registry, Uptime::from_secs(1), reports(1..401));
        assert_eq!(
            (
                count_kept(&directory, 301..401),
                directory.candidates().len()
            ),
            (100, 100)
        );
        directory.apply_reports(
            PeerSource::Itself,
            Uptime::from_secs(2),
            reports(1000..1150),
        );
        assert_eq!(
            (
                count_kept(&directory, 1000..1150),
                directory.candidates().len()
            ),
            (150, 200)
        );
    }

    #[test]
    fn dead_peers_are_kept_while_there_is_room_and_dropped_first_when_there_is_none() {
        let mut directory = directory();
        directory.apply_reports(PeerSource::Itself, Uptime::from_secs(1), reports(1..151));
        directory.apply_reports(
            PeerSource::Registry,
            Uptime::from_secs(1),
            reports(1000..1050),
        );
        let dials = |failures| DialHistory {
            failures,
            failed: Some(Uptime::from_secs(2)),
            good: None,
        };
        directory.update_dials(&[(peer(150), dials(DEAD_FAILURES)), (peer(149), dials(1))].into());
        assert_eq!(
            (
                count_kept(&directory, 1..151),
                count_kept(&directory, 1000..1050)
            ),
            (150, 50)
        );
        let dead: Vec<_> = directory
            .candidates()
            .iter()
            .filter(|c| c.is_dead())
            .map(|c| c.peer)
            .collect();
        assert_eq!(dead, [peer(150)]);
        // The dead peer is dropped first, although it reported itself; then peers that only the registry reported.
        directory.apply_reports(PeerSource::Itself, Uptime::from_secs(3), reports(500..501));
        assert_eq!(
            (
                count_kept(&directory, 1..150),
                count_kept(&directory, 150..151),
                count_kept(&directory, 1000..1050)
            ),
            (149, 0, 50)
        );
        directory.apply_reports(PeerSource::Itself, Uptime::from_secs(4), reports(501..502));
        assert_eq!(
            (
                count_kept(&directory, 1..150),
                count_kept(&directory, 1000..1050)
            ),
            (149, 49)
        );
    }

    #[test]
    fn loaded_peers_are_unconfirmed() {
        let mut directory = directory();
        let row = |number, endpoint| Row {
            peer: peer(number),
            endpoints: vec![numbered_endpoint(endpoint)],
            source: PeerSource::Itself,
            last_report: 5,
            failures: 2,
        };
        directory.load(vec![row(7, 1), row(8, 2), row(0, 3)], |endpoint| {
            endpoint != numbered_endpoint(2)
        });
        let candidates = directory.candidates();
        assert_eq!(candidates.len(), 1);
        assert_eq!(
            (
                candidates[0].peer,
                candidates[0].confirmed_at,
                candidates[0].failures
            ),
            (peer(7), None, 2)
        );
        assert!(directory.take_changes().is_empty());
    }
}
