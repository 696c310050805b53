//! Sorts babeld's routes: who is reached by which slot, and what the loss of a slot would cost.
//!
//! Sees one table; knows nothing of how it came about. All results are the same in whatever order the
//! routes come.

use crate::{
    names::{Prefix, Slot, Transport},
    observation::{INFINITY, Route},
};

/// One finite route.
#[derive(Clone, Copy, Debug)]
struct Way {
    node: Prefix,
    installed: bool,
    metric: u16,
    /// The metric that the neighbour announced.
    refmetric: u16,
    /// Where the slot stands among the services.
    at: usize,
}

/// Whether the neighbour that announced `refmetric` for a node reaches it through us, where our own metric to it is
/// `ours` and `metric` is that by way of the neighbour: it announces what our way and the link between us cost, all
/// but an eighth of the link, since what it announced may be older than what we know. babeld announces such routes
/// on tunnels, too (it does no split horizon there).
pub fn leads_back(metric: u16, refmetric: u16, ours: u16) -> bool {
    let link = u32::from(metric.saturating_sub(refmetric));
    u32::from(refmetric) + link / LAG_PART >= u32::from(ours) + link
}

/// What neighbours announce may lag behind by one part in so many of the link.
const LAG_PART: u32 = 8;

/// Bits of a key below node and slot: whether the route is not installed, its metric and that announced.
const METRIC_BITS: u32 = 33;

/// Bits of a key below the node.
const NODE_SHIFT: u32 = 16 + METRIC_BITS;

/// A route as one number; their order is node, slot, installed ones first, metric. Numbers are sorted three
/// times as fast as routes.
fn key(route: &Route, at: u16) -> u128 {
    let metrics = u64::from(route.metric) << 16 | u64::from(route.refmetric);
    let rest = u64::from(!route.installed) << 32 | metrics;
    u128::from(node_bits(route.node)) << NODE_SHIFT
        | u128::from(u64::from(at) << METRIC_BITS | rest)
}

/// The bits of the node in a key.
fn node_bits(node: Prefix) -> u64 {
    u64::from(node.number()) << 8 | u64::from(node.length())
}

/// The way that [`key`] made that number of.
fn way(key: u128) -> Option<Way> {
    let [.., n3, n2, n1, n0, length, s1, s0, _, _, _, _, _] = (key << 7).to_be_bytes();
    let [.., i, m1, m0, r1, r0] = key.to_be_bytes();
    let at = usize::from(u16::from_be_bytes([s1, s0]));
    let node = Prefix::new(u32::from_be_bytes([n3, n2, n1, n0]), length)?;
    let [metric, refmetric] = [[m1, m0], [r1, r0]].map(u16::from_be_bytes);
    Some(Way {
        node,
        installed: i & 1 == 0,
        metric,
        refmetric,
        at,
    })
}

/// The slots of a table.
struct Slots {
    /// Sorted.
    all: Vec<Slot>,
    /// By kind, then by number: where the slot stands in `all`.
    places: [Vec<u16>; 3],
}

impl Slots {
    fn of(slots: impl Iterator<Item = Slot>) -> Self {
        const ABSENT: u16 = u16::MAX;
        let mut places: [Vec<u16>; 3] = Default::default();
        for (kind, number) in slots.map(place) {
            let Some(places) = places.get_mut(kind) else {
                continue;
            };
            if places.len() <= number {
                places.resize(number + 1, ABSENT);
            }
            if let Some(place) = places.get_mut(number) {
                *place = 0;
            }
        }
        let mut all = Vec::new();
        for (kind, places) in (0..).zip(&mut places) {
            let here = (0..).zip(places).filter(|(_, place)| **place != ABSENT);
            for (number, place) in here {
                *place = u16::try_from(all.len()).unwrap_or(ABSENT);
                all.push(match kind {
                    0 => Slot::Dialling(number),
                    1 => Slot::Accepting(Transport::Udp, number),
                    _ => Slot::Accepting(Transport::Tcp, number),
                });
            }
        }
        Self { all, places }
    }

    fn at(&self, slot: Slot) -> u16 {
        let (kind, number) = place(slot);
        self.places
            .get(kind)
            .and_then(|places| places.get(number))
            .copied()
            .unwrap_or_default()
    }
}

