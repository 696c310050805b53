//! Compares candidates with tunnels: how much a new tunnel would shorten routes, and what closing one would cost.
//!
//! All values are in Babel's metric, summed over the nodes of babeld's table, for both ends of the tunnel. What
//! peers report is bounded by what this node sees itself: of two nodes whose metrics to a third differ by more than
//! the metric between them, one has no shortest route. So for each node a liar gains no more than its tunnel
//! shortens the route to itself. `docs/POLICY.md` has the formulas and their reasons.

mod measurements;

pub use measurements::Measurements;

use crate::{
    link_cost::LinkCost,
    names::{Endpoint, Prefix},
    observation::{CandidateRtt, PeerRouteView},
    routes::RouteIndex,
};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

/// Number of candidates that are asked for their route view at each refresh.
pub const SHORTLIST_LENGTH: usize = 5;
/// Number of candidates whose round trip is measured per refresh.
pub const PROBED_PER_REFRESH: u32 = 60;
/// Round trips and route views older than this number of refreshes decide nothing.
pub const VALID_REFRESHES: u32 = 2;
/// A link must be shorter than the present route by at least this part of that route.
const MIN_SAVED_PART: u32 = 16;
/// A replacement must gain this fraction of the loss. The loss is the most that followers can lose, and they may have
/// nearer routes than through us. When all of it counted, simulated networks settled earlier and worse.
const LOSS_FRACTION: (u64, u64) = (2, 5);
/// A replacement must also gain one part in so many of all routes that it moves, since each of them is disturbed for a
/// moment. This is the hysteresis; it shrinks the longer no tunnel was closed.
const MOVED_PART: u64 = 24;
/// A tunnel to a peer that accepts no more is worth one part in so many: others may need its place more.
const CROWDED_PART: u64 = 2;
/// The regret that a peer reports counts at most this multiple of our own.
const MAX_PEER_REGRET_FACTOR: u64 = 4;
/// One in so many tunnels stays random.
const RANDOM_PART: usize = 5;

/// The rule by which tunnels are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// Tunnels are chosen by what they gain; some are left to chance.
    #[default]
    Gain,
    /// All is left to chance: at each refresh one tunnel that nothing spares makes room for another. This rule
    /// serves as a comparison.
    Random,
}

impl Rule {
    /// The number of tunnels left to chance, of `limit` dialled ones.
    pub fn random_slots(self, limit: usize) -> usize {
        match self {
            Self::Gain => random_slots(limit),
            Self::Random => limit,
        }
    }
}

/// The number of tunnels left to chance, of `limit` dialled ones: a fifth, rounded up, and none below three.
///
/// `docs/POLICY-REASONS.md` derives it. Two random tunnels per node make a random graph that is connected almost surely
/// (Fenner and Frieze, 1982); with one, the graph tears only where fewer than about ten nodes stand apart.
pub fn random_slots(limit: usize) -> usize {
    if limit < 3 {
        0
    } else {
        limit.div_ceil(RANDOM_PART)
    }
}

/// The gain of a tunnel to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gain {
    /// The metric of our present route to it.
    pub metric: u16,
    /// The cost of the link, by its measured round trip.
    pub link: u32,
    /// The metric saved, summed over nodes and both ends.
    pub total: u64,
    /// The candidate's route view was known; without it only the route to the candidate counts.
    pub viewed: bool,
    /// Another tunnel leads into the same area of the underlay, which halves the total.
    pub near_another: bool,
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            metric,
            link,
            total,
            viewed,
            near_another,
        } = self;
        write!(
            f,
            "gain={total} metric={metric} link={link} viewed={viewed} near_another={near_another}"
        )
    }
}

