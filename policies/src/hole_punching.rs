//! Decides to which nodes a way through two NATs is opened by sending from both sides at once, and what an attempt has shown.
//!
//! The terms are those of RFC 4787 and RFC 5128 (section 3.3).

use crate::{names::Prefix, observation::Candidate, units::Uptime};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    time::Duration,
};

/// Time for which a node must have been reachable by others only, so that its endpoints could be learnt and tried.
const MIN_WAIT: Duration = Duration::from_secs(5);
/// The same at the node with the higher prefix, so that two nodes do not try each other at once.
const MIN_WAIT_OF_HIGHER: Duration = Duration::from_secs(15);
/// Interval between two attempts of this node.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(3);
/// Delay before a node is tried again; it doubles with each failure.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(30);
/// The same after an attempt in which no path was opened, such as because a call got lost while routes changed.
const MIN_RETRY_DELAY_OF_CALL: Duration = Duration::from_secs(5);
/// Maximum delay before a node is tried again.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1800);
/// Time in which a tunnel has to come up on an opened path. The other side sends packets for as long.
pub const OPEN_SPAN: Duration = Duration::from_secs(12);

/// How a NAT chooses the external port of a socket (RFC 4787, section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatMapping {
    /// Fewer than two nodes have seen the same socket.
    #[default]
    Unknown,
    /// All destinations see the same address and port.
    EndpointIndependent,
    /// Each destination sees another one: a symmetric NAT.
    EndpointDependent,
}

impl NatMapping {
    /// Returns what these addresses of one socket show, each as another node saw it.
    pub fn of(seen: &[SocketAddr]) -> Self {
        match seen {
            [] | [_] => Self::Unknown,
            [first, others @ ..] if others.iter().all(|other| other == first) => {
                Self::EndpointIndependent
            }
            [_, ..] => Self::EndpointDependent,
        }
    }

    /// Returns the name in documents.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::EndpointIndependent => "endpoint_independent",
            Self::EndpointDependent => "endpoint_dependent",
        }
    }
}

/// The result of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PunchResult {
    /// A tunnel came up.
    TunnelUp,
    /// No packet passed, and one of the two NATs is symmetric.
    EndpointDependentNat,
    /// No packet passed, for another or an unknown reason.
    NoAnswer,
    /// No third node saw the packets of both sides.
    NotObserved,
    /// The other node did not take part.
    Declined,
}

impl PunchResult {
    /// All results, in the order of the metric.
    pub const ALL: [Self; 5] = [
        Self::TunnelUp,
        Self::EndpointDependentNat,
        Self::NoAnswer,
        Self::NotObserved,
        Self::Declined,
    ];

    /// Returns the metric label, in snake case.
    pub fn label(self) -> &'static str {
        match self {
            Self::TunnelUp => "tunnel_up",
            Self::EndpointDependentNat => "endpoint_dependent_nat",
            Self::NoAnswer => "no_answer",
            Self::NotObserved => "not_observed",
            Self::Declined => "declined",
        }
    }

    /// Returns the result of an attempt in which no tunnel came up, by the NATs of the two sides.
    pub fn of_silence(mappings: [NatMapping; 2]) -> Self {
        if mappings.contains(&NatMapping::EndpointDependent) {
            Self::EndpointDependentNat
        } else {
            Self::NoAnswer
        }
    }
}

impl fmt::Display for PunchResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What decides with which nodes an attempt makes sense.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The prefix of this node.
    pub me: Prefix,
    /// Whether others reach this node, so that they dial it.
    pub is_reached: bool,
    /// Whether this node dials fewer tunnels than it wants.
    pub has_room: bool,
    /// The nodes to which babeld has a route.
    pub reachable: &'a BTreeSet<Prefix>,
    /// The nodes to which a tunnel of either role leads.
    pub neighbours: &'a BTreeSet<Prefix>,
    /// The nodes that could be dialled.
    pub candidates: &'a [Candidate],
}

