//! Sorts a world for the planner: who is reached by which slot, and who could be dialled.
//!
//! Everything is keyed and ordered, so that the order of entries in a reading decides nothing.

use crate::{
    names::{Prefix, Role, Slot},
    units::Uptime,
    world::{Candidate, INFINITY, LinkReading, Phase, World},
};
use std::collections::{BTreeMap, BTreeSet};

/// One world, sorted.
pub(super) struct Picture<'w> {
    pub(super) at: Uptime,
    pub(super) tunnels: BTreeMap<Slot, &'w LinkReading>,
    pub(super) candidates: BTreeMap<Prefix, &'w Candidate>,
    pub(super) free: BTreeSet<Slot>,
    /// Whether babeld told us anything; without it nothing is closed.
    pub(super) told: bool,
    /// Nodes that babeld has a finite route to.
    pub(super) known: BTreeSet<Prefix>,
    /// Nodes whose installed, finite route leaves by the slot.
    pub(super) served: BTreeMap<Slot, BTreeSet<Prefix>>,
    /// For each node the slots with a finite route to it.
    ways: BTreeMap<Prefix, BTreeSet<Slot>>,
    /// What the neighbour on the slot says its receiving from us costs.
    pub(super) far_cost: BTreeMap<Slot, u16>,
}

impl<'w> Picture<'w> {
    pub(super) fn of(world: &'w World, me: Prefix) -> Self {
        let mut picture = Self {
            at: world.at,
            tunnels: world.links.iter().map(|link| (link.tunnel.slot, link)).collect(),
            candidates: BTreeMap::new(),
            free: world.free_slots.iter().copied().filter(|slot| slot.role() == Role::Dialled).collect(),
            told: world.babel.is_some(),
            known: BTreeSet::new(),
            served: BTreeMap::new(),
            ways: BTreeMap::new(),
            far_cost: BTreeMap::new(),
        };
        let dialable = |candidate: &&Candidate| candidate.peer != me && !candidate.endpoints.is_empty();
        picture.candidates =
            world.candidates.iter().filter(dialable).map(|candidate| (candidate.peer, candidate)).collect();
        let Some(table) = &world.babel else { return picture };
        for route in table.routes.iter().filter(|route| route.node != me && route.metric != INFINITY) {
            picture.known.insert(route.node);
            picture.ways.entry(route.node).or_default().insert(route.slot);
            if route.installed {
                picture.served.entry(route.slot).or_default().insert(route.node);
            }
        }
        for neighbour in &table.neighbours {
            let cost = picture.far_cost.entry(neighbour.slot).or_insert(INFINITY);
            *cost = neighbour.txcost.min(*cost);
        }
        picture
    }

    /// How many nodes are reached by the slot.
    pub(super) fn nodes_served(&self, slot: Slot) -> usize {
        self.served.get(&slot).map_or(0, BTreeSet::len)
    }

    /// A node that would be out of reach without the slot: it has a finite route by it, and none by
    /// another slot whose tunnel is up and stays.
    pub(super) fn only_way(&self, slot: Slot) -> Option<Prefix> {
        let stays = |other: &Slot| {
            *other != slot && self.tunnels.get(other).is_some_and(|link| link.tunnel.phase == Phase::Up)
        };
        let lost = |slots: &BTreeSet<Slot>| slots.contains(&slot) && !slots.iter().any(stays);
        self.ways.iter().find_map(|(node, slots)| lost(slots).then_some(*node))
    }

    /// Whether the node has an installed or other finite route by another slot.
    pub(super) fn reached_without(&self, node: Prefix, slot: Slot) -> bool {
        self.ways.get(&node).is_some_and(|slots| slots.iter().any(|other| *other != slot))
    }

    /// Dialled tunnels that are not closing, in order of their slots.
    pub(super) fn dialled(&self) -> impl Iterator<Item = &'w LinkReading> + '_ {
        self.tunnels.values().copied().filter(|link| {
            link.tunnel.role() == Role::Dialled
                && match link.tunnel.phase {
                    Phase::Connecting | Phase::Up | Phase::Draining => true,
                    Phase::Closing => false,
                }
        })
    }

    /// Whether a tunnel of either role to `peer` exists, in whatever phase.
    pub(super) fn has_tunnel_to(&self, peer: Prefix) -> bool {
        self.tunnels.values().any(|link| link.tunnel.peer == peer)
    }
}
