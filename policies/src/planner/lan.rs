//! Keeps the nodes of one LAN connected by tunnels within it, so that their traffic does not leave it.
//!
//! A few tunnels suffice, whatever the number of nodes on the LAN: Babel finds the paths.

use super::{Plan, Planner, snapshot::Snapshot, spare_reason::MAX_CLOSINGS};
use crate::{
    names::{Prefix, Slot},
    observation::{LinkReading, Phase, TunnelReading},
    orders::CloseReason,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Tunnels of either role within LANs that a node wants. Links that each node chooses at random keep any number of nodes in one
/// piece with two, and mostly not with one.
const LAN_TUNNELS: usize = 2;

/// Returns how many tunnels within LANs a node wants that dials this many: one is left for the rest of the network.
pub(super) fn wanted_on_lan(limit: usize) -> usize {
    LAN_TUNNELS.min(limit.saturating_sub(1))
}

/// When peers were found on LANs, and when tunnels were dialled.
#[derive(Clone, Debug, Default)]
pub(super) struct LanHistory {
    found_at: BTreeMap<Prefix, Uptime>,
    dialled_at: BTreeMap<Slot, (Prefix, Uptime)>,
}

impl LanHistory {
    /// Notes peers and tunnels that are new, and forgets those that are gone.
    pub(super) fn track(&mut self, snapshot: &Snapshot<'_>) {
        let is_on_lan = |peer: &Prefix| {
            let candidate = snapshot.candidates.get(peer);
            candidate.is_some_and(|candidate| candidate.is_on_lan())
        };
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
}

impl Planner {
    /// The tunnels within LANs that are spared, because there are no more of them than wanted.
    pub(super) fn needed_on_lan(&self, snapshot: &Snapshot<'_>) -> BTreeSet<Slot> {
        let tunnels = snapshot.lan_tunnels();
        if tunnels.len() > wanted_on_lan(self.wanted()) {
            return BTreeSet::new();
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
