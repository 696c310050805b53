//! Finds neighbours that announce routes which cannot be theirs, and decides which tunnels to close for it.
//!
//! A node announces its own range with metric 0 and under the router id that follows from its prefix; all other routes are forwarded
//! and cost more. So a neighbour lies if it announces another node's range with metric 0, or speaks from another node's
//! address. No node accepts a range that is no node's, so a neighbour that announces one lies, too.
//! A router id that does not belong to the range shows that some node lies. An honest neighbour may have forwarded it before its
//! own checks closed the liar's tunnel. So the tunnel is closed the later, the higher the announced metric is: the node beside
//! the liar closes first, and its neighbours see the route go. babeld does not always retract a route to each neighbour (split horizon), so an
//! entry that it does not use shows nothing: only packets do, and those count together that follow each other within three seconds.
//! What a neighbour forwards under the right router id cannot be checked (docs/decisions/0007-signed-origins.md).

mod crowds;
mod tolerance;

use crate::{
    names::{Prefix, Slot},
    observation::{BabelTable, Phase, TunnelReading},
    units::Uptime,
};
use crowds::crowded_slots;
use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};
use tolerance::{Watched, tolerated_time};

/// Time after a tunnel came up in which babeld may still know the neighbour that had the slot before.
const SLOT_CHANGE_TIME: Duration = Duration::from_secs(3);
/// Time for which a suspect is not dialled and not admitted; it doubles with each further suspicion.
const FIRST_BAN: Duration = Duration::from_secs(600);
/// The longest time for which a suspect is not dialled and not admitted.
const MAX_BAN: Duration = Duration::from_secs(6 * 3600);
/// Time after the end of a ban in which a further suspicion doubles the next one.
const MEMORY_TIME: Duration = Duration::from_secs(24 * 3600);
/// Maximum number of suspects that are remembered: one for each tunnel and hour, far from any real number.
const MAX_SUSPECTS: usize = 4096;

/// What is wrong with the routes of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SuspicionKind {
    /// It announces the range of another node as its own.
    Origin,
    /// It sends from the address of another node.
    Address,
    /// It announces a range under the router id of a node that does not have the range.
    RouterId,
    /// It announces a range that is no node's.
    Range,
    /// It announces more nodes than the network has.
    TooManyNodes,
}

impl SuspicionKind {
    /// All kinds, so that they can be listed before the program runs.
    pub const ALL: &[Self] = &[
        Self::Origin,
        Self::Address,
        Self::RouterId,
        Self::Range,
        Self::TooManyNodes,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Address => "address",
            Self::RouterId => "router_id",
            Self::Range => "range",
            Self::TooManyNodes => "too_many_nodes",
        }
    }
}

/// A finite route that says who the origin of a range is: its announced metric is 0, its router id is not that of the node whose range
/// it leads to, or it came from an address that is no node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginClaim {
    /// The node whose range the route leads to.
    pub node: Prefix,
    /// The slot by which the announcement came.
    pub slot: Slot,
    /// The node whose link-local address the announcement came from; `None` if it is no node's.
    pub via: Option<Prefix>,
    /// The metric that the neighbour announced.
    pub refmetric: u16,
    /// The node that the router id names; `None` if it names none.
    pub originator: Option<Prefix>,
    /// Whether babeld uses the route; a packet does not show that.
    pub is_used: bool,
}

/// A range that a neighbour announces, and that is neither a node's nor the default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignRange {
    /// The slot by which the announcement came.
    pub slot: Slot,
    /// The first address of the range.
    pub address: Ipv6Addr,
    /// The length of the range, in bits.
    pub length: u8,
}

/// A neighbour that announces false routes. Its tunnel is closed now, or later if the routes stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// What is wrong with its routes.
    pub kind: SuspicionKind,
    /// The slot of its tunnel.
    pub slot: Slot,
    /// The neighbour, by its certificate.
    pub peer: Prefix,
    /// The node whose range it announces, or one of them; the neighbour itself if the range is no node's.
    pub node: Prefix,
    /// The range, if it is no node's.
    pub range: Option<ForeignRange>,
    /// Time until the tunnel is closed if the routes do not change; zero if it is closed now.
    pub closes_in: Duration,
}

