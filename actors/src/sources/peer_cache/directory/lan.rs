//! The peers on the LANs of this host. Their addresses there mean other hosts elsewhere, so they are neither written to disk nor sent
//! to other nodes.

use super::{KnownPeer, PeerDirectory};
use crate::{
    messages::{LanPeer, PeerSource},
    store::DialHistory,
};
use policies::{
    names::{Endpoint, Prefix},
    units::Uptime,
};
use std::collections::BTreeMap;

/// Where a peer answers on a LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OnLan {
    endpoints: Vec<Endpoint>,
    /// When it last answered.
    pub(super) answered_at: Uptime,
}

impl KnownPeer {
    pub(super) fn lan_endpoints(&self) -> &[Endpoint] {
        self.on_lan
            .as_ref()
            .map(|on_lan| on_lan.endpoints.as_slice())
            .unwrap_or_default()
    }

    /// Returns whether anybody reported endpoints of the peer, so that it is known without the LAN, too.
    pub(super) fn is_reported(&self) -> bool {
        !self.endpoints.is_empty()
    }
}

impl PeerDirectory {
    /// Replaces the peers on LANs; returns whether an endpoint is new or gone.
    pub fn set_lan(&mut self, at: Uptime, nodes: &BTreeMap<Prefix, LanPeer>) -> bool {
        let mut changed = false;
        let dialable = nodes.iter().filter(|(_, node)| !node.endpoints.is_empty());
        for (peer, node) in dialable.filter(|(peer, _)| **peer != self.me) {
            let known = self.peers.entry(*peer).or_insert_with(unreported);
            if known.lan_endpoints() != node.endpoints {
                changed = true;
                // Earlier failed dials concern other endpoints.
                known.endpoints_since = Some(at);
                known.dials = DialHistory::default();
            }
            known.on_lan = Some(OnLan {
                endpoints: node.endpoints.clone(),
                answered_at: node.answered_at,
            });
        }
        let is_on_lan = |peer: &Prefix| {
            nodes
                .get(peer)
                .is_some_and(|node| !node.endpoints.is_empty())
        };
        for (peer, known) in &mut self.peers {
            if !is_on_lan(peer) {
                changed |= known.on_lan.take().is_some();
            }
        }
        self.peers
            .retain(|_, known| known.is_reported() || known.on_lan.is_some());
        self.evict();
        changed
    }

    /// Removes the endpoints that were reported of a peer; returns whether there were any.
    pub(super) fn remove_reported(&mut self, peer: Prefix) -> bool {
        let Some(known) = self.peers.get_mut(&peer) else {
            return false;
        };
        let was_reported = known.is_reported();
        known.endpoints.clear();
        if known.on_lan.is_none() {
            self.peers.remove(&peer);
        }
        self.unwritten.extend(was_reported.then_some(peer));
        was_reported
    }
}

/// A peer that is known from a LAN only; any report about it counts.
fn unreported() -> KnownPeer {
    KnownPeer {
        endpoints: Vec::new(),
        on_lan: None,
        source: PeerSource::Gossip,
        last_report: 0,
        confirmed_at: None,
        endpoints_since: None,
        dials: DialHistory::default(),
        transit_cost: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use membership::peer_api::PeerReport;

    const PUBLIC: &str = "udp:45.67.0.1:1194";
    const LAN: &str = "udp:192.168.1.7:1194";

    fn prefix(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn at(second: u64) -> Uptime {
        Uptime::from_secs(second)
    }

    /// A directory that knows the endpoint on the internet of node 7.
    fn directory() -> PeerDirectory {
        let mut directory = PeerDirectory::new(prefix(0), 10);
        report(&mut directory, &[PUBLIC]);
        directory.take_changes();
        directory
    }

    fn report(directory: &mut PeerDirectory, endpoints: &[&str]) {
        let report = PeerReport {
            peer: prefix(7),
            endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
            transit_cost: None,
        };
        directory.apply_reports(PeerSource::Itself, at(1), vec![report]);
    }

    fn lan(nodes: &[(u32, &[&str])]) -> BTreeMap<Prefix, LanPeer> {
        let node = |(number, endpoints): &(u32, &[&str])| {
            let peer = LanPeer {
                links: vec!["eth0".to_owned()],
                endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
                answered_at: at(9),
            };
            (prefix(*number), peer)
        };
        nodes.iter().map(node).collect()
    }

    /// Replaces the peers on LANs, and compares whether that changed anything and which endpoints are known, those on a LAN first.
    #[track_caller]
    fn check(
        directory: &mut PeerDirectory,
        nodes: &[(u32, &[&str])],
        changed: bool,
        expected: &[(u32, usize, &[&str])],
    ) {
        assert_eq!(directory.set_lan(at(10), &lan(nodes)), changed);
        let candidates = directory.candidates();
        let seen: Vec<_> = candidates
            .iter()
            .map(|candidate| {
                let endpoints = candidate.endpoints.iter().map(ToString::to_string);
                (
                    candidate.peer.number(),
                    candidate.on_lan,
                    endpoints.collect(),
                )
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(number, on_lan, endpoints)| {
                let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
                (*number, *on_lan, endpoints)
            })
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn endpoints_on_a_lan_come_first_and_go_with_it() {
        let mut directory = directory();
        let both: (u32, usize, &[&str]) = (7, 1, &[LAN, PUBLIC]);
        check(&mut directory, &[(7, &[LAN])], true, &[both]);
        check(&mut directory, &[(7, &[LAN])], false, &[both]);
        let known_to_both: (u32, usize, &[&str]) = (7, 1, &[PUBLIC]);
        check(&mut directory, &[(7, &[PUBLIC])], true, &[known_to_both]);
        check(&mut directory, &[], true, &[(7, 0, &[PUBLIC])]);
        check(
            &mut directory,
            &[(7, &[]), (0, &[LAN])],
            false,
            &[(7, 0, &[PUBLIC])],
        );
        assert!(directory.take_changes().is_empty());
    }

    #[test]
    fn a_peer_that_only_a_lan_shows_is_a_candidate_and_not_written_to_disk() {
        let mut directory = directory();
        report(&mut directory, &[]);
        assert_eq!(directory.take_changes(), [(prefix(7), None)].into());
        check(&mut directory, &[(7, &[LAN])], true, &[(7, 1, &[LAN])]);
        assert_eq!(directory.candidates()[0].confirmed_at, Some(at(9)));
        assert!(directory.take_changes().is_empty());
        report(&mut directory, &[PUBLIC]);
        check(
            &mut directory,
            &[(7, &[LAN])],
            false,
            &[(7, 1, &[LAN, PUBLIC])],
        );
        report(&mut directory, &[]);
        check(&mut directory, &[(7, &[LAN])], false, &[(7, 1, &[LAN])]);
        check(&mut directory, &[], true, &[]);
    }

    #[test]
    fn failed_dials_elsewhere_do_not_count_on_a_lan() {
        let mut directory = directory();
        let failed = DialHistory {
            failures: 5,
            failed: Some(at(5)),
            good: None,
        };
        let dials = [(prefix(7), failed)].into();
        directory.update_dials(&dials);
        check(
            &mut directory,
            &[(7, &[LAN])],
            true,
            &[(7, 1, &[LAN, PUBLIC])],
        );
        directory.update_dials(&dials);
        assert_eq!(directory.candidates()[0].failures, 0);
    }
}