/// Kind and number of a slot; pairs stand in the order of slots.
fn place(slot: Slot) -> (usize, usize) {
    match slot {
        Slot::Dialling(number) => (0, number.into()),
        Slot::Accepting(Transport::Udp, number) => (1, number.into()),
        Slot::Accepting(Transport::Tcp, number) => (2, number.into()),
    }
}

/// What one slot is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Nodes whose installed route leaves by it.
    pub nodes: usize,
    /// What the ways to these nodes would grow by without it, in metric, ours and those of neighbours that
    /// [follow](NodeRoute::followers) us, summed; nodes without any other way are not in it.
    pub regret: u64,
    /// The metrics of the ways to these nodes, summed: what its closing would move.
    pub moved: u64,
    /// A node that has no way but by this slot.
    pub only_route: Option<Prefix>,
}

/// How a node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRoute {
    /// Of the installed route, or of the best where none is.
    pub metric: u16,
    /// Neighbours that reach it through us, by what they announce; their routes are no other way for us.
    pub followers: u16,
}

impl NodeRoute {
    /// How many ways become shorter or longer with ours: it, and the followers'.
    pub fn weight(self) -> u64 {
        u64::from(self.followers) + 1
    }
}

/// A table, sorted.
#[derive(Clone, Debug, Default)]
pub struct RouteIndex {
    /// Sorted by node, then slot, at most one of each pair: see [`key`]. They take half the room of ways.
    keys: Vec<u128>,
    /// Each node once.
    known: Vec<(Prefix, NodeRoute)>,
    /// Each slot that has routes, sorted; whether it stays; what it is good for.
    services: Vec<(Slot, bool, Service)>,
    /// Where the table is a sample: so many nodes more are meant by each.
    more: u32,
}

impl RouteIndex {
    /// Sorts the finite routes to nodes other than `me`. `stays` says whether a slot can take over
    /// what another one carries: its tunnel is up and no drain is under way.
    pub fn new(routes: &[Route], me: Prefix, stays: impl Fn(Slot) -> bool) -> Self {
        let finite = routes
            .iter()
            .filter(|route| route.node != me && route.metric != INFINITY);
        let slots = Slots::of(finite.clone().map(|route| route.slot));
        let mut keys = Vec::with_capacity(routes.len());
        keys.extend(finite.map(|route| key(route, slots.at(route.slot))));
        keys.sort_unstable();
        // Of several routes to a node by one slot the installed one counts, or the best.
        keys.dedup_by_key(|key| *key >> METRIC_BITS);
        let services: Vec<_> = slots
            .all
            .iter()
            .map(|slot| (*slot, stays(*slot), Service::default()))
            .collect();
        let mut sorted = Self {
            known: Vec::new(),
            services,
            keys: Vec::new(),
            more: 0,
        };
        let mut group = Vec::new();
        for keys in keys.chunk_by(|a, b| a >> NODE_SHIFT == b >> NODE_SHIFT) {
            group.clear();
            group.extend(keys.iter().filter_map(|key| way(*key)));
            sorted.serve(&group);
        }
        sorted.keys = keys;
        sorted
    }

    /// The table is a sample: each node in it stands for so many, itself among them.
    pub fn sampled(self, nodes: u32) -> Self {
        Self {
            more: nodes.saturating_sub(1),
            ..self
        }
    }

    /// How many nodes there are beside one.
    pub fn other_nodes(&self) -> u64 {
        let listed = u64::try_from(self.known.len())
            .unwrap_or(u64::MAX)
            .saturating_sub(1);
        self.scaled(listed)
    }

    fn scaled(&self, sum: u64) -> u64 {
        sum.saturating_mul(u64::from(self.more).saturating_add(1))
    }

