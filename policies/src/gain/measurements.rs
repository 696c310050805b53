//! Holds the round trips and route views of the last refreshes.

use super::{Gain, gain};
use crate::{
    link_cost::LinkCost,
    names::Prefix,
    observation::{CandidateRtt, PeerRouteView},
    routes::RouteIndex,
    units::Uptime,
};
use std::{collections::BTreeMap, time::Duration};

/// Round trips and route views, by peer.
#[derive(Clone, Debug, Default)]
pub struct Measurements<'a> {
    rtts: BTreeMap<Prefix, Duration>,
    views: BTreeMap<Prefix, &'a PeerRouteView>,
}

impl<'a> Measurements<'a> {
    /// Takes those that are no older than `max_age`.
    pub fn new(
        candidate_rtts: &[CandidateRtt],
        views: &'a [PeerRouteView],
        now: Uptime,
        max_age: Duration,
    ) -> Self {
        let rtt = |measured: &CandidateRtt| {
            let rtt = measured.rtt.filter(|_| now.since(measured.at) <= max_age);
            rtt.map(|rtt| (measured.peer, rtt))
        };
        let views = views.iter().filter(|view| now.since(view.at) <= max_age);
        Self {
            rtts: candidate_rtts.iter().filter_map(rtt).collect(),
            views: views.map(|view| (view.peer, view)).collect(),
        }
    }

    /// Returns whether any round trip is known.
    pub fn has_rtts(&self) -> bool {
        !self.rtts.is_empty()
    }

    /// The gain of a tunnel to `peer`; `None` if its round trip is not known, or it accepts no more.
    pub fn gain(&self, routes: &RouteIndex, peer: Prefix, cost: LinkCost) -> Option<Gain> {
        let rtt = self.rtts.get(&peer).filter(|_| !self.is_full(peer))?;
        gain(routes, peer, cost.metric(*rtt), self.view(peer))
    }

    /// Returns whether `peer` reports that it accepts no more tunnels.
    pub fn is_full(&self, peer: Prefix) -> bool {
        self.view(peer).is_some_and(|view| !view.accepts_tunnels)
    }

    /// The number of tunnels that others dialled to `peer`, by its report.
    pub fn accepted(&self, peer: Prefix) -> Option<u16> {
        self.view(peer)?.accepted
    }

    /// The regret of `peer` without its tunnel to this node, by its report.
    pub fn peer_regret(&self, peer: Prefix) -> Option<u64> {
        self.view(peer)?.regret
    }

    fn view(&self, peer: Prefix) -> Option<&'a PeerRouteView> {
        self.views.get(&peer).copied()
    }
}