impl Situation<'_> {
    /// Returns the nodes with which an attempt makes sense: no tunnel leads there, and no dial is possible or the last one failed.
    pub fn targets(self) -> BTreeSet<Prefix> {
        if self.is_reached || !self.has_room {
            return BTreeSet::new();
        }
        let is_dialable = |peer: Prefix| {
            let mut known = self.candidates.iter();
            known.any(|candidate| candidate.peer == peer && candidate.failures == 0)
        };
        let targets = self.reachable.iter().copied().filter(|peer| {
            *peer != self.me && !self.neighbours.contains(peer) && !is_dialable(*peer)
        });
        targets.collect()
    }
}

/// What is known of the attempts with one node.
#[derive(Clone, Copy, Debug)]
struct History {
    /// The moment since which an attempt makes sense.
    since: Uptime,
    last: Option<(Uptime, PunchResult)>,
    /// Number of failed attempts in a row.
    failures: u32,
}

impl History {
    fn is_due(self, is_higher: bool, now: Uptime) -> bool {
        let wait = if is_higher {
            MIN_WAIT_OF_HIGHER
        } else {
            MIN_WAIT
        };
        let has_waited = now.since(self.since) >= wait;
        let doublings = self.failures.saturating_sub(1).min(16);
        let has_rested = |(at, result)| {
            let delay = match result {
                PunchResult::NotObserved | PunchResult::Declined => MIN_RETRY_DELAY_OF_CALL,
                PunchResult::TunnelUp
                | PunchResult::EndpointDependentNat
                | PunchResult::NoAnswer => MIN_RETRY_DELAY,
            };
            let delay = delay.saturating_mul(1 << doublings);
            now.since(at) >= delay.min(MAX_RETRY_DELAY)
        };
        has_waited && self.last.is_none_or(has_rested)
    }
}

/// The attempts of this node.
#[derive(Clone, Debug, Default)]
pub struct PunchAttempts {
    nodes: BTreeMap<Prefix, History>,
    last_attempt: Option<Uptime>,
}

impl PunchAttempts {
    /// Forgets nodes that `are_known` no longer, and returns those of `targets` with which an attempt is due now.
    pub fn due(
        &mut self,
        me: Prefix,
        targets: &BTreeSet<Prefix>,
        are_known: &BTreeSet<Prefix>,
        now: Uptime,
    ) -> Vec<Prefix> {
        self.nodes.retain(|peer, history| {
            are_known.contains(peer) && (targets.contains(peer) || history.last.is_some())
        });
        for peer in targets {
            self.nodes.entry(*peer).or_insert(History {
                since: now,
                last: None,
                failures: 0,
            });
        }
        let last = self.last_attempt;
        if last.is_some_and(|at| now.since(at) < ATTEMPT_INTERVAL) {
            return Vec::new();
        }
        let is_due = |peer: &&Prefix| {
            let history = self.nodes.get(peer);
            history.is_some_and(|history| history.is_due(me > **peer, now))
        };
        targets.iter().filter(is_due).copied().collect()
    }

    /// Records the result of an attempt.
    pub fn note(&mut self, peer: Prefix, result: PunchResult, now: Uptime) {
        self.last_attempt = Some(now);
        let history = self.nodes.entry(peer).or_insert(History {
            since: now,
            last: None,
            failures: 0,
        });
        history.last = Some((now, result));
        history.failures = match result {
            PunchResult::TunnelUp => 0,
            PunchResult::EndpointDependentNat
            | PunchResult::NoAnswer
            | PunchResult::NotObserved
            | PunchResult::Declined => history.failures.saturating_add(1),
        };
    }

