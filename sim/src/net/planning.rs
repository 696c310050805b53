//! Builds the observation of each node, lets its planner decide, and carries out its orders.

use super::{Happened, Net};
use crate::{
    chance::sample,
    num::index,
    paths::{Paths, threads},
    space::span,
    tables::{self, endpoint, node_of, prefix},
};
use policies::{
    gain::{PROBED_PER_REFRESH, shortlist},
    names::Slot,
    observation::{Candidate, CandidateRtt, LinkReading, Observation, PeerRouteView},
    orders::{Decision, Order},
    rng::Rng,
    routes::RouteIndex,
    units::Uptime,
};
use std::collections::{BTreeMap, BTreeSet};

/// Candidates that a node's cache holds at most: as many as the daemon's.
const CACHED: usize = 1024;
/// A cache stays the same for so many rounds where it cannot hold all nodes.
const CACHE_ROUNDS: u64 = 10;

impl Net {
    /// Returns the observation of each node that plans: its table, and the round trips and answers since its last refresh.
    pub(super) fn observe(
        &self,
        due: &[u32],
        paths: &Paths,
        salt: u64,
    ) -> BTreeMap<u32, Observation> {
        let observations = self.parallel(due, |node| {
            let epoch = self.rounds / CACHE_ROUNDS;
            let mut rng = Rng::new(self.settings.seed ^ u64::from(node) << 20 ^ epoch << 44);
            let cached: Vec<_> = sample(&mut rng, paths.targets().len(), CACHED + 1)
                .into_iter()
                .filter_map(|at| paths.targets().get(at).copied())
                .filter(|peer| *peer != node)
                .collect();
            let measure = |peer: &u32| {
                let rtt = (!self.parted(node, *peer)).then(|| span(self.space.rtt(node, *peer)));
                Some(CandidateRtt {
                    peer: prefix(*peer)?,
                    at: self.now,
                    rtt,
                })
            };
            let mut strangers: Vec<_> = cached
                .iter()
                .filter(|peer| !self.overlay.connected(node, **peer))
                .collect();
            Rng::new(salt ^ u64::from(node) << 20).shuffle(&mut strangers);
            let candidate_rtts: Vec<_> = strangers
                .into_iter()
                .take(index(PROBED_PER_REFRESH))
                .filter_map(measure)
                .collect();
            let me = prefix(node)?;
            let table = tables::table(&self.overlay, node, paths);
            let own = RouteIndex::new(&table.routes, me, |_| true);
            let asked = shortlist(&own, &candidate_rtts, self.settings.cost);
            let views = asked
                .into_iter()
                .filter_map(|peer| tables::view(&self.overlay, node_of(peer), paths, self.now));
            let dialled_peers = self.overlay.dialled(node).filter_map(|at| {
                let peer = prefix(self.overlay.tunnel(at)?.acceptor)?;
                let loss = tables::loss(&self.overlay, at, paths, self.stands_for());
                let (room, accepted) = tables::welcome(&self.overlay, node_of(peer));
                Some(PeerRouteView {
                    peer,
                    at: self.now,
                    accepts_tunnels: room,
                    accepted,
                    regret: loss,
                    distances: Vec::new(),
                })
            });
            let views = views.chain(dialled_peers).collect();
            let candidates = cached
                .into_iter()
                .filter_map(|peer| self.candidate(node, peer))
                .collect();
            let probes = Vec::new();
            let (links, free_slots) = self.links(node);
            let babel = Some(table.into());
            Some((
                node,
                Observation {
                    at: self.now,
                    links,
                    babel,
                    probes,
                    candidates,
                    candidate_rtts,
                    views,
                    free_slots,
                    punched: Vec::new(),
                },
            ))
        });
        observations.into_iter().collect()
    }

    fn candidate(&self, node: u32, peer: u32) -> Option<Candidate> {
        let failed = self
            .failed
            .get(index(node))
            .and_then(|failed| failed.get(&peer))
            .copied();
        Some(Candidate {
            peer: prefix(peer)?,
            endpoints: vec![endpoint(peer)],
            on_lan: 0,
            confirmed_at: Some(self.now),
            failed_at: failed.map(|(at, _)| at),
            failures: failed.map_or(0, |(_, times)| times),
            transit_cost: 0,
        })
    }

    fn links(&self, node: u32) -> (Vec<LinkReading>, Vec<Slot>) {
        let links = tables::links(&self.overlay, node);
        let taken: BTreeSet<_> = links.iter().map(|link| link.tunnel.slot).collect();
        let slots = u16::try_from(self.overlay.limits().dial + 2).unwrap_or(u16::MAX);
        let free = (0..slots)
            .map(Slot::Dialling)
            .filter(|slot| !taken.contains(slot))
            .collect();
        (links, free)
    }

    /// Replaces the tables by those after babeld has moved its routes off the draining tunnels.
    pub(super) fn renew(
        &self,
        nodes: &[u32],
        observations_of: &mut BTreeMap<u32, Observation>,
        paths: &Paths,
    ) {
        let tables = self.parallel(nodes, |node| {
            Some(tables::table(&self.overlay, node, paths))
        });
        for (node, table) in nodes.iter().zip(tables) {
            if let Some(observation) = observations_of.get_mut(node) {
                observation.babel = Some(table.into());
            }
        }
    }

