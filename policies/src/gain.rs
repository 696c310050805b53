//! Weighs candidates against tunnels: what a new tunnel would shorten, what a closed one would cost.
//!
//! All in Babel's metric, summed over the nodes of babeld's table, for both ends of the tunnel. What
//! others say is bounded by what we see ourselves: of two nodes whose metrics to a third differ by more
//! than the metric between them, one has no shortest way. So a liar gains no more for each node than
//! its tunnel shortens the way to itself. The formulas and their reasons are in `docs/POLICY.md`.

use crate::{
    link_cost::LinkCost,
    names::{Endpoint, Prefix, Role},
    observation::{CandidateRtt, LinkReading, Observation, PeerRouteView, Phase},
    rng::Rng,
    routes::RouteIndex,
    units::Uptime,
};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// Candidates that are asked for their view at each refresh; they follow from candidate_rtts.
pub const SHORTLIST: usize = 5;
/// Candidates that are sounded per refresh.
pub const SOUNDED: u32 = 60;
/// Soundings and views older than so many refreshes decide nothing.
pub const FRESH_REFRESHES: u32 = 2;
/// A link must be shorter than the present way by at least this part of it.
const LEAST_PAIR_PART: u32 = 16;
/// A replacement must gain this part of a loss: the loss is the most that followers can lose, who may have
/// nearer ways than ours. Where all of it counted simulated networks settled earlier and worse.
const LOSS_PART: (u64, u64) = (2, 5);
/// A replacement must also gain one part in so many of all ways that it moves: a way that moves is
/// disturbed for a moment, and that shall pay. This is the hysteresis: the longer none was moved, the less.
const MOVED_PART: u64 = 24;
/// A tunnel to a peer without room is worth one part in so many: others may need its place more.
const CROWDED_PART: u64 = 2;
/// What a peer says it would lose counts at most so many times what we would lose.
const PEER_LOSS_CAP: u64 = 4;
/// One in so many tunnels stays random.
const RANDOM_PART: usize = 5;

/// By what tunnels are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// By what they gain; a part is left to chance.
    #[default]
    Gain,
    /// By chance alone: each refresh one tunnel that nothing spares makes room for another. To compare with.
    Random,
}

impl Rule {
    /// How many of `limit` dialled tunnels are left to chance.
    pub fn random_slots(self, limit: usize) -> usize {
        match self {
            Self::Gain => random_slots(limit),
            Self::Random => limit,
        }
    }
}

/// How many of `limit` dialled tunnels are left to chance: a fifth, rounded up, none below three.
///
/// Derived in `docs/POLICY.md`: two random tunnels a node make a random graph that is whole almost
/// surely (Fenner and Frieze, 1982), one tears only where fewer than about ten nodes stand apart.
pub fn random_slots(limit: usize) -> usize {
    if limit < 3 {
        0
    } else {
        limit.div_ceil(RANDOM_PART)
    }
}

/// What a tunnel to a candidate would bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gain {
    /// Our metric to it now.
    pub metric: u16,
    /// What the link would cost, by the round trip measured.
    pub link: u32,
    /// Metric saved, summed over nodes and both ends.
    pub total: u64,
    /// Whether its view was known; without it only the way to itself counts.
    pub viewed: bool,
    /// Whether another tunnel leads into the same part of the underlay: halves the total.
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

/// What a tunnel to `peer` would save whose link costs `link`; `None` where it saves nothing.
pub fn gain(
    ways: &RouteIndex,
    peer: Prefix,
    link: u32,
    view: Option<&PeerRouteView>,
) -> Option<Gain> {
    let known = ways.get(peer)?;
    let metric = known.metric;
    let pair = u32::from(metric).saturating_sub(link);
    if pair == 0 || pair < u32::from(metric) / LEAST_PAIR_PART {
        return None;
    }
    let both = u64::from(pair).saturating_mul(known.weight().saturating_add(1));
    let (mut saved, mut compared) = (0u64, 0u64);
    for (node, said) in view
        .iter()
        .flat_map(|view| &view.distances)
        .filter(|(node, _)| *node != peer)
    {
        let Some(known) = ways.get(*node) else {
            continue;
        };
        let ours = known.metric;
        // Neither of us can be farther from a node than by way of the other.
        let theirs = (*said).clamp(ours.saturating_sub(metric), ours.saturating_add(metric));
        let (ours, theirs) = (u32::from(ours), u32::from(theirs));
        let one = ours.saturating_sub(theirs.saturating_add(link));
        let other = theirs.saturating_sub(ours.saturating_add(link));
        saved = saved
            .saturating_add(u64::from(one) * known.weight())
            .saturating_add(other.into());
        compared += 1;
    }
    let scaled = saved
        .saturating_mul(ways.other_nodes())
        .checked_div(compared)
        .unwrap_or(0);
    let total = scaled.saturating_add(both);
    Some(Gain {
        metric,
        link,
        total,
        viewed: compared > 0,
        near_another: false,
    })
}

