//! Sorts a world for the planner: who is reached by which slot, and who could be dialled.
//!
//! Everything is keyed and ordered, so that the order of entries in a reading decides nothing.

use super::losses::Losses;
use crate::{
    gain::{Gain, Measurements, underlay_area},
    link_cost::LinkCost,
    names::{Prefix, Role, Slot},
    observation::{Candidate, INFINITY, LinkReading, Observation, Phase},
    routes::RouteIndex,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How a world is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lens {
    pub(super) link_cost: LinkCost,
    /// So many nodes are meant by each node of babeld's table: one, but where it is a sample.
    pub(super) stands_for: u32,
}

/// One world, sorted.
pub(super) struct Picture<'w> {
    pub(super) at: Uptime,
    pub(super) tunnels: BTreeMap<Slot, &'w LinkReading>,
    pub(super) candidates: BTreeMap<Prefix, &'w Candidate>,
    pub(super) free: BTreeSet<Slot>,
    /// Whether babeld told us anything; without it nothing is closed.
    pub(super) told: bool,
    /// Nodes that babeld has a finite route to, and by which slots.
    pub(super) ways: RouteIndex,
    /// What the neighbour on the slot says its receiving from us costs.
    pub(super) far_cost: BTreeMap<Slot, u16>,
    /// What was measured and asked of others.
    pub(super) measurements: Measurements<'w>,
    /// How much tunnels lose, where it is known.
    pub(super) losses: BTreeMap<Slot, Losses>,
    link_cost: LinkCost,
    /// Who is at the other end of a tunnel of either role, in whatever phase; sorted.
    peers: Vec<Prefix>,
    /// The parts of the underlay that tunnels lead into; sorted.
    parts: Vec<(bool, u32)>,
}

impl<'w> Picture<'w> {
    /// Measurements older than `fresh` are left out.
    pub(super) fn of(world: &'w Observation, me: Prefix, lens: Lens, fresh: Duration) -> Self {
        let tunnels: BTreeMap<_, _> = world
            .links
            .iter()
            .map(|link| (link.tunnel.slot, link))
            .collect();
        let stays = |slot: Slot| {
            tunnels
                .get(&slot)
                .is_some_and(|link| link.tunnel.phase == Phase::Up)
        };
        let table = world.babel.as_ref();
        let ways = table
            .map(|table| RouteIndex::new(&table.routes, me, stays))
            .unwrap_or_default();
        let ways = ways.sampled(lens.stands_for);
        let dialable =
            |candidate: &&Candidate| candidate.peer != me && !candidate.endpoints.is_empty();
        let mut far_cost = BTreeMap::new();
        for neighbour in table.iter().flat_map(|table| &table.neighbours) {
            let cost = far_cost.entry(neighbour.slot).or_insert(INFINITY);
            *cost = neighbour.txcost.min(*cost);
        }
        let candidates = world.candidates.iter().filter(dialable);
        let mut peers: Vec<_> = tunnels.values().map(|link| link.tunnel.peer).collect();
        peers.sort_unstable();
        let endpoints = tunnels
            .values()
            .filter_map(|link| link.tunnel.endpoint.as_ref());
        let mut parts: Vec<_> = endpoints.map(underlay_area).collect();
        parts.sort_unstable();
        let losses = world
            .probes
            .iter()
            .filter_map(|probe| Some((probe.slot, Losses::of(probe)?)));
        Self {
            at: world.at,
            candidates: candidates
                .map(|candidate| (candidate.peer, candidate))
                .collect(),
            free: world
                .free_slots
                .iter()
                .copied()
                .filter(|slot| slot.role() == Role::Dialled)
                .collect(),
            told: table.is_some(),
            ways,
            far_cost,
            measurements: Measurements::new(&world.candidate_rtts, &world.views, world.at, fresh),
            losses: losses.collect(),
            link_cost: lens.link_cost,
            peers,
            parts,
            tunnels,
        }
    }

    /// How many nodes are reached by the slot.
    pub(super) fn nodes_served(&self, slot: Slot) -> usize {
        self.ways.service(slot).nodes
    }

    /// A node that would be out of reach without the slot: it has a finite route by it, and none by
    /// another slot whose tunnel is up and stays.
    pub(super) fn only_route(&self, slot: Slot) -> Option<Prefix> {
        self.ways.service(slot).only_route
    }

    /// Dialled tunnels that are not closing, in order of their slots.
    pub(super) fn dialled(&self) -> impl Iterator<Item = &'w LinkReading> + '_ {
        self.tunnels.values().copied().filter(|link| {
            link.tunnel.role() == Role::Dialled
                && match link.tunnel.phase {
                    Phase::Connecting | Phase::Up | Phase::Draining { .. } => true,
                    Phase::Closing => false,
                }
        })
    }

    /// Whether a tunnel of either role to `peer` exists, in whatever phase.
    pub(super) fn has_tunnel_to(&self, peer: Prefix) -> bool {
        self.peers.binary_search(&peer).is_ok()
    }

    /// Whether the peer carries others' traffic at no price, as far as it has said.
    pub(super) fn carries(&self, peer: Prefix) -> bool {
        self.candidates
            .get(&peer)
            .is_none_or(|candidate| candidate.transit_cost == 0)
    }

    /// What a tunnel to the candidate would bring; half where another one leads into the same part of
    /// the underlay.
    pub(super) fn gain(&self, candidate: &Candidate) -> Option<Gain> {
        let gain = self
            .measurements
            .gain(&self.ways, candidate.peer, self.link_cost)?;
        let there = candidate.endpoints.first().map(underlay_area);
        let near_another = there.is_some_and(|there| self.parts.binary_search(&there).is_ok());
        let total = if near_another {
            gain.total / 2
        } else {
            gain.total
        };
        Some(Gain {
            total,
            near_another,
            ..gain
        })
    }
}