impl Suspicion {
    /// The reason in words, for the log and `warren why`.
    pub fn terms(&self) -> String {
        let Self {
            peer,
            node,
            closes_in,
            ..
        } = self;
        let what = match self.kind {
            SuspicionKind::Origin => format!("{peer} announces the range of {node} as its own"),
            SuspicionKind::Address => format!("{peer} speaks Babel from the address of {node}"),
            SuspicionKind::RouterId => {
                format!("{peer} announces the range of {node} under another node's router id")
            }
            SuspicionKind::Range => {
                let range = self.range.map(|range| (range.address, range.length));
                let (address, length) = range.unwrap_or((Ipv6Addr::UNSPECIFIED, 0));
                format!("{peer} announces {address}/{length}, which is the range of no node")
            }
            SuspicionKind::TooManyNodes => {
                format!("{peer} announces more nodes than the network has, such as {node}")
            }
        };
        if closes_in.is_zero() {
            format!("{what}; it is neither dialled nor admitted for a while")
        } else {
            let seconds = closes_in.as_secs_f64();
            format!(
                "{what}; its tunnel is closed in {seconds:.1} s unless the route is gone by then"
            )
        }
    }
}

/// What is known of a suspect.
#[derive(Clone, Copy, Debug)]
struct Ban {
    until: Uptime,
    span: Duration,
}

/// The size of the network, as the registry knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Members {
    /// Number of nodes that have announced themselves lately.
    pub count: u64,
    /// When the registry said so.
    pub at: Uptime,
}

/// The routes that are watched, and the neighbours that lied.
#[derive(Clone, Debug, Default)]
pub struct RouteChecks {
    /// What neighbours announce that they may have forwarded.
    watched: BTreeMap<(Slot, Prefix, SuspicionKind), Watched>,
    bans: BTreeMap<Prefix, Ban>,
}

impl RouteChecks {
    /// Checks one reading of babeld's tables; returns the neighbours whose tunnels are closed now, one entry a tunnel, and bans
    /// them. A neighbour that may have forwarded a false router id is returned once before that, with the time that it has.
    /// A neighbour that announces too many nodes is judged only by a number of `members` that is younger than its first such
    /// announcement, since many nodes may have joined.
    pub fn check(
        &mut self,
        claims: &[OriginClaim],
        table: &BabelTable,
        tunnels: &BTreeMap<Slot, TunnelReading>,
        members: Option<Members>,
        now: Uptime,
    ) -> Vec<Suspicion> {
        let mut watched = BTreeMap::new();
        let mut found = BTreeMap::new();
        let crowds = members.map(|members| crowded_slots(table, members.count));
        let crowds = crowds
            .into_iter()
            .flatten()
            .map(|(slot, node, metric)| (slot, node, SuspicionKind::TooManyNodes, metric));
        let lies = claims.iter().filter_map(|claim| {
            let tunnel = tunnels.get(&claim.slot)?;
            let kind = kind_of(claim, tunnel)?;
            // babeld keeps entries that it does not use for minutes after the neighbour has lost the route.
            let is_evidence = claim.is_used || kind != SuspicionKind::RouterId;
            is_evidence.then_some((claim.slot, claim.node, kind, claim.refmetric))
        });
        for (slot, node, kind, metric) in lies.chain(crowds) {
            let Some(tunnel) = tunnels.get(&slot).filter(|tunnel| carries_routes(tunnel)) else {
                continue;
            };
            let key = (slot, tunnel.peer, kind);
            let is_new = !self.watched.contains_key(&key);
            if is_new && !is_settled(tunnel, now) {
                continue;
            }
            let entry = self.watched.get(&key).copied().unwrap_or(Watched {
                since: now,
                packet_at: None,
            });
            let since = entry.since;
            watched.insert(key, entry);
            let is_current = kind != SuspicionKind::TooManyNodes
                || members.is_some_and(|members| members.at >= since);
            let tolerated = tolerated_time(kind, metric);
            // A reading can show what a neighbour announced long ago, so a later packet closes the tunnel.
            let is_forwarded = kind == SuspicionKind::RouterId && !tolerated.is_zero();
            let is_over = is_current && !is_forwarded && now.since(since) >= tolerated;
            let is_first = is_new && is_forwarded;
            if !is_over && !is_first {
                continue;
            }
            let closes_in = if is_over { Duration::ZERO } else { tolerated };
            let suspicion = Suspicion {
                kind,
                slot,
                peer: tunnel.peer,
                node,
                range: None,
                closes_in,
            };
            let soonest = found.entry(slot).or_insert(suspicion);
            if closes_in < soonest.closes_in {
                *soonest = suspicion;
            }
        }
        let recent = std::mem::replace(&mut self.watched, watched).into_iter();
        for (key, entry) in recent.filter(|((.., kind), entry)| entry.is_recent(*kind, now)) {
            self.watched.entry(key).or_insert(entry);
        }
        found
            .values()
            .filter(|suspicion| suspicion.closes_in.is_zero())
            .for_each(|suspicion| self.ban(suspicion.peer, now));
        found.into_values().collect()
    }