    /// Adds up what the ways to one node say of their slots.
    fn serve(&mut self, group: &[Way]) {
        let Some(best) = group.iter().min_by_key(|way| (!way.installed, way.metric)) else {
            return;
        };
        // The two best of those that stay: the second counts where the first is the one that goes.
        let (mut first, mut second, mut followers) = (None::<&Way>, None::<&Way>, 0u16);
        let stays = |way: &&Way| {
            self.services
                .get(way.at)
                .is_some_and(|(_, stays, _)| *stays)
        };
        for way in group.iter().filter(stays) {
            if !way.installed && leads_back(way.metric, way.refmetric, best.metric) {
                followers = followers.saturating_add(1);
                continue;
            }
            if first.is_none_or(|first| way.metric < first.metric) {
                second = first.replace(way);
            } else if second.is_none_or(|second| way.metric < second.metric) {
                second = Some(way);
            }
        }
        let known = NodeRoute {
            metric: best.metric,
            followers,
        };
        self.known.push((best.node, known));
        let instead = |at: usize| {
            if first.is_some_and(|way| way.at == at) {
                second
            } else {
                first
            }
        };
        for way in group {
            let other = instead(way.at);
            if !way.installed && other.is_some() {
                continue;
            }
            let Some((.., service)) = self.services.get_mut(way.at) else {
                continue;
            };
            if way.installed {
                service.nodes += 1;
                service.moved += u64::from(way.metric);
            }
            match other {
                Some(other) => {
                    let longer = u64::from(other.metric.saturating_sub(way.metric));
                    service.regret += longer * known.weight();
                }
                None => service.only_route = service.only_route.or(Some(way.node)),
            }
        }
    }

    /// Whether there is a finite route to the node.
    pub fn reaches(&self, node: Prefix) -> bool {
        self.metric(node).is_some()
    }

    /// The metric to the node.
    pub fn metric(&self, node: Prefix) -> Option<u16> {
        self.get(node).map(|known| known.metric)
    }

    /// How the node is reached.
    pub fn get(&self, node: Prefix) -> Option<NodeRoute> {
        let at = self
            .known
            .binary_search_by_key(&node, |(node, _)| *node)
            .ok()?;
        self.known.get(at).map(|(_, known)| *known)
    }

    /// All nodes, sorted.
    pub fn nodes(&self) -> &[(Prefix, NodeRoute)] {
        &self.known
    }

    /// What the slot is good for.
    pub fn service(&self, slot: Slot) -> Service {
        let service = self.at(slot).and_then(|at| self.services.get(at));
        let service = service.map(|(.., service)| *service).unwrap_or_default();
        Service {
            regret: self.scaled(service.regret),
            moved: self.scaled(service.moved),
            ..service
        }
    }

