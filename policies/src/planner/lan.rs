//! Keeps the nodes of one LAN connected by tunnels within it, so that their traffic does not leave it.
//!
//! A few tunnels suffice, whatever the number of nodes on the LAN: Babel finds the paths.

use super::{Plan, Planner, snapshot::Snapshot, spare_reason::MAX_CLOSINGS};
use crate::{
    names::{Prefix, Role, Slot},
    observation::{LinkReading, Phase, TunnelReading},
    orders::CloseReason,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// Tunnels of either role within LANs that a node wants. Links that each node chooses at random keep any number of nodes in one
/// piece with two, and mostly not with one.
const LAN_TUNNELS: usize = 2;

/// Tunnels within LANs that a node dials at most, so that many nodes on one LAN make no mesh.
const MAX_LAN_DIALS: usize = 4;
/// The route to a peer on a LAN could leave the LAN for this long before the peer is dialled: routes move while tunnels come up.
const LEAVING_TIME: Duration = Duration::from_secs(3);
/// The same for the node with the larger prefix of the two, so that they do not dial each other at once.
const LATER_LEAVING_TIME: Duration = Duration::from_secs(7);

/// Returns how many tunnels within LANs a node wants that dials this many: one is left for the rest of the network.
pub(super) fn wanted_on_lan(limit: usize) -> usize {
    LAN_TUNNELS.min(limit.saturating_sub(1))
}

/// Returns how many tunnels within LANs a node that dials `limit` may dial because routes could leave the LAN, on which it has found
/// so many peers. On a small LAN none is left for the rest of the network, to which the other nodes of the LAN lead, too.
fn max_lan_dials(limit: usize, found: usize) -> usize {
    let of_limit = if found <= limit {
        limit
    } else {
        limit.saturating_sub(1)
    };
    of_limit.min(MAX_LAN_DIALS)
}

/// When peers were found on LANs, when tunnels were dialled, and which routes could leave LANs.
#[derive(Clone, Debug, Default)]
pub(super) struct LanHistory {
    found_at: BTreeMap<Prefix, Uptime>,
    dialled_at: BTreeMap<Slot, (Prefix, Uptime)>,
    /// Since when the route to a peer on a LAN, to which no tunnel leads, could leave the LAN.
    leaves_since: BTreeMap<Prefix, Uptime>,
}

impl LanHistory {
    /// Notes peers and tunnels that are new, and forgets those that are gone.
    pub(super) fn track(&mut self, snapshot: &Snapshot<'_>) {
        let is_on_lan = |peer: &Prefix| snapshot.is_on_lan(*peer);
        self.found_at.retain(|peer, _| is_on_lan(peer));
        for peer in snapshot.candidates.keys().filter(|peer| is_on_lan(peer)) {
            self.found_at.entry(*peer).or_insert(snapshot.at);
        }
        self.dialled_at.retain(|slot, (peer, _)| {
            let link = snapshot.tunnels.get(slot);
            link.is_some_and(|link| link.tunnel.peer == *peer)
        });
        for (slot, link) in &snapshot.tunnels {
            let dialled_at = (link.tunnel.peer, link.tunnel.since);
            self.dialled_at.entry(*slot).or_insert(dialled_at);
        }
        let leaves = |peer: &Prefix| {
            is_on_lan(peer)
                && !snapshot.has_tunnel_to(*peer)
                && snapshot.could_leave_lan(*peer, None)
        };
        self.leaves_since.retain(|peer, _| leaves(peer));
        for peer in snapshot.candidates.keys().filter(|peer| leaves(peer)) {
            self.leaves_since.entry(*peer).or_insert(snapshot.at);
        }
    }

    /// The peers on LANs that are to be dialled because the routes to them could leave the LAN, if `me` may dial any within LANs.
    pub(super) fn to_bring_back(
        &self,
        snapshot: &Snapshot<'_>,
        me: Prefix,
        limit: usize,
    ) -> BTreeSet<Prefix> {
        let lan_tunnels = snapshot.lan_tunnels();
        let dialled = lan_tunnels
            .iter()
            .filter(|slot| slot.role() == Role::Dialled);
        if dialled.count() >= max_lan_dials(limit, self.found_at.len()) {
            return BTreeSet::new();
        }
        let is_due = |(peer, since): &(&Prefix, &Uptime)| {
            let time = if me < **peer {
                LEAVING_TIME
            } else {
                LATER_LEAVING_TIME
            };
            snapshot.at.since(**since) >= time
        };
        let due = self.leaves_since.iter().filter(is_due);
        due.map(|(peer, _)| *peer).collect()
    }

    /// Returns whether the tunnel was dialled before its peer was found on a LAN. A later one shows that the peer's servers did not
    /// answer there.
    fn precedes_lan(&self, tunnel: &TunnelReading) -> bool {
        let found_at = self.found_at.get(&tunnel.peer);
        let dialled_at = self.dialled_at.get(&tunnel.slot);
        found_at
            .is_some_and(|found_at| dialled_at.is_some_and(|(_, dialled_at)| dialled_at < found_at))
    }
}

impl Snapshot<'_> {
    /// Returns whether the peer answers on a LAN of this host.
    pub(super) fn is_on_lan(&self, peer: Prefix) -> bool {
        let candidate = self.candidates.get(&peer);
        candidate.is_some_and(|candidate| candidate.is_on_lan())
    }

    /// Returns whether the tunnel leads over a LAN: the peer answers there, and at this address.
    pub(super) fn is_over_lan(&self, tunnel: &TunnelReading) -> bool {
        let (Some(candidate), Some(endpoint)) =
            (self.candidates.get(&tunnel.peer), tunnel.endpoint)
        else {
            return false;
        };
        let address = |address: IpAddr| address.to_canonical();
        let mut lan = candidate.lan_endpoints().iter();
        lan.any(|lan| address(lan.address.ip()) == address(endpoint.address.ip()))
    }

    /// The slots of tunnels within LANs that connect or are up.
    pub(super) fn lan_tunnels(&self) -> BTreeSet<Slot> {
        let stays = |link: &&&LinkReading| match link.tunnel.phase {
            Phase::Connecting | Phase::Up => self.is_over_lan(&link.tunnel),
            Phase::Draining { .. } | Phase::Closing => false,
        };
        let tunnels = self.tunnels.values().filter(stays);
        tunnels.map(|link| link.tunnel.slot).collect()
    }

    /// Returns whether the route to the peer begins, or could soon begin, with a tunnel that does not lead over a LAN, if the tunnel of
    /// the slot `without` is not there: babeld has no route within the LAN that is better by a hop. With less, the next change of a
    /// round trip may decide.
    fn could_leave_lan(&self, peer: Prefix, without: Option<Slot>) -> bool {
        let best = |over_lan: bool| {
            let others = self.routes.slots_to(peer);
            let others = others.filter(|(slot, _)| Some(*slot) != without);
            let metrics = others.filter(|(slot, _)| self.is_slot_over_lan(*slot) == over_lan);
            metrics.map(|(_, metric)| metric).min()
        };
        let hop = self.link_cost.hop;
        let around = best(false);
        around.is_some_and(|around| {
            best(true).is_none_or(|within| around < within.saturating_add(hop))
        })
    }

    fn is_slot_over_lan(&self, slot: Slot) -> bool {
        let link = self.tunnels.get(&slot);
        link.is_some_and(|link| self.is_over_lan(&link.tunnel))
    }
}