    /// Checks one packet that has just arrived; returns and bans the neighbour if the lie is its own. A neighbour that may have
    /// forwarded the lie is returned once, and later readings show whether the route stays.
    pub fn check_packet(
        &mut self,
        claims: &[OriginClaim],
        foreign: Option<ForeignRange>,
        tunnels: &BTreeMap<Slot, TunnelReading>,
        now: Uptime,
    ) -> Option<Suspicion> {
        let lies = claims.iter().filter_map(|claim| {
            let tunnel = tunnels.get(&claim.slot)?;
            let kind = kind_of(claim, tunnel)?;
            carries_routes(tunnel).then_some(Suspicion {
                kind,
                slot: claim.slot,
                peer: tunnel.peer,
                node: claim.node,
                range: None,
                closes_in: tolerated_time(kind, claim.refmetric),
            })
        });
        let foreign = foreign.and_then(|range| {
            let tunnel = tunnels.get(&range.slot)?;
            carries_routes(tunnel).then_some(Suspicion {
                kind: SuspicionKind::Range,
                slot: range.slot,
                peer: tunnel.peer,
                node: tunnel.peer,
                range: Some(range),
                closes_in: Duration::ZERO,
            })
        });
        let soonest = lies.chain(foreign).min_by_key(|lie| lie.closes_in)?;
        if soonest.closes_in.is_zero() {
            self.ban(soonest.peer, now);
            return Some(soonest);
        }
        let key = (soonest.slot, soonest.peer, soonest.kind);
        let packet_at = Some(now);
        let Some(entry) = self.watched.get_mut(&key) else {
            let since = now;
            self.watched.insert(key, Watched { since, packet_at });
            return Some(soonest);
        };
        entry.packet_at = packet_at;
        if now.since(entry.since) < soonest.closes_in {
            return None;
        }
        self.ban(soonest.peer, now);
        Some(Suspicion {
            closes_in: Duration::ZERO,
            ..soonest
        })
    }

    fn ban(&mut self, peer: Prefix, now: Uptime) {
        self.bans
            .retain(|_, ban| now.since(ban.until) < MEMORY_TIME || ban.until > now);
        let span = match self.bans.get(&peer) {
            Some(ban) if ban.until > now => return,
            Some(ban) => (ban.span * 2).min(MAX_BAN),
            None => FIRST_BAN,
        };
        if self.bans.len() < MAX_SUSPECTS || self.bans.contains_key(&peer) {
            let until = now + span;
            self.bans.insert(peer, Ban { until, span });
        }
    }

    /// Returns whether the node is neither dialled nor admitted now, because its routes were false.
    pub fn is_banned(&self, node: Prefix, now: Uptime) -> bool {
        self.bans.get(&node).is_some_and(|ban| ban.until > now)
    }
}