    /// Dialled tunnels that are not under drain.
    pub(super) fn dialled_that_stay(&self, node: u32) -> usize {
        let stays = |at: &u32| {
            self.overlay
                .tunnel(*at)
                .is_some_and(|tunnel| tunnel.draining.is_none())
        };
        self.overlay.dialled(node).filter(stays).count()
    }

    /// The nodes plan on their observations of this moment, and their orders are carried out; tunnels
    /// that start to drain or are to be closed are added to `draining_or_closed`.
    pub(super) fn plan(
        &mut self,
        nodes: &[u32],
        observations_of: &mut BTreeMap<u32, Observation>,
        at: Uptime,
        draining_or_closed: &mut Vec<u32>,
        happened: &mut Happened,
    ) {
        let mut planning = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(observation) = observations_of.remove(node) else {
                continue;
            };
            if let Some(planner) = self.planners.get_mut(index(*node)).and_then(Option::take) {
                planning.push(((*node, planner, observation), Vec::new()));
            }
        }
        let part = planning.len().div_ceil(threads()).max(1);
        let net = &*self;
        std::thread::scope(|scope| {
            for part in planning.chunks_mut(part) {
                scope.spawn(move || {
                    for ((node, planner, observation), decisions) in part {
                        observation.at = at;
                        (observation.links, observation.free_slots) = net.links(*node);
                        let reached = net.reached.get(index(*node)).copied().unwrap_or_default();
                        *decisions = planner.plan(observation, reached).decisions;
                    }
                });
            }
        });
        for ((node, planner, mut observation), decisions) in planning {
            if let Some(place) = self.planners.get_mut(index(node)) {
                *place = Some(planner);
            }
            for decision in decisions {
                let tried = self.obey(node, decision, draining_or_closed, happened);
                let candidate = tried.and_then(|peer| self.candidate(node, peer));
                if let Some(candidate) = candidate {
                    let same = |other: &&mut Candidate| other.peer == candidate.peer;
                    if let Some(place) = observation.candidates.iter_mut().find(same) {
                        *place = candidate;
                    }
                }
            }
            observations_of.insert(node, observation);
        }
    }

    /// Carries an order out; gives the peer that could not be dialled.
    fn obey(
        &mut self,
        node: u32,
        decision: Decision,
        draining_or_closed: &mut Vec<u32>,
        happened: &mut Happened,
    ) -> Option<u32> {
        let now = self.now;
        match decision.order {
            Order::Open {
                slot: Slot::Dialling(slot),
                peer,
                ..
            } => {
                let peer = node_of(peer);
                happened.dials += 1;
                let free = self.lives(peer) && !self.parted(node, peer);
                if free && self.overlay.dial_on(&self.space, node, slot, peer, now) {
                    self.failed.get_mut(index(node))?.remove(&peer);
                    return None;
                }
                happened.refused += u64::from(free && !self.overlay.has_room(peer));
                let failed = self
                    .failed
                    .get_mut(index(node))?
                    .entry(peer)
                    .or_insert((now, 0));
                *failed = (now, failed.1 + 1);
                Some(peer)
            }
            Order::Drain { slot, reason } => {
                let at = self.tunnel_at(node, slot)?;
                self.overlay.set_draining(at, Some((now, reason)));
                let start = self.starts.get(index(node)).copied().unwrap_or_default();
                self.closings
                    .entry((node, start, slot))
                    .or_default()
                    .push(now);
                draining_or_closed.push(at);
                None
            }
            Order::Undrain { slot, .. } => {
                self.overlay.set_draining(self.tunnel_at(node, slot)?, None);
                happened.given_up += 1;
                None
            }
            Order::Close { slot, .. } => {
                draining_or_closed.extend(self.tunnel_at(node, slot));
                None
            }
            Order::Open {
                slot: Slot::Accepting(..),
                ..
            } => None,
        }
    }

    fn tunnel_at(&self, node: u32, slot: Slot) -> Option<u32> {
        let here = |at: &u32| {
            self.overlay
                .tunnel(*at)
                .is_some_and(|t| tables::slot(t, node) == slot)
        };
        self.overlay.dialled(node).find(here)
    }

    /// Works on the nodes with all threads; results in the order of the nodes.
    fn parallel<T: Send>(&self, nodes: &[u32], work: impl Fn(u32) -> Option<T> + Sync) -> Vec<T> {
        let part = nodes.len().div_ceil(threads()).max(1);
        let work = &work;
        std::thread::scope(|scope| {
            let some = |part: &[u32]| {
                part.iter()
                    .filter_map(|node| work(*node))
                    .collect::<Vec<_>>()
            };
            let running: Vec<_> = nodes
                .chunks(part)
                .map(|part| scope.spawn(move || some(part)))
                .collect();
            running
                .into_iter()
                .flat_map(|thread| thread.join().unwrap_or_default())
                .collect()
        })
    }
}
