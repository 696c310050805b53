//! What is believed of peers, in memory: whose word counts more, and who is forgotten first.
//!
//! Reads no clock and no disk.

use crate::{messages::PeerSource, store::DialHistory};
use policies::{
    names::{Endpoint, Prefix},
    units::Uptime,
    world::Candidate,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Most peers that are remembered.
pub const MOST_PEERS: usize = 1024;
/// Most peers that are remembered on other peers' word: one liar cannot push out all others.
pub const MOST_GOSSIP: usize = MOST_PEERS / 2;
/// Most endpoints of one peer.
pub const MOST_ENDPOINTS: usize = 8;
/// So long a node's own word, or the registry's, is better than another peer's.
const FIRST_HAND: Duration = Duration::from_secs(3600);

/// One peer as the disk keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who.
    pub peer: Prefix,
    /// Where, best first.
    pub endpoints: Vec<Endpoint>,
    /// By whom we know.
    pub source: PeerSource,
    /// A peer heard of later has a higher number.
    pub heard: u64,
    /// Failed dials in a row.
    pub failures: u32,
}

/// What is to be written: the new state of each changed peer, `None` for a forgotten one.
pub type Changes = BTreeMap<Prefix, Option<Row>>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    endpoints: Vec<Endpoint>,
    source: PeerSource,
    heard: u64,
    confirmed: Option<Uptime>,
    /// Since when these are its endpoints; dials that failed before say nothing of them.
    since: Option<Uptime>,
    dials: DialHistory,
}

/// All peers.
pub struct Book {
    me: Prefix,
    peers: BTreeMap<Prefix, Known>,
    changed: BTreeSet<Prefix>,
    /// Number of the last that was heard.
    last: u64,
}

impl Book {
    /// An empty book of the node `me`.
    pub fn new(me: Prefix) -> Self {
        Self { me, peers: BTreeMap::new(), changed: BTreeSet::new(), last: 0 }
    }

    /// Takes over what the disk held; endpoints that `good` refuses are dropped.
    pub fn remember(&mut self, rows: Vec<Row>, good: impl Fn(Endpoint) -> bool) {
        for row in rows {
            self.last = self.last.max(row.heard);
            let endpoints: Vec<_> =
                row.endpoints.into_iter().filter(|endpoint| good(*endpoint)).take(MOST_ENDPOINTS).collect();
            if row.peer == self.me || endpoints.is_empty() {
                continue;
            }
            let dials = DialHistory { failures: row.failures, ..DialHistory::default() };
            let known = Known {
                endpoints,
                source: row.source,
                heard: row.heard,
                confirmed: None,
                since: None,
                dials,
            };
            self.peers.insert(row.peer, known);
        }
        self.evict();
    }