    /// The last result of each node that was tried.
    pub fn results(&self) -> BTreeMap<Prefix, PunchResult> {
        let tried = self.nodes.iter();
        tried
            .filter_map(|(peer, history)| Some((*peer, history.last?.1)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn nodes(numbers: &[u32]) -> BTreeSet<Prefix> {
        numbers.iter().map(|number| node(*number)).collect()
    }

    fn candidate(number: u32, failures: u32) -> Candidate {
        Candidate {
            peer: node(number),
            endpoints: vec!["udp:45.67.0.1:1194".parse().unwrap()],
            on_lan: 0,
            confirmed_at: None,
            failed_at: None,
            failures,
            transit_cost: 0,
        }
    }

    #[track_caller]
    fn check_targets(is_reached: bool, has_room: bool, expected: &[u32]) {
        let situation = Situation {
            me: node(1),
            is_reached,
            has_room,
            reachable: &nodes(&[1, 2, 3, 4, 5]),
            neighbours: &nodes(&[2]),
            candidates: &[candidate(2, 0), candidate(3, 0), candidate(4, 1)],
        };
        assert_eq!(situation.targets(), nodes(expected));
    }

    #[test]
    fn only_nodes_that_cannot_be_dialled_are_tried_and_only_by_a_node_that_nobody_reaches() {
        check_targets(false, true, &[4, 5]);
        check_targets(true, true, &[]);
        check_targets(false, false, &[]);
    }

    /// Tries whichever node is due in each second; compares the seconds of the attempts.
    #[track_caller]
    fn check_times(me: u32, results: &[PunchResult], expected: &[u64]) {
        let mut attempts = PunchAttempts::default();
        let mut results = results.iter();
        let mut seen = Vec::new();
        for second in 0..4_000 {
            let now = Uptime::from_secs(second);
            let known = nodes(&[7]);
            if attempts.due(node(me), &known, &known, now).is_empty() {
                continue;
            }
            let Some(result) = results.next() else { break };
            attempts.note(node(7), *result, now);
            seen.push(second);
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_node_with_the_lower_prefix_begins_and_failures_delay_the_next_attempt() {
        use PunchResult::{NoAnswer, TunnelUp};
        check_times(1, &[NoAnswer; 4], &[5, 35, 95, 215]);
        check_times(9, &[NoAnswer; 2], &[15, 45]);
        check_times(1, &[PunchResult::Declined; 3], &[5, 10, 20]);
        check_times(1, &[NoAnswer, TunnelUp, NoAnswer], &[5, 35, 65]);
    }

    #[test]
    fn attempts_keep_their_distance_and_failures_are_remembered_while_the_node_is_known() {
        let mut attempts = PunchAttempts::default();
        let both = nodes(&[7, 8]);
        let at = Uptime::from_secs;
        attempts.due(node(1), &both, &both, at(0));
        assert_eq!(
            attempts.due(node(1), &both, &both, at(5)),
            [node(7), node(8)]
        );
        attempts.note(node(7), PunchResult::NoAnswer, at(5));
        assert_eq!(attempts.due(node(1), &both, &both, at(7)), []);
        assert_eq!(attempts.due(node(1), &both, &both, at(8)), [node(8)]);
        attempts.due(node(1), &nodes(&[8]), &both, at(9));
        assert_eq!(
            attempts.results(),
            [(node(7), PunchResult::NoAnswer)].into()
        );
        attempts.due(node(1), &nodes(&[8]), &nodes(&[8]), at(10));
        assert!(attempts.results().is_empty());
    }

    #[test]
    fn two_different_ports_of_one_socket_show_a_symmetric_nat() {
        let seen = |ports: &[u16]| {
            let addresses: Vec<_> = ports
                .iter()
                .map(|port| SocketAddr::from(([45, 67, 2, 1], *port)))
                .collect();
            NatMapping::of(&addresses)
        };
        assert_eq!(seen(&[]), NatMapping::Unknown);
        assert_eq!(seen(&[7]), NatMapping::Unknown);
        assert_eq!(seen(&[7, 7]), NatMapping::EndpointIndependent);
        assert_eq!(seen(&[7, 8]), NatMapping::EndpointDependent);
        let silence = |mapping| PunchResult::of_silence([NatMapping::Unknown, mapping]);
        assert_eq!(
            silence(NatMapping::EndpointIndependent),
            PunchResult::NoAnswer
        );
        assert_eq!(
            silence(NatMapping::EndpointDependent),
            PunchResult::EndpointDependentNat
        );
    }
}