/// The gain of a tunnel to `peer` whose link costs `link`; `None` if it saves nothing.
pub fn gain(
    routes: &RouteIndex,
    peer: Prefix,
    link: u32,
    view: Option<&PeerRouteView>,
) -> Option<Gain> {
    let to_peer = routes.get(peer)?;
    let metric = to_peer.metric;
    let saved_between = u32::from(metric).saturating_sub(link);
    if saved_between == 0 || saved_between < u32::from(metric) / MIN_SAVED_PART {
        return None;
    }
    let (mut saved, mut compared) = (0u64, 0u64);
    let distances = view.iter().flat_map(|view| &view.distances);
    for (node, reported) in distances.filter(|(node, _)| *node != peer) {
        let Some(to_node) = routes.get(*node) else {
            continue;
        };
        let our_metric = to_node.metric;
        // Neither end can be farther from a node than through the other end.
        let theirs = (*reported).clamp(
            our_metric.saturating_sub(metric),
            our_metric.saturating_add(metric),
        );
        let (ours, theirs) = (u32::from(our_metric), u32::from(theirs));
        let we_save = ours.saturating_sub(theirs.saturating_add(link));
        let they_save = theirs.saturating_sub(ours.saturating_add(link));
        saved = saved
            .saturating_add(u64::from(we_save) * to_node.weight())
            .saturating_add(they_save.into());
        compared += 1;
    }
    // The view is a sample of all nodes.
    let saved_to_all = saved
        .saturating_mul(routes.other_nodes())
        .checked_div(compared)
        .unwrap_or(0);
    let both_ends = to_peer.weight().saturating_add(1);
    let saved_between_ends = u64::from(saved_between).saturating_mul(both_ends);
    Some(Gain {
        metric,
        link,
        total: saved_to_all.saturating_add(saved_between_ends),
        viewed: compared > 0,
        near_another: false,
    })
}

/// The candidates to ask for their route view: those to which a tunnel would shorten the route most.
pub fn shortlist(
    routes: &RouteIndex,
    candidate_rtts: &[CandidateRtt],
    cost: LinkCost,
) -> Vec<Prefix> {
    let ranked = |measured: &CandidateRtt| {
        let link = cost.metric(measured.rtt?);
        let gain = gain(routes, measured.peer, link, None)?;
        Some((std::cmp::Reverse(gain.total), measured.peer))
    };
    let mut ranking: Vec<_> = candidate_rtts.iter().filter_map(ranked).collect();
    ranking.sort_unstable();
    let peers = ranking.into_iter().map(|(_, peer)| peer);
    peers.take(SHORTLIST_LENGTH).collect()
}

/// The metric that closing a tunnel costs both ends: our regret and the peer's. If the peer reports none, it counts
/// as much as ours.
pub fn closing_loss(regret: u64, peer_regret: Option<u64>) -> u64 {
    let limit = regret.saturating_mul(MAX_PEER_REGRET_FACTOR);
    let theirs = peer_regret.map_or(regret, |theirs| theirs.min(limit));
    regret.saturating_add(theirs)
}

/// The least gain for which a tunnel is replaced (its *worth* in `docs/POLICY.md`).
///
/// `moved` is the metric of all routes that move, `refreshes_since_close` the number of refreshes since the last closing by plan. A
/// tunnel is worth less if its peer is `crowded`, which means that it accepts no more.
pub fn required_gain(loss: u64, moved: u64, refreshes_since_close: u32, crowded: bool) -> u64 {
    let (numerator, denominator) = LOSS_FRACTION;
    let disturbance =
        moved / MOVED_PART.saturating_mul(u64::from(refreshes_since_close).saturating_add(1));
    let worth = (loss.saturating_mul(numerator) / denominator).saturating_add(disturbance);
    let worth = if crowded { worth / CROWDED_PART } else { worth };
    worth.saturating_add(1)
}

/// The area of the underlay that an endpoint lies in, an IPv4 /16 or an IPv6 /32: whether it is IPv6, and the bits.
pub fn underlay_area(endpoint: &Endpoint) -> (bool, u32) {
    let upper_half = |address: Ipv4Addr| u32::from(address) >> 16;
    match endpoint.address.ip() {
        IpAddr::V4(address) => (false, upper_half(address)),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => (false, upper_half(address)),
            None => (true, u32::try_from(u128::from(address) >> 96).unwrap_or(0)),
        },
    }
}

#[cfg(test)]
mod tests;