/// How we see the network, for those who ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteView {
    /// Whether we accept one more tunnel.
    pub accepts_tunnels: bool,
    /// How many tunnels others dialled to us.
    pub accepted: u16,
    /// Our metrics to a sample of nodes, sorted.
    pub distances: Vec<(Prefix, u16)>,
    /// What we would lose without the tunnel that the peer dialled; `None`: some node would be lost.
    pub regrets: BTreeMap<Prefix, Option<u64>>,
}

impl RouteView {
    /// Shows at most `most` nodes: those whose names have the least hash, so that all who know them
    /// show the same ones.
    pub fn new(world: &Observation, me: Prefix, max_accepted: usize, most: usize) -> Self {
        let up: BTreeMap<_, _> = world
            .links
            .iter()
            .map(|link| (link.tunnel.slot, link.tunnel.phase == Phase::Up))
            .collect();
        let routes = world.babel.as_ref().map_or(&[][..], |table| &table.routes);
        let ways = RouteIndex::new(routes, me, |slot| {
            up.get(&slot).copied().unwrap_or_default()
        });
        let accepted = || {
            world
                .links
                .iter()
                .filter(|link| link.tunnel.role() == Role::Accepted)
        };
        let regret = |link: &LinkReading| {
            let service = ways.service(link.tunnel.slot);
            (
                link.tunnel.peer,
                service.only_route.is_none().then_some(service.regret),
            )
        };
        let hash = |node: Prefix| {
            Rng::new(u64::from(node.number()) << 8 | u64::from(node.length())).bits()
        };
        let mut drawn: Vec<_> = ways
            .nodes()
            .iter()
            .map(|(node, known)| (hash(*node), *node, known.metric))
            .collect();
        drawn.sort_unstable();
        drawn.truncate(most);
        let mut distances: Vec<_> = drawn
            .into_iter()
            .map(|(_, node, metric)| (node, metric))
            .collect();
        distances.sort_unstable();
        let count = accepted().count();
        Self {
            accepts_tunnels: count < max_accepted,
            accepted: u16::try_from(count).unwrap_or(u16::MAX),
            distances,
            regrets: accepted().map(regret).collect(),
        }
    }
}

/// Whom to ask for a view: the candidates whose own way a tunnel would shorten most.
pub fn shortlist(
    ways: &RouteIndex,
    candidate_rtts: &[CandidateRtt],
    cost: LinkCost,
) -> Vec<Prefix> {
    let pair = |sounding: &CandidateRtt| {
        let gain = gain(ways, sounding.peer, cost.metric(sounding.rtt?), None)?;
        Some((std::cmp::Reverse(gain.total), sounding.peer))
    };
    let mut all: Vec<_> = candidate_rtts.iter().filter_map(pair).collect();
    all.sort_unstable();
    all.into_iter()
        .map(|(_, peer)| peer)
        .take(SHORTLIST)
        .collect()
}

/// What closing a tunnel would cost both ends: our regret, and what the peer says; where it says
/// nothing, as much as ours again.
pub fn loss(regret: u64, told: Option<u64>) -> u64 {
    let theirs = told.map_or(regret, |told| {
        told.min(regret.saturating_mul(PEER_LOSS_CAP))
    });
    regret.saturating_add(theirs)
}

/// The least gain that is worth a loss, where ways of `moved` metric in all are to move, `rest` refreshes after
/// the last closing by plan; less where the peer is `crowded`, without room for others.
pub fn worth(loss: u64, moved: u64, rest: u32, crowded: bool) -> u64 {
    let (times, parts) = LOSS_PART;
    let unrest = moved / MOVED_PART.saturating_mul(u64::from(rest).saturating_add(1));
    let worth = (loss.saturating_mul(times) / parts).saturating_add(unrest);
    (if crowded { worth / CROWDED_PART } else { worth }).saturating_add(1)
}

/// The part of the underlay that an endpoint lies in: an IPv4 /16, an IPv6 /32.
pub fn part(endpoint: &Endpoint) -> (bool, u32) {
    let upper = |bits: Ipv4Addr| u32::from(bits) >> 16;
    match endpoint.address.ip() {
        IpAddr::V4(address) => (false, upper(address)),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => (false, upper(address)),
            None => (true, u32::try_from(u128::from(address) >> 96).unwrap_or(0)),
        },
    }
}

