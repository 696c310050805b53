//! What is believed of peers, in memory: whose word counts more, and who is forgotten first.
//!
//! Reads no clock and no disk.

use crate::{messages::PeerSource, store::DialHistory};
use membership::peer_api::PeerReport;
use policies::{
    gain::PROBED_PER_REFRESH,
    names::{Endpoint, Prefix},
    observation::{Candidate, DEAD_FAILURES},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Most peers that are ever remembered.
pub const MAX_PEERS: usize = 1024;
/// So many are remembered in any case: enough that some of them live after a restart.
pub const LEAST_PEERS: usize = 200;
/// Most endpoints of one peer.
pub const MAX_ENDPOINTS: usize = 8;
/// So long a node's own word is better than anybody's, and the registry's better than another peer's.
const FIRST_HAND: Duration = Duration::from_secs(3600);

/// One peer as the disk keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The prefix of the peer.
    pub peer: Prefix,
    /// The endpoints, best first.
    pub endpoints: Vec<Endpoint>,
    /// The source of the endpoints.
    pub source: PeerSource,
    /// A sequence number: a peer reported later has a higher one.
    pub last_report: u64,
    /// Failed dials in a row.
    pub failures: u32,
}

/// What is to be written: the new state of each changed peer, `None` for a forgotten one.
pub type Changes = BTreeMap<Prefix, Option<Row>>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    endpoints: Vec<Endpoint>,
    source: PeerSource,
    last_report: u64,
    confirmed: Option<Uptime>,
    /// The time since which these are its endpoints; earlier failed dials do not concern them.
    since: Option<Uptime>,
    dials: DialHistory,
    /// The cost that the peer itself reported in this run; 0 until then.
    transit_cost: u16,
}

/// All known peers.
pub struct PeerDirectory {
    me: Prefix,
    peers: BTreeMap<Prefix, Known>,
    changed: BTreeSet<Prefix>,
    /// The sequence number of the last report.
    last: u64,
    /// Tunnels that we dial.
    tunnels: u16,
    /// Most nodes that were there at once, as far as we know.
    seen: usize,
}

/// Returns how many peers are worth remembering: as many as are probed while `tunnels` are
/// replaced one after the other (`docs/POLICY.md`), at most the number of known nodes; from
/// [`LEAST_PEERS`] to [`MAX_PEERS`].
fn room(tunnels: u16, seen: usize) -> usize {
    let probed = u32::from(tunnels).saturating_mul(PROBED_PER_REFRESH);
    usize::try_from(probed)
        .unwrap_or(usize::MAX)
        .min(seen)
        .clamp(LEAST_PEERS, MAX_PEERS)
}

impl Known {
    /// Returns whether the peer itself reported its endpoints in this run.
    fn is_first_hand(&self) -> bool {
        self.source == PeerSource::Itself && self.confirmed.is_some()
    }

    /// Whose word does not count against what is known.
    fn outweighs(&self, source: PeerSource, at: Uptime) -> bool {
        let lately = self
            .confirmed
            .is_some_and(|confirmed| at.since(confirmed) < FIRST_HAND);
        lately
            && match source {
                PeerSource::Itself => false,
                // Where a dial failed, the registry may know what has changed.
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
            changed: BTreeSet::new(),
            last: 0,
            tunnels,
            seen: 0,
        }
    }

    /// Sets the number of tunnels that are dialled from now on.
    pub fn set_tunnels(&mut self, tunnels: u16) {
        self.tunnels = tunnels;
        self.evict();
    }

    /// Takes note of the number of other nodes. A lower number may be temporary, and is no reason
    /// to drop peers.
    pub fn note_node_count(&mut self, nodes: usize) {
        self.seen = self.seen.max(nodes);
    }