impl Planner {
    /// The tunnels within LANs that are spared: all if there are no more of them than wanted, or else those without which traffic
    /// could leave the LAN.
    pub(super) fn needed_on_lan(&self, snapshot: &Snapshot<'_>) -> BTreeSet<Slot> {
        let mut tunnels = snapshot.lan_tunnels();
        if tunnels.len() > wanted_on_lan(self.wanted()) {
            tunnels.retain(|slot| {
                let link = snapshot.tunnels.get(slot);
                link.is_some_and(|link| snapshot.could_leave_lan(link.tunnel.peer, Some(*slot)))
            });
        }
        tunnels
    }

    /// Closes a tunnel that was dialled before its peer was found on a LAN and leads around it, unless it is the only route to some
    /// node, its peer is pinned, or too many tunnels on its slot were closed. A tunnel within the LAN follows if there are too few.
    pub(super) fn close_around_lan(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) {
        if !self.can_begin_closing(snapshot) {
            return;
        }
        let leads_around = |link: &&LinkReading| {
            self.lan_history.precedes_lan(&link.tunnel)
                && !snapshot.is_over_lan(&link.tunnel)
                && self.can_leave(snapshot, link, MAX_CLOSINGS)
        };
        let Some(link) = snapshot.dialled().find(leads_around) else {
            return;
        };
        let (slot, peer) = (link.tunnel.slot, link.tunnel.peer);
        let endpoint = link.tunnel.endpoint;
        let endpoint = endpoint.map_or("unknown".to_owned(), |endpoint| endpoint.to_string());
        let terms = format!("endpoint={endpoint}");
        let reason = CloseReason::AroundLan;
        self.begin_closing(snapshot, (slot, peer), reason, terms, plan);
    }
}