/// What candidate_rtts and views of the last refreshes say, by peer.
#[derive(Clone, Debug, Default)]
pub struct Findings<'a> {
    rtts: BTreeMap<Prefix, Duration>,
    views: BTreeMap<Prefix, &'a PeerRouteView>,
}

impl<'a> Findings<'a> {
    /// Leaves out what is older than `fresh`.
    pub fn new(
        candidate_rtts: &[CandidateRtt],
        views: &'a [PeerRouteView],
        now: Uptime,
        fresh: Duration,
    ) -> Self {
        let rtt = |sounding: &CandidateRtt| {
            sounding
                .rtt
                .filter(|_| now.since(sounding.at) <= fresh)
                .map(|rtt| (sounding.peer, rtt))
        };
        let view = |view: &&PeerRouteView| now.since(view.at) <= fresh;
        Self {
            rtts: candidate_rtts.iter().filter_map(rtt).collect(),
            views: views
                .iter()
                .filter(view)
                .map(|view| (view.peer, view))
                .collect(),
        }
    }

    /// Whether any round trip is known.
    pub fn measured(&self) -> bool {
        !self.rtts.is_empty()
    }

    /// What a tunnel to `peer` would bring; `None` where nothing is known, or it accepts no more.
    pub fn gain(&self, ways: &RouteIndex, peer: Prefix, cost: LinkCost) -> Option<Gain> {
        let rtt = self.rtts.get(&peer).filter(|_| !self.is_full(peer))?;
        let view = self.views.get(&peer).copied();
        gain(ways, peer, cost.metric(*rtt), view)
    }

    /// Whether `peer` says that it accepts no more tunnels.
    pub fn is_full(&self, peer: Prefix) -> bool {
        self.views
            .get(&peer)
            .is_some_and(|view| !view.accepts_tunnels)
    }

    /// How many tunnels others dialled to `peer`, as it says.
    pub fn accepted(&self, peer: Prefix) -> Option<u16> {
        self.views.get(&peer).and_then(|view| view.accepted)
    }