    /// Takes over from a predecessor in this run what the disk does not hold: when it was confirmed.
    pub fn resume(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            if let Some(known) = self.peers.get_mut(&candidate.peer) {
                known.confirmed = candidate.confirmed;
            }
        }
    }

    /// Somebody told us of peers; says whether anything has changed.
    pub fn heard(&mut self, source: PeerSource, at: Uptime, peers: Vec<(Prefix, Vec<Endpoint>)>) -> bool {
        let mut changed = false;
        for (peer, endpoints) in peers {
            if peer != self.me {
                changed |= self.hear(source, at, peer, endpoints);
            }
        }
        self.evict();
        changed
    }

    fn hear(&mut self, source: PeerSource, at: Uptime, peer: Prefix, mut endpoints: Vec<Endpoint>) -> bool {
        endpoints.truncate(MOST_ENDPOINTS);
        let old = self.peers.get(&peer);
        let first_hand = old.is_some_and(|old| {
            old.source != PeerSource::Gossip
                && old.confirmed.is_some_and(|confirmed| at.since(confirmed) < FIRST_HAND)
        });
        if source == PeerSource::Gossip && first_hand {
            return false;
        }
        if endpoints.is_empty() {
            // Who cannot be dialled is no candidate. Only the node itself can say so.
            let gone = source == PeerSource::Itself && self.peers.remove(&peer).is_some();
            self.changed.extend(gone.then_some(peer));
            return gone;
        }
        self.last += 1;
        // New endpoints deserve a new try; the same ones do not.
        let same = old.filter(|old| old.endpoints == endpoints);
        let (since, dials) = same.map_or((Some(at), DialHistory::default()), |old| (old.since, old.dials));
        let known = Known { endpoints, source, heard: self.last, confirmed: Some(at), since, dials };
        self.peers.insert(peer, known);
        self.changed.insert(peer);
        true
    }

    /// Forgets a peer, as if it had never been heard of; says whether it was known.
    pub fn forget(&mut self, peer: Prefix) -> bool {
        let known = self.peers.remove(&peer).is_some();
        self.changed.extend(known.then_some(peer));
        known
    }

    /// How dialling went; says whether anything has changed.
    pub fn dialled(&mut self, dials: &BTreeMap<Prefix, DialHistory>) -> bool {
        let mut changed = false;
        for (peer, dials) in dials {
            let Some(known) = self.peers.get_mut(peer) else { continue };
            let old_endpoints = dials.failed.is_some_and(|failed| Some(failed) <= known.since);
            let dials = if old_endpoints {
                DialHistory { failures: 0, failed: None, good: dials.good }
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
            Candidate { peer: *peer, endpoints, confirmed: known.confirmed, failed, failures }
        };
        self.peers.iter().map(candidate).collect()
    }

    /// What has changed since the last call.
    pub fn changes(&mut self) -> Changes {
        let row = |peer: Prefix| {
            let known = self.peers.get(&peer)?;
            Some(Row {
                peer,
                endpoints: known.endpoints.clone(),
                source: known.source,
                heard: known.heard,
                failures: known.dials.failures,
            })
        };
        std::mem::take(&mut self.changed).into_iter().map(|peer| (peer, row(peer))).collect()
    }

    /// Those changes did not reach the disk: the next ones bring them again.
    pub fn unwritten(&mut self, changes: Changes) {
        self.changed.extend(changes.into_keys());
    }

    /// Forgets what is too much: hearsay first, then whoever it may be.
    fn evict(&mut self) {
        let hearsay = |known: &Known| known.source == PeerSource::Gossip;
        self.evict_above(MOST_GOSSIP, hearsay);
        self.evict_above(MOST_PEERS, |_| true);
    }

    /// Leaves `most` of that kind: forgets whom dialling failed most, then who was named longest ago.
    fn evict_above(&mut self, most: usize, kind: impl Fn(&Known) -> bool) {
        let of_kind = self.peers.iter().filter(|(_, known)| kind(known));
        let mut order: Vec<_> = of_kind
            .map(|(peer, known)| (std::cmp::Reverse(known.dials.failures), known.heard, *peer))
            .collect();
        let excess = order.len().saturating_sub(most);
        order.sort_unstable();
        for (_, _, peer) in order.into_iter().take(excess) {
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
        format!("udp:45.67.{}.{}:1194", number / 256, number % 256).parse().unwrap()
    }

    fn book() -> Book {
        Book::new(peer(0))
    }

    /// Lets `source` say at that second that the peer can be dialled at those endpoints.
    #[track_caller]
    fn check(book: &mut Book, said: (PeerSource, u64, u32, &[u32]), changed: bool, known: &[(u32, &[u32])]) {
        let (source, seconds, number, endpoints) = said;
        let endpoints = endpoints.iter().map(|number| at(*number)).collect();
        let heard = book.heard(source, Uptime::from_secs(seconds), vec![(peer(number), endpoints)]);
        assert_eq!(heard, changed);
        let seen: Vec<_> = book.candidates().into_iter().map(|c| (c.peer, c.endpoints)).collect();
        let known: Vec<(_, Vec<_>)> =
            known.iter().map(|(n, e)| (peer(*n), e.iter().map(|n| at(*n)).collect())).collect();
        assert_eq!(seen, known);
    }

    #[test]
    fn a_nodes_own_word_counts_more_than_another_peers() {
        let mut book = book();
        check(&mut book, (PeerSource::Gossip, 1, 7, &[1]), true, &[(7, &[1])]);
        check(&mut book, (PeerSource::Itself, 2, 7, &[2]), true, &[(7, &[2])]);
        check(&mut book, (PeerSource::Gossip, 3, 7, &[3]), false, &[(7, &[2])]);
        check(&mut book, (PeerSource::Registry, 4, 7, &[4]), true, &[(7, &[4])]);
        check(&mut book, (PeerSource::Gossip, 3604, 7, &[3]), true, &[(7, &[3])]);
    }

    #[test]
    fn only_a_node_itself_can_say_that_it_cannot_be_dialled() {
        let mut book = book();
        check(&mut book, (PeerSource::Registry, 1, 7, &[1]), true, &[(7, &[1])]);
        check(&mut book, (PeerSource::Gossip, 2, 7, &[]), false, &[(7, &[1])]);
        check(&mut book, (PeerSource::Registry, 2, 7, &[]), false, &[(7, &[1])]);
        check(&mut book, (PeerSource::Itself, 2, 7, &[]), true, &[]);
        assert_eq!(book.changes(), [(peer(7), None)].into());
    }

    #[test]
    fn we_are_no_peer_of_our_own() {
        check(&mut book(), (PeerSource::Registry, 1, 0, &[1]), false, &[]);
    }

    #[test]
    fn the_endpoint_that_came_up_is_first_and_new_endpoints_deserve_a_new_try() {
        let mut book = book();
        check(&mut book, (PeerSource::Itself, 1, 7, &[1, 2]), true, &[(7, &[1, 2])]);
        let failed = Some(Uptime::from_secs(2));
        let dials = DialHistory { failures: 3, failed, good: Some(at(2)) };
        assert!(book.dialled(&[(peer(7), dials)].into()));
        assert!(!book.dialled(&[(peer(7), dials)].into()));
        check(&mut book, (PeerSource::Itself, 3, 7, &[1, 2]), true, &[(7, &[2, 1])]);
        assert_eq!(book.candidates()[0].failures, 3);
        check(&mut book, (PeerSource::Itself, 4, 7, &[3]), true, &[(7, &[3])]);
        book.dialled(&[(peer(7), dials)].into());
        assert_eq!(book.candidates()[0].failures, 0);
        let later = DialHistory { failures: 4, failed: Some(Uptime::from_secs(5)), good: None };
        assert!(book.dialled(&[(peer(7), later)].into()));
        assert_eq!(book.candidates()[0].failures, 4);
    }

    #[test]
    fn hearsay_fills_half_of_the_book_at_most_and_the_dead_go_first() {
        let mut book = book();
        let some = |range: std::ops::Range<u32>| range.map(|n| (peer(n), vec![at(n)])).collect();
        book.heard(PeerSource::Registry, Uptime::from_secs(1), some(1..601));
        let dead = DialHistory { failures: 9, ..DialHistory::default() };
        book.dialled(&[(peer(600), dead)].into());
        book.heard(PeerSource::Gossip, Uptime::from_secs(2), some(1000..4000));
        let kept = |from: u32, to: u32| {
            book.candidates().iter().filter(|c| (from..to).contains(&c.peer.number())).count()
        };
        assert_eq!(book.candidates().len(), MOST_PEERS);
        assert_eq!(kept(1000, 4000), MOST_GOSSIP);
        assert_eq!(kept(1, 601), MOST_PEERS - MOST_GOSSIP);
        assert_eq!(kept(600, 601), 0);
        assert_eq!(kept(3000, 4000), MOST_GOSSIP);
    }

    #[test]
    fn what_the_disk_held_is_taken_over_without_a_moment_of_confirmation() {
        let mut book = book();
        let row = |number, endpoint| Row {
            peer: peer(number),
            endpoints: vec![at(endpoint)],
            source: PeerSource::Itself,
            heard: 5,
            failures: 2,
        };
        book.remember(vec![row(7, 1), row(8, 2), row(0, 3)], |endpoint| endpoint != at(2));
        let candidates = book.candidates();
        assert_eq!(candidates.len(), 1);
        assert_eq!((candidates[0].peer, candidates[0].confirmed, candidates[0].failures), (peer(7), None, 2));
        assert!(book.changes().is_empty());
    }
}