    /// Takes over what the disk held; endpoints that `good` refuses are dropped.
    pub fn remember(&mut self, rows: Vec<Row>, good: impl Fn(Endpoint) -> bool) {
        self.note_node_count(rows.len());
        for row in rows {
            self.last = self.last.max(row.last_report);
            let endpoints: Vec<_> = row
                .endpoints
                .into_iter()
                .filter(|endpoint| good(*endpoint))
                .take(MAX_ENDPOINTS)
                .collect();
            if row.peer == self.me || endpoints.is_empty() {
                continue;
            }
            let dials = DialHistory {
                failures: row.failures,
                ..DialHistory::default()
            };
            let known = Known {
                endpoints,
                source: row.source,
                last_report: row.last_report,
                confirmed: None,
                since: None,
                dials,
                transit_cost: 0,
            };
            self.peers.insert(row.peer, known);
        }
        self.evict();
    }

    /// Takes over from a predecessor in this run what the disk does not hold: when it was confirmed, its price.
    pub fn resume(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            if let Some(known) = self.peers.get_mut(&candidate.peer) {
                known.confirmed = candidate.confirmed_at;
                known.transit_cost = candidate.transit_cost;
            }
        }
    }

    /// Takes reports about peers; returns whether anything changed.
    pub fn take(&mut self, source: PeerSource, at: Uptime, peers: Vec<PeerReport>) -> bool {
        let mut changed = false;
        for report in peers {
            if report.peer != self.me {
                changed |= self.take_one(source, at, report);
            }
        }
        self.evict();
        changed
    }

    fn take_one(&mut self, source: PeerSource, at: Uptime, report: PeerReport) -> bool {
        let PeerReport {
            peer,
            mut endpoints,
            transit_cost,
        } = report;
        endpoints.truncate(MAX_ENDPOINTS);
        let old = self.peers.get(&peer);
        let same = old.filter(|old| old.endpoints == endpoints);
        let news = same.is_none() || source == PeerSource::Gossip;
        if news && old.is_some_and(|old| old.outweighs(source, at)) {
            return false;
        }
        if endpoints.is_empty() {
            // A peer that cannot be dialled is no candidate. Only the peer itself can report that.
            let gone = source == PeerSource::Itself && self.peers.remove(&peer).is_some();
            self.changed.extend(gone.then_some(peer));
            return gone;
        }
        self.last += 1;
        let transit_cost = transit_cost
            .or(old.map(|old| old.transit_cost))
            .unwrap_or(0);
        // New endpoints deserve a new try; the same ones do not.
        let (since, dials) = same.map_or((Some(at), DialHistory::default()), |old| {
            (old.since, old.dials)
        });
        // A repetition of a peer's own report does not lower its rank.
        let source = same
            .filter(|old| old.is_first_hand())
            .map_or(source, |old| old.source);
        let known = Known {
            endpoints,
            source,
            last_report: self.last,
            confirmed: Some(at),
            since,
            dials,
            transit_cost,
        };
        self.peers.insert(peer, known);
        self.changed.insert(peer);
        true
    }

    /// Removes a peer; returns whether it was known.
    pub fn remove(&mut self, peer: Prefix) -> bool {
        let known = self.peers.remove(&peer).is_some();
        self.changed.extend(known.then_some(peer));
        known
    }

    /// Takes the history of dials; returns whether anything changed.
    pub fn dialled(&mut self, dials: &BTreeMap<Prefix, DialHistory>) -> bool {
        let mut changed = false;
        for (peer, dials) in dials {
            let Some(known) = self.peers.get_mut(peer) else {
                continue;
            };
            let old_endpoints = dials
                .failed
                .is_some_and(|failed| Some(failed) <= known.since);
            let dials = if old_endpoints {
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
                self.changed.insert(*peer);
                changed = true;
            }
        }
        changed
    }

    /// All peers, sorted; the endpoint that last came up is first.
    pub fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(peer, known): (&Prefix, &Known)| {
            let mut endpoints = known.endpoints.clone();
            endpoints.sort_by_key(|endpoint| known.dials.good != Some(*endpoint));
            let (failed, failures) = (known.dials.failed, known.dials.failures);
            let (confirmed, transit_cost) = (known.confirmed, known.transit_cost);
            Candidate {
                peer: *peer,
                endpoints,
                confirmed_at: confirmed,
                failed_at: failed,
                failures,
                transit_cost,
            }
        };
        self.peers.iter().map(candidate).collect()
    }

    /// Returns the changes since the last call.
    pub fn changes(&mut self) -> Changes {
        let row = |peer: Prefix| {
            let known = self.peers.get(&peer)?;
            Some(Row {
                peer,
                endpoints: known.endpoints.clone(),
                source: known.source,
                last_report: known.last_report,
                failures: known.dials.failures,
            })
        };
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|peer| (peer, row(peer)))
            .collect()
    }

    /// Those changes did not reach the disk: the next ones bring them again.
    pub fn unwritten(&mut self, changes: Changes) {
        self.changed.extend(changes.into_keys());
    }

    /// Drops surplus peers. Peers named only by others or by the registry fill half of the room at
    /// most.
    fn evict(&mut self) {
        let room = room(self.tunnels, self.seen);
        self.evict_above(room / 2, |known| known.source == PeerSource::Gossip);
        self.evict_above(room / 2, |known| known.source == PeerSource::Registry);
        self.evict_above(room, |_| true);
    }

    /// Keeps `limit` peers of that kind. Dead peers are dropped first, then those that did not report
    /// themselves in this run; among equals the one with most failed dials, then the one named
    /// longest ago.
    fn evict_above(&mut self, limit: usize, kind: impl Fn(&Known) -> bool) {
        let of_kind = self.peers.iter().filter(|(_, known)| kind(known));
        let mut order: Vec<_> = of_kind
            .map(|(peer, known)| {
                let failures = known.dials.failures;
                let (lives, worst) = (failures < DEAD_FAILURES, std::cmp::Reverse(failures));
                (
                    lives,
                    known.is_first_hand(),
                    worst,
                    known.last_report,
                    *peer,
                )
            })
            .collect();
        let excess = order.len().saturating_sub(limit);
        order.sort_unstable();
        for (.., peer) in order.into_iter().take(excess) {
            self.peers.remove(&peer);
            self.changed.insert(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn at(number: u32) -> Endpoint {
        format!("udp:45.67.{}.{}:1194", number / 256, number % 256)
            .parse()
            .unwrap()
    }

    fn directory() -> PeerDirectory {
        PeerDirectory::new(peer(0), 10)
    }

    /// Reports at that second, as `source`, that the peer can be dialled at those endpoints.
    #[track_caller]
    fn check(
        directory: &mut PeerDirectory,
        report: (PeerSource, u64, u32, &[u32]),
        changed: bool,
        known: &[(u32, &[u32])],
    ) {
        let (source, seconds, number, endpoints) = report;
        let endpoints = endpoints.iter().map(|number| at(*number)).collect();
        let report = PeerReport {
            peer: peer(number),
            endpoints,
            transit_cost: None,
        };
        let has_changed = directory.take(source, Uptime::from_secs(seconds), vec![report]);
        assert_eq!(has_changed, changed);
        let seen: Vec<_> = directory
            .candidates()
            .into_iter()
            .map(|c| (c.peer, c.endpoints))
            .collect();
        let known: Vec<(_, Vec<_>)> = known
            .iter()
            .map(|(n, e)| (peer(*n), e.iter().map(|n| at(*n)).collect()))
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
    fn a_nodes_own_report_counts_more_than_others_while_it_is_fresh_and_no_dial_failed() {
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
        assert!(directory.dialled(&[(peer(7), failed)].into()));
        report_7(&mut directory, (PeerSource::Registry, 6, 4), true, 4);
        report_7(&mut directory, (PeerSource::Gossip, 7, 3), false, 4);
        report_7(&mut directory, (PeerSource::Itself, 8, 2), true, 2);
        report_7(&mut directory, (PeerSource::Registry, 3608, 5), true, 5);
        report_7(&mut directory, (PeerSource::Gossip, 7208, 3), true, 3);
    }

    #[test]
    fn what_the_registry_repeats_stays_the_nodes_own_word() {
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
    fn a_cost_that_a_node_reported_outlives_reports_of_others_who_do_not_know_it() {
        let mut directory = directory();
        let mut price_after = |source, transit_cost| {
            let report = PeerReport {
                peer: peer(7),
                endpoints: vec![at(1)],
                transit_cost,
            };
            directory.take(source, Uptime::from_secs(1), vec![report]);
            directory.candidates()[0].transit_cost
        };
        assert_eq!(price_after(PeerSource::Registry, None), 0);
        assert_eq!(price_after(PeerSource::Itself, Some(10_000)), 10_000);
        assert_eq!(price_after(PeerSource::Registry, None), 10_000);
        assert_eq!(price_after(PeerSource::Itself, Some(0)), 0);
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
        assert_eq!(directory.changes(), [(peer(7), None)].into());
    }

    #[test]
    fn we_are_no_peer_of_our_own() {
        check(
            &mut directory(),
            (PeerSource::Registry, 1, 0, &[1]),
            false,
            &[],
        );
    }

    #[test]
    fn the_endpoint_that_came_up_is_first_and_new_endpoints_deserve_a_new_try() {
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
            good: Some(at(2)),
        };
        assert!(directory.dialled(&[(peer(7), dials)].into()));
        assert!(!directory.dialled(&[(peer(7), dials)].into()));
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
        directory.dialled(&[(peer(7), dials)].into());
        assert_eq!(directory.candidates()[0].failures, 0);
        let later = DialHistory {
            failures: 4,
            failed: Some(Uptime::from_secs(5)),
            good: None,
        };
        assert!(directory.dialled(&[(peer(7), later)].into()));
        assert_eq!(directory.candidates()[0].failures, 4);
    }

    #[test]
    fn as_many_are_worth_remembering_as_are_probed_while_all_tunnels_are_replaced() {
        for (tunnels, seen, expected) in [
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
                room(tunnels, seen),
                expected,
                "{tunnels} tunnels, {seen} nodes"
            );
        }
    }

    fn named(number: u32, endpoint: u32) -> PeerReport {
        PeerReport {
            peer: peer(number),
            endpoints: vec![at(endpoint)],
            transit_cost: None,
        }
    }

    fn some(numbers: std::ops::Range<u32>) -> Vec<PeerReport> {
        numbers.map(|number| named(number, number)).collect()
    }

    fn kept(directory: &PeerDirectory, numbers: std::ops::Range<u32>) -> usize {
        let of = |candidate: &Candidate| {
            numbers.contains(&candidate.peer.number())
                && candidate.endpoints == [at(candidate.peer.number())]
        };
        directory
            .candidates()
            .iter()
            .filter(|candidate| of(candidate))
            .count()
    }

    #[test]
    fn the_directory_follows_the_number_of_tunnels_and_of_nodes() {
        let mut directory = directory();
        directory.take(PeerSource::Itself, Uptime::from_secs(1), some(1..701));
        assert_eq!(directory.candidates().len(), 200);
        directory.note_node_count(5000);
        directory.note_node_count(3);
        directory.take(PeerSource::Itself, Uptime::from_secs(2), some(1..701));
        assert_eq!(
            (directory.candidates().len(), kept(&directory, 101..701)),
            (600, 600)
        );
        directory.set_tunnels(5);
        assert_eq!(
            (directory.candidates().len(), kept(&directory, 401..701)),
            (300, 300)
        );
    }

    #[test]
    fn peers_of_the_disk_are_kept_while_there_is_no_babel_table() {
        let row = |number| Row {
            peer: peer(number),
            endpoints: vec![at(number)],
            source: PeerSource::Itself,
            last_report: u64::from(number),
            failures: 0,
        };
        let mut directory = directory();
        directory.remember((1..501).map(row).collect(), |_| true);
        assert_eq!(kept(&directory, 1..501), 500);
    }

    #[test]
    fn gossip_fills_half_of_the_directory_at_most() {
        let mut directory = directory();
        directory.note_node_count(5000);
        directory.take(PeerSource::Registry, Uptime::from_secs(1), some(1..401));
        directory.take(PeerSource::Gossip, Uptime::from_secs(2), some(1000..4000));
        assert_eq!(
            (
                kept(&directory, 1..401),
                kept(&directory, 3700..4000),
                directory.candidates().len()
            ),
            (300, 300, 600)
        );
    }

    #[test]
    fn a_registry_that_lies_pushes_out_and_bends_nobody_who_spoke_for_itself() {
        let mut directory = directory();
        directory.note_node_count(5000);
        directory.take(PeerSource::Itself, Uptime::from_secs(1), some(1..551));
        let invented = |number: u32| named(number % 3000 + 1, number % 3000 + 10_000);
        for first in (0..6000u32).step_by(16) {
            directory.take(
                PeerSource::Registry,
                Uptime::from_secs(2),
                (first..first + 16).map(invented).collect(),
            );
        }
        assert_eq!(
            (kept(&directory, 1..551), directory.candidates().len()),
            (550, 600)
        );
    }

    #[test]
    fn a_registry_fills_half_of_an_empty_directory_at_most_and_leaves_room_for_first_hand_reports()
    {
        let mut directory = directory();
        directory.take(PeerSource::Registry, Uptime::from_secs(1), some(1..401));
        assert_eq!(
            (kept(&directory, 301..401), directory.candidates().len()),
            (100, 100)
        );
        directory.take(PeerSource::Itself, Uptime::from_secs(2), some(1000..1150));
        assert_eq!(
            (kept(&directory, 1000..1150), directory.candidates().len()),
            (150, 200)
        );
    }

    #[test]
    fn the_dead_are_kept_while_there_is_room_and_forgotten_first_when_there_is_none() {
        let mut directory = directory();
        directory.take(PeerSource::Itself, Uptime::from_secs(1), some(1..151));
        directory.take(PeerSource::Registry, Uptime::from_secs(1), some(1000..1050));
        let dials = |failures| DialHistory {
            failures,
            failed: Some(Uptime::from_secs(2)),
            good: None,
        };
        directory.dialled(&[(peer(150), dials(DEAD_FAILURES)), (peer(149), dials(1))].into());
        assert_eq!(
            (kept(&directory, 1..151), kept(&directory, 1000..1050)),
            (150, 50)
        );
        let dead: Vec<_> = directory
            .candidates()
            .iter()
            .filter(|c| c.is_dead())
            .map(|c| c.peer)
            .collect();
        assert_eq!(dead, [peer(150)]);
        // First the dead, though it spoke for itself; then who was only named.
        directory.take(PeerSource::Itself, Uptime::from_secs(3), some(500..501));
        assert_eq!(
            (
                kept(&directory, 1..150),
                kept(&directory, 150..151),
                kept(&directory, 1000..1050)
            ),
            (149, 0, 50)
        );
        directory.take(PeerSource::Itself, Uptime::from_secs(4), some(501..502));
        assert_eq!(
            (kept(&directory, 1..150), kept(&directory, 1000..1050)),
            (149, 49)
        );
    }

    #[test]
    fn peers_of_the_disk_are_loaded_as_unconfirmed() {
        let mut directory = directory();
        let row = |number, endpoint| Row {
            peer: peer(number),
            endpoints: vec![at(endpoint)],
            source: PeerSource::Itself,
            last_report: 5,
            failures: 2,
        };
        directory.remember(vec![row(7, 1), row(8, 2), row(0, 3)], |endpoint| {
            endpoint != at(2)
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
        assert!(directory.changes().is_empty());
    }
}