    /// What `peer` says that it would lose without its tunnel to us.
    pub fn told_loss(&self, peer: Prefix) -> Option<u64> {
        self.views.get(&peer).and_then(|view| view.regret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::Slot, observation::Route};
    use proptest::prelude::*;

    fn peer(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    /// Node n at metric `metrics[n]`.
    fn ways(metrics: &[u16]) -> RouteIndex {
        let route = |(node, metric): (usize, &u16)| {
            let node = peer(u32::try_from(node).unwrap());
            Route {
                node,
                slot: Slot::Dialling(0),
                via: node,
                installed: true,
                metric: *metric,
                refmetric: 0,
            }
        };
        RouteIndex::new(
            &metrics.iter().enumerate().map(route).collect::<Vec<_>>(),
            peer(99),
            |_| true,
        )
    }

    fn view(of: u32, distances: &[u16]) -> PeerRouteView {
        let distances = distances.iter().enumerate();
        let distances =
            distances.map(|(node, metric)| (peer(u32::try_from(node).unwrap()), *metric));
        PeerRouteView {
            peer: peer(of),
            at: Uptime::default(),
            accepts_tunnels: true,
            accepted: None,
            regret: None,
            distances: distances.collect(),
        }
    }

    /// The gain of a link to node 0, whose view is `said`.
    #[track_caller]
    fn check(metrics: &[u16], link: u32, said: Option<&[u16]>, expected: Option<u64>) {
        let view = said.map(|said| view(0, said));
        let gain = gain(&ways(metrics), peer(0), link, view.as_ref());
        assert_eq!(gain.map(|gain| gain.total), expected);
    }

    #[test]
    fn without_a_view_both_ends_gain_the_way_between_them() {
        check(&[100, 50], 40, None, Some(120));
    }

    #[test]
    fn a_link_no_shorter_than_the_way_gains_nothing_and_neither_does_a_hair() {
        check(&[100], 100, None, None);
        check(&[100], 95, None, None);
        check(&[100], 93, None, Some(14));
    }

    #[test]
    fn with_a_view_all_ways_count_that_become_shorter_at_either_end() {
        // To node 1 we save 90 - (10 + 40); node 0 saves 120 - (30 + 40) to node 2; both 60 to each other.
        check(&[100, 90, 30], 40, Some(&[0, 10, 120]), Some(40 + 50 + 120));
    }

    #[test]
    fn a_sample_stands_for_all() {
        check(
            &[100, 90, 30, 30, 30],
            40,
            Some(&[0, 10]),
            Some(4 * 40 + 120),
        );
    }

    #[test]
    fn where_each_node_of_the_table_stands_for_others_all_but_the_own_way_count_for_them() {
        let view = view(0, &[0, 10, 120]);
        let ways = ways(&[100, 90, 30]).sampled(7);
        let gain = gain(&ways, peer(0), 40, Some(&view));
        assert_eq!(gain.map(|gain| gain.total), Some(7 * (40 + 50) + 120));
    }

    #[test]
    fn the_nearest_by_pair_are_asked_first_and_five_at_most() {
        let rtt = |number: u32| CandidateRtt {
            peer: peer(number),
            at: Uptime::default(),
            rtt: (number != 3).then(|| Duration::from_millis(u64::from(20 * number))),
        };
        let candidate_rtts: Vec<_> = (0..8).map(rtt).collect();
        let listed = shortlist(&ways(&[3_000; 8]), &candidate_rtts, LinkCost::default());
        assert_eq!(listed, [0, 1, 2, 4, 5].map(peer));
    }

    #[test]
    fn a_full_peer_and_an_old_finding_decide_nothing() {
        let sounding = CandidateRtt {
            peer: peer(0),
            at: Uptime::from_secs(100),
            rtt: Some(Duration::ZERO),
        };
        let full = [PeerRouteView {
            accepts_tunnels: false,
            ..view(0, &[])
        }];
        let gain = |now, views| {
            let findings = Findings::new(
                &[sounding],
                views,
                Uptime::from_secs(now),
                Duration::from_secs(60),
            );
            findings
                .gain(&ways(&[1_000]), peer(0), LinkCost::default())
                .map(|gain| gain.total)
        };
        assert_eq!(gain(50, &full), None);
        assert_eq!(gain(160, &full), Some(2 * (1_000 - 96)));
        assert_eq!(gain(161, &[]), None);
    }

    #[test]
    fn what_a_peer_says_it_would_lose_is_bounded_by_what_we_would() {
        assert_eq!(
            [
                loss(10, None),
                loss(10, Some(7)),
                loss(10, Some(u64::MAX)),
                loss(0, Some(9))
            ],
            [20, 17, 50, 0]
        );
        let at_once = |loss, moved| worth(loss, moved, 0, false);
        assert_eq!(
            [at_once(0, 0), at_once(100, 0), at_once(100, 240)],
            [1, 41, 51]
        );
        assert_eq!(
            [worth(100, 240, 4, false), worth(100, 240, 4, true)],
            [43, 22]
        );
    }

    #[test]
    fn an_outlook_shows_the_same_nodes_whoever_shows_it() {
        let routes = |own: u16| {
            let route = |node: u32| Route {
                node: peer(node),
                slot: Slot::Dialling(0),
                via: peer(1),
                installed: true,
                metric: own,
                refmetric: 0,
            };
            (0..900).map(route).collect()
        };
        let outlook = |own: u16| {
            let babel = Some(crate::observation::BabelTable {
                neighbours: Vec::new(),
                routes: routes(own),
            });
            RouteView::new(
                &Observation {
                    babel,
                    ..Observation::default()
                },
                peer(999),
                1,
                50,
            )
        };
        let [near, far] = [outlook(10), outlook(20)];
        let nodes = |outlook: &RouteView| {
            outlook
                .distances
                .iter()
                .map(|(node, _)| *node)
                .collect::<Vec<_>>()
        };
        assert_eq!((nodes(&near), nodes(&near).len()), (nodes(&far), 50));
        assert!(near.accepts_tunnels && near.regrets.is_empty());
    }

    #[test]
    fn a_fifth_of_the_tunnels_stays_random() {
        assert_eq!(
            [1, 2, 3, 5, 6, 10, 30].map(random_slots),
            [0, 0, 1, 1, 2, 2, 6]
        );
    }

    proptest! {
        #[test]
        fn no_word_of_a_candidate_gains_more_than_its_own_way_for_each_node_and_end(
            metrics in proptest::collection::vec(1u16..2_000, 1..20),
            said in proptest::collection::vec(any::<u16>(), 0..20),
            link in 0u32..2_000,
        ) {
            let view = view(0, &said);
            let pair = u64::from(u32::from(metrics[0]).saturating_sub(link));
            let most = 2 * pair * u64::try_from(metrics.len()).unwrap();
            let gain = gain(&ways(&metrics), peer(0), link, Some(&view));
            prop_assert!(gain.is_none_or(|gain| gain.total <= most));
        }
    }
}
