//! Arranges an observation for the planner: which slot leads to which node, and which peers could be dialled.
//!
//! Everything is keyed and ordered, so that the order of entries in a reading decides nothing.

use super::loss_ratio::LossRatio;
use crate::{
    gain::{Gain, Measurements, underlay_area},
    link_cost::LinkCost,
    names::{Prefix, Role, Slot},
    observation::{
        BabelTable, Candidate, CandidateRtt, INFINITY, LinkReading, Observation, Phase, PunchedPath,
    },
    routes::RouteIndex,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The settings by which an observation is interpreted.
#[derive(Clone, Copy, Debug)]
pub(super) struct ViewSettings {
    /// The cost of links by their round trip.
    pub(super) link_cost: LinkCost,
    /// Number of nodes that each node of babeld's table stands for: one, unless the table is a sample.
    pub(super) nodes_per_entry: u32,
}

/// One observation, arranged.
pub(super) struct Snapshot<'o> {
    pub(super) at: Uptime,
    pub(super) tunnels: BTreeMap<Slot, &'o LinkReading>,
    pub(super) candidates: BTreeMap<Prefix, &'o Candidate>,
    /// Dialling slots that may take a new tunnel.
    pub(super) free: BTreeSet<Slot>,
    /// Paths to peers behind NATs that were opened lately.
    pub(super) punched: &'o [PunchedPath],
    /// Whether babeld answers; if it does not, no tunnel is closed.
    pub(super) is_table_known: bool,
    /// The nodes that babeld has a finite route to, and by which slots.
    pub(super) routes: RouteIndex,
    /// The cost at which the neighbour on the slot receives from this node, by its announcement.
    pub(super) far_cost: BTreeMap<Slot, u16>,
    /// Round trips and route views of other nodes.
    pub(super) measurements: Measurements<'o>,
    /// The loss ratio of tunnels for which it is known.
    pub(super) loss_ratios: BTreeMap<Slot, LossRatio>,
    /// When peers that have a tunnel last answered by UDP.
    pub(super) udp_answers: BTreeMap<Prefix, Uptime>,
    /// What babeld makes a link cost.
    pub(super) link_cost: LinkCost,
    /// The peers of all tunnels of either role, in whatever phase; sorted.
    peers: Vec<Prefix>,
    /// The areas of the underlay that tunnels lead into; sorted.
    areas: Vec<(bool, u32)>,
}

impl<'o> Snapshot<'o> {
    /// Arranges the observation; measurements older than `max_age` are left out.
    pub(super) fn new(
        observation: &'o Observation,
        me: Prefix,
        settings: ViewSettings,
        max_age: Duration,
    ) -> Self {
        let links = observation.links.iter();
        let tunnels: BTreeMap<_, _> = links.map(|link| (link.tunnel.slot, link)).collect();
        let stays = |slot: Slot| {
            let link = tunnels.get(&slot);
            link.is_some_and(|link| link.tunnel.phase == Phase::Up)
        };
        let table = observation.babel.as_deref();
        let routes = table
            .map(|table| RouteIndex::new(&table.routes, me, stays))
            .unwrap_or_default();
        let can_be_dialled =
            |candidate: &&Candidate| candidate.peer != me && !candidate.endpoints.is_empty();
        let candidates = observation.candidates.iter().filter(can_be_dialled);
        let mut peers: Vec<_> = tunnels.values().map(|link| link.tunnel.peer).collect();
        peers.sort_unstable();
        let (of_neighbours, of_candidates): (Vec<CandidateRtt>, Vec<_>) = observation
            .candidate_rtts
            .iter()
            .partition(|measured| peers.binary_search(&measured.peer).is_ok());
        let answered = of_neighbours
            .iter()
            .filter(|measured| measured.rtt.is_some());
        let endpoints = tunnels
            .values()
            .filter_map(|link| link.tunnel.endpoint.as_ref());
        let mut areas: Vec<_> = endpoints.map(underlay_area).collect();
        areas.sort_unstable();
        let probes = observation.probes.iter();
        let free = observation.free_slots.iter().copied();
        Self {
            at: observation.at,
            candidates: candidates
                .map(|candidate| (candidate.peer, candidate))
                .collect(),
            free: free.filter(|slot| slot.role() == Role::Dialled).collect(),
            punched: &observation.punched,
            is_table_known: table.is_some(),
            routes: routes.sampled(settings.nodes_per_entry),
            far_cost: table.map(far_cost).unwrap_or_default(),
            measurements: Measurements::new(
                &of_candidates,
                &observation.views,
                observation.at,
                max_age,
            ),
            loss_ratios: probes
                .filter_map(|probe| Some((probe.slot, LossRatio::new(probe)?)))
                .collect(),
            udp_answers: answered
                .map(|measured| (measured.peer, measured.at))
                .collect(),
            link_cost: settings.link_cost,
            peers,
            areas,
            tunnels,
        }
    }

    /// The number of nodes whose installed route leaves by the slot.
    pub(super) fn nodes_served(&self, slot: Slot) -> usize {
        self.routes.service(slot).nodes
    }

    /// A node that would be out of reach without the slot: it has a finite route by it, and none by another slot
    /// whose tunnel is up and stays.
    pub(super) fn only_route(&self, slot: Slot) -> Option<Prefix> {
        self.routes.service(slot).only_route
    }

    /// Dialled tunnels that are not closing, in the order of their slots.
    pub(super) fn dialled(&self) -> impl Iterator<Item = &'o LinkReading> + '_ {
        self.tunnels.values().copied().filter(|link| {
            link.tunnel.role() == Role::Dialled
                && match link.tunnel.phase {
                    Phase::Connecting | Phase::Up | Phase::Draining { .. } => true,
                    Phase::Closing => false,
                }
        })
    }

    /// Returns whether a tunnel of either role to `peer` exists, in whatever phase.
    pub(super) fn has_tunnel_to(&self, peer: Prefix) -> bool {
        self.peers.binary_search(&peer).is_ok()
    }

    /// Returns whether a tunnel of either role to `peer` exists that is not about to close.
    pub(super) fn has_lasting_tunnel_to(&self, peer: Prefix) -> bool {
        let mut tunnels = self.tunnels.values().map(|link| &link.tunnel);
        tunnels.any(|tunnel| {
            tunnel.peer == peer && matches!(tunnel.phase, Phase::Connecting | Phase::Up)
        })
    }

    /// Returns whether the peer carries others' traffic without extra cost, by its own account.
    pub(super) fn has_free_transit(&self, peer: Prefix) -> bool {
        self.candidates
            .get(&peer)
            .is_none_or(|candidate| candidate.transit_cost == 0)
    }

    /// The gain of a tunnel to the candidate; half of it if another tunnel leads into the same area of the underlay.
    pub(super) fn gain(&self, candidate: &Candidate) -> Option<Gain> {
        let gain = self
            .measurements
            .gain(&self.routes, candidate.peer, self.link_cost)?;
        let area = candidate.endpoints.first().map(underlay_area);
        let near_another = area.is_some_and(|area| self.areas.binary_search(&area).is_ok());
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

/// By slot, the least cost at which a neighbour there receives from this node.
fn far_cost(table: &BabelTable) -> BTreeMap<Slot, u16> {
    let mut costs = BTreeMap::new();
    for neighbour in &table.neighbours {
        let cost = costs.entry(neighbour.slot).or_insert(INFINITY);
        *cost = neighbour.txcost.min(*cost);
    }
    costs
}