    /// Nodes whose installed route leaves by the slot, sorted.
    pub fn served_nodes(&self, slot: Slot) -> impl Iterator<Item = Prefix> + '_ {
        let at = self.at(slot);
        let ways = self.keys.iter().filter_map(|key| way(*key));
        ways.filter(move |way| way.installed && Some(way.at) == at)
            .map(|way| way.node)
    }

    /// Whether the node has a finite route by another slot, whatever that slot's state.
    pub fn is_reached_without(&self, node: Prefix, slot: Slot) -> bool {
        let at = self.at(slot);
        let from = self
            .keys
            .partition_point(|key| key >> NODE_SHIFT < node_bits(node).into());
        let ways = self
            .keys
            .get(from..)
            .unwrap_or_default()
            .iter()
            .filter_map(|key| way(*key));
        ways.take_while(|way| way.node == node)
            .any(|way| Some(way.at) != at)
    }

    /// Where the slot stands among the services.
    fn at(&self, slot: Slot) -> Option<usize> {
        self.services
            .binary_search_by_key(&slot, |(slot, ..)| *slot)
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn route((node, slot, installed, metric): (u32, u16, bool, u16)) -> Route {
        let (node, slot) = (peer(node), Slot::Dialling(slot));
        Route {
            node,
            slot,
            via: node,
            installed,
            metric,
            refmetric: 0,
        }
    }

    /// Slot 9 never stays. Nodes served, regret and the only way, of slot 0; all its installed ways move.
    #[track_caller]
    fn check(routes: &[(u32, u16, bool, u16)], nodes: usize, regret: u64, only_route: Option<u32>) {
        let routes: Vec<_> = routes.iter().copied().map(route).collect();
        let ways = RouteIndex::new(&routes, peer(1), |slot| slot != Slot::Dialling(9));
        let own = |route: &&Route| {
            route.slot == Slot::Dialling(0) && route.installed && ways.reaches(route.node)
        };
        let moved = routes
            .iter()
            .filter(own)
            .map(|route| u64::from(route.metric))
            .sum();
        let expected = Service {
            nodes,
            regret,
            moved,
            only_route: only_route.map(peer),
        };
        assert_eq!(ways.service(Slot::Dialling(0)), expected);
    }

    #[test]
    fn regret_is_what_the_next_best_ways_cost_more() {
        check(
            &[(2, 0, true, 100), (2, 1, false, 150), (2, 2, false, 130)],
            1,
            30,
            None,
        );
        check(
            &[
                (2, 0, true, 100),
                (2, 1, false, 150),
                (3, 0, true, 10),
                (3, 1, false, 11),
            ],
            2,
            51,
            None,
        );
        check(&[(2, 0, false, 100), (2, 1, true, 90)], 0, 0, None);
    }

    /// Our way to node 2 costs 100; a neighbour beyond a link of 80 announces that metric, another one 60 beyond 60.
    #[track_caller]
    fn check_follower(announced: u16, weight: u64, regret: u64, with_other: bool) {
        let told = |slot: u16, link: u16, refmetric: u16| Route {
            refmetric,
            ..route((2, slot, slot == 0, refmetric + link))
        };
        let all = [told(0, 50, 50), told(1, 80, announced), told(2, 60, 60)];
        let ways = RouteIndex::new(&all[..if with_other { 3 } else { 2 }], peer(1), |_| true);
        let service = ways.service(Slot::Dialling(0));
        let only_route = (regret == 0).then(|| peer(2));
        assert_eq!((service.regret, service.only_route), (regret, only_route));
        assert_eq!(ways.get(peer(2)).map(NodeRoute::weight), Some(weight));
    }

    #[test]
    fn a_way_that_leads_back_through_us_counts_as_ours_and_is_no_other_way() {
        check_follower(180, 2, 2 * 20, true);
        check_follower(170, 2, 2 * 20, true);
        check_follower(169, 1, 20, true);
        check_follower(180, 2, 0, false);
        check_follower(90, 1, 70, false);
    }

    #[test]
    fn a_node_of_a_sample_costs_as_much_as_all_that_it_stands_for() {
        let all = [(2, 0, true, 100), (2, 1, false, 150)].map(route);
        let service = RouteIndex::new(&all, peer(1), |_| true)
            .sampled(3)
            .service(Slot::Dialling(0));
        assert_eq!(
            service,
            Service {
                nodes: 1,
                regret: 150,
                moved: 300,
                only_route: None
            }
        );
    }

    #[test]
    fn a_next_best_way_that_is_even_shorter_is_no_gain() {
        check(&[(2, 0, true, 100), (2, 1, false, 90)], 1, 0, None);
    }

    #[test]
    fn a_node_without_another_way_is_named_and_ways_that_go_do_not_count() {
        check(
            &[
                (2, 0, true, 100),
                (2, 9, false, 150),
                (3, 0, true, 5),
                (3, 1, false, 6),
            ],
            2,
            1,
            Some(2),
        );
        check(&[(2, 0, false, 100)], 0, 0, Some(2));
        check(&[(2, 0, true, INFINITY), (1, 0, true, 5)], 0, 0, None);
    }

    proptest! {
        #[test]
        fn regret_agrees_with_its_definition(
            routes in proptest::collection::vec((2u32..6, 0u16..5, any::<bool>(), 1u16..9), 0..30),
        ) {
            let routes: Vec<_> = routes.into_iter().map(route).collect();
            let ways = RouteIndex::new(&routes, peer(1), |_| true);
            for slot in (0..5).map(Slot::Dialling) {
                let mut regret = 0;
                let mut nodes = 0;
                for node in (2..6).map(peer) {
                    let by = |wanted: bool| routes.iter().filter(move |r| r.node == node && (r.slot == slot) == wanted);
                    let Some(own) = by(true).filter(|r| r.installed).map(|r| r.metric).min() else { continue };
                    nodes += 1;
                    // Of several routes to a node by one slot an installed one counts.
                    let best = |slot| {
                        let of_slot = routes.iter().filter(move |r| r.node == node && r.slot == slot);
                        of_slot.map(|r| (!r.installed, r.metric)).min().map(|(_, metric)| metric)
                    };
                    let other = by(false).filter_map(|r| best(r.slot)).min();
                    regret += other.map_or(0, |other| u64::from(other.saturating_sub(own)));
                }
                prop_assert_eq!((ways.service(slot).nodes, ways.service(slot).regret), (nodes, regret));
            }
        }
    }
}