/// Returns what is wrong with a claim; `None` if nothing is.
fn kind_of(claim: &OriginClaim, tunnel: &TunnelReading) -> Option<SuspicionKind> {
    if claim.via != Some(tunnel.peer) {
        Some(SuspicionKind::Address)
    } else if claim.refmetric == 0 && claim.node != tunnel.peer {
        Some(SuspicionKind::Origin)
    } else {
        (claim.originator != Some(claim.node)).then_some(SuspicionKind::RouterId)
    }
}

/// Returns whether babeld's routes by this slot are those of the tunnel's peer.
fn is_settled(tunnel: &TunnelReading, now: Uptime) -> bool {
    tunnel
        .up_since
        .is_some_and(|since| now.since(since) >= SLOT_CHANGE_TIME)
}

fn carries_routes(tunnel: &TunnelReading) -> bool {
    matches!(tunnel.phase, Phase::Up | Phase::Draining { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Route;

    const SLOT: Slot = Slot::Dialling(0);
    const PEER: u32 = 7;
    const VICTIM: u32 = 9;

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn claim(to: u32, via: u32, refmetric: u16, originator: u32) -> OriginClaim {
        OriginClaim {
            node: node(to),
            slot: SLOT,
            via: Some(node(via)),
            refmetric,
            originator: Some(node(originator)),
            is_used: true,
        }
    }

    fn tunnels(up_since: u64, phase: Phase) -> BTreeMap<Slot, TunnelReading> {
        let up_since = Uptime::from_secs(up_since);
        let tunnel = TunnelReading {
            slot: SLOT,
            peer: node(PEER),
            phase,
            since: up_since,
            up_since: Some(up_since),
            endpoint: None,
        };
        [(SLOT, tunnel)].into()
    }

    /// A neighbour that announces the claim in each reading, every 250 ms from second 10 on: what is found, and after how many
    /// milliseconds.
    #[track_caller]
    fn check(claim: OriginClaim, expected: Option<(SuspicionKind, u64)>) {
        let mut checks = RouteChecks::default();
        let tunnels = tunnels(1, Phase::Up);
        let found = (0..200_000).step_by(250).find_map(|elapsed| {
            let now = Uptime::from_secs(10) + Duration::from_millis(elapsed);
            let packet = checks.check_packet(&[claim], None, &tunnels, now);
            let found = checks.check(&[claim], &BabelTable::default(), &tunnels, None, now);
            let mut found = packet.into_iter().chain(found);
            let found = found.find(|found| found.closes_in.is_zero())?;
            Some((found.kind, elapsed))
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_neighbour_may_announce_its_own_range_and_forward_others() {
        check(claim(PEER, PEER, 0, PEER), None);
        check(claim(VICTIM, PEER, 96, VICTIM), None);
    }

    #[test]
    fn another_nodes_range_at_metric_0_is_found_in_the_first_reading_whatever_its_router_id() {
        check(
            claim(VICTIM, PEER, 0, PEER),
            Some((SuspicionKind::Origin, 0)),
        );
        check(
            claim(VICTIM, PEER, 0, VICTIM),
            Some((SuspicionKind::Origin, 0)),
        );
    }

    #[test]
    fn a_neighbour_that_speaks_from_another_nodes_address_is_found_at_once() {
        check(
            claim(VICTIM, VICTIM, 0, VICTIM),
            Some((SuspicionKind::Address, 0)),
        );
    }

    #[test]
    fn a_false_router_id_is_tolerated_the_longer_the_further_away_the_liar_seems() {
        check(
            claim(PEER, PEER, 0, VICTIM),
            Some((SuspicionKind::RouterId, 0)),
        );
        check(
            claim(VICTIM, PEER, 1, 5),
            Some((SuspicionKind::RouterId, 500)),
        );
        check(
            claim(VICTIM, PEER, 96, 5),
            Some((SuspicionKind::RouterId, 2_250)),
        );
        check(
            claim(VICTIM, PEER, 200, 5),
            Some((SuspicionKind::RouterId, 4_000)),
        );
        let nameless = OriginClaim {
            originator: None,
            ..claim(VICTIM, PEER, 1, 5)
        };
        check(nameless, Some((SuspicionKind::RouterId, 500)));
    }

    #[test]
    fn a_forwarded_lie_is_reported_once_and_has_no_consequence_if_it_goes_away_in_time() {
        let (mut checks, tunnels) = (RouteChecks::default(), tunnels(1, Phase::Up));
        let table = BabelTable::default();
        let mut found = Vec::new();
        for second in 10..16 {
            let claims = [claim(VICTIM, PEER, 96, 5)];
            let claims = if second % 4 == 0 { &[][..] } else { &claims };
            found.extend(checks.check(claims, &table, &tunnels, None, Uptime::from_secs(second)));
        }
        let times: Vec<_> = found.iter().map(|found| found.closes_in).collect();
        assert_eq!(times, [Duration::from_millis(2_250); 2]);
        assert!(
            found[0]
                .terms()
                .ends_with("its tunnel is closed in 2.2 s unless the route is gone by then")
        );
        assert!(!checks.is_banned(node(PEER), Uptime::from_secs(18)));
    }

    #[test]
    fn a_lie_that_is_closed_now_is_returned_in_place_of_one_that_is_closed_later() {
        let (mut checks, tunnels) = (RouteChecks::default(), tunnels(1, Phase::Up));
        let claims = [claim(VICTIM, PEER, 96, 5), claim(VICTIM, PEER, 0, PEER)];
        let now = Uptime::from_secs(10);
        let found = checks.check(&claims, &BabelTable::default(), &tunnels, None, now);
        let found: Vec<_> = found
            .iter()
            .map(|found| (found.kind, found.closes_in))
            .collect();
        assert_eq!(found, [(SuspicionKind::Origin, Duration::ZERO)]);
    }

    #[test]
    fn a_range_that_is_no_nodes_is_the_neighbours_own_lie() {
        let now = Uptime::from_secs(10);
        let range = ForeignRange {
            slot: SLOT,
            address: "2000::".parse().unwrap(),
            length: 3,
        };
        let judge = |phase| {
            let mut checks = RouteChecks::default();
            checks.check_packet(&[], Some(range), &tunnels(10, phase), now)
        };
        let found = judge(Phase::Up).unwrap();
        assert_eq!((found.kind, found.peer), (SuspicionKind::Range, node(PEER)));
        assert!(
            found
                .terms()
                .starts_with("7/16 announces 2000::/3, which is the range of no node;")
        );
        assert_eq!(judge(Phase::Closing), None);
    }

    #[test]
    fn what_a_slot_carried_before_the_tunnel_came_up_is_not_held_against_its_peer() {
        let lie = claim(VICTIM, PEER, 0, PEER);
        let found = |up_since, phase| {
            let now = Uptime::from_secs(10);
            let tunnels = tunnels(up_since, phase);
            let found =
                RouteChecks::default().check(&[lie], &BabelTable::default(), &tunnels, None, now);
            found.len()
        };
        assert_eq!(found(7, Phase::Up), 1);
        assert_eq!(found(8, Phase::Up), 0);
        assert_eq!(found(1, Phase::Closing), 0);
    }

    #[test]
    fn a_packet_is_judged_from_the_first_moment_of_a_tunnel_if_the_lie_cannot_be_forwarded() {
        let judge = |claim, phase| {
            let now = Uptime::from_secs(10);
            let mut checks = RouteChecks::default();
            let found = checks.check_packet(&[claim], None, &tunnels(10, phase), now);
            assert_eq!(checks.is_banned(node(PEER), now), found.is_some());
            found.map(|found| found.kind)
        };
        let lie = claim(VICTIM, PEER, 0, VICTIM);
        assert_eq!(judge(lie, Phase::Up), Some(SuspicionKind::Origin));
        assert_eq!(judge(lie, Phase::Closing), None);
        let unknown = OriginClaim { via: None, ..lie };
        assert_eq!(judge(unknown, Phase::Up), Some(SuspicionKind::Address));
        assert_eq!(judge(claim(PEER, PEER, 0, PEER), Phase::Up), None);
    }

    #[test]
    fn a_packet_with_a_lie_that_may_be_forwarded_is_reported_once_and_judged_by_readings_from_then_on()
     {
        let at = |millis| Uptime::from_secs(10) + Duration::from_millis(millis);
        let (lie, tunnels) = ([claim(VICTIM, PEER, 96, 5)], tunnels(10, Phase::Up));
        let table = BabelTable::default();
        let mut checks = RouteChecks::default();
        let found = checks.check_packet(&lie, None, &tunnels, at(0)).unwrap();
        assert_eq!(found.closes_in, Duration::from_millis(2_250));
        assert_eq!(checks.check_packet(&lie, None, &tunnels, at(100)), None);
        assert_eq!(checks.check(&[], &table, &tunnels, None, at(200)), []);
        assert_eq!(checks.check(&lie, &table, &tunnels, None, at(2_200)), []);
        assert_eq!(checks.check(&lie, &table, &tunnels, None, at(60_000)), []);
        let found = checks
            .check_packet(&lie, None, &tunnels, at(60_100))
            .unwrap();
        assert_eq!(found.closes_in, Duration::ZERO);
        assert!(checks.is_banned(node(PEER), at(60_100)));
    }

    /// A neighbour forwards lies of others in several short spans. babeld keeps the entry for longer; `is_used` decides whether it uses it. The
    /// neighbour is closed only if it never lost the route.
    #[track_caller]
    fn check_spans(is_used: bool, expected: bool) {
        let (mut checks, tunnels) = (RouteChecks::default(), tunnels(1, Phase::Up));
        let lie = [OriginClaim {
            is_used,
            ..claim(VICTIM, PEER, 400, 5)
        }];
        for millis in (0..60_000).step_by(250) {
            let now = Uptime::from_secs(10) + Duration::from_millis(millis);
            if millis % 15_000 < 2_500 {
                checks.check_packet(&lie, None, &tunnels, now);
            }
            checks.check(&lie, &BabelTable::default(), &tunnels, None, now);
        }
        let end = Uptime::from_secs(70);
        assert_eq!(checks.is_banned(node(PEER), end), expected);
    }

    #[test]
    fn a_neighbour_that_forwarded_several_lies_of_others_for_a_short_while_keeps_its_tunnel() {
        check_spans(false, false);
        check_spans(true, true);
    }

    #[test]
    fn a_false_router_id_is_closed_although_babeld_uses_another_route() {
        let unused = OriginClaim {
            is_used: false,
            ..claim(VICTIM, PEER, 200, 5)
        };
        check(unused, Some((SuspicionKind::RouterId, 4_000)));
    }

    #[test]
    fn a_liar_is_banned_for_longer_each_time() {
        let (mut checks, tunnels) = (RouteChecks::default(), tunnels(1, Phase::Up));
        let mut lie = |second| {
            let now = Uptime::from_secs(second);
            let claims = [claim(VICTIM, PEER, 0, PEER)];
            checks.check(&claims, &BabelTable::default(), &tunnels, None, now);
            let end =
                (second..).find(|second| !checks.is_banned(node(PEER), Uptime::from_secs(*second)));
            end.unwrap() - second
        };
        assert_eq!([lie(100), lie(1_000), lie(10_000)], [600, 1_200, 2_400]);
        assert_eq!(lie(200_000), 600);
    }

    #[test]
    fn a_neighbour_that_announces_far_more_nodes_than_there_are_members_is_found() {
        let route = |number| Route {
            node: node(number),
            slot: SLOT,
            via: node(PEER),
            installed: true,
            metric: 200,
            refmetric: 1,
        };
        let found = |nodes: u32, known_at| {
            let table = BabelTable {
                routes: (0..nodes).map(route).collect(),
                ..BabelTable::default()
            };
            let members = Members {
                count: 100,
                at: Uptime::from_secs(known_at),
            };
            let (mut checks, tunnels) = (RouteChecks::default(), tunnels(1, Phase::Up));
            let mut check = |second| {
                let now = Uptime::from_secs(second);
                checks.check(&[], &table, &tunnels, Some(members), now)
            };
            assert_eq!(check(10), []);
            check(14).first().map(|found| found.kind)
        };
        assert_eq!(found(264, 10), None);
        assert_eq!(found(265, 10), Some(SuspicionKind::TooManyNodes));
        assert_eq!(found(20_000, 9), None);
    }
}
