//! Decides when a node asks another one whether its announced endpoints answer, and what follows from the answers.
//!
//! One peer's silence may be the fault of its own path, so only that of two different ones in a row counts.

use crate::{
    names::{Endpoint, Prefix},
    units::Uptime,
};
use std::{collections::BTreeMap, time::Duration};

/// Age from which an answer is sought again.
const CHECK_INTERVAL: Duration = Duration::from_secs(300);
/// Delay before an endpoint that is not known to answer is checked again.
const RETRY_DELAY: Duration = Duration::from_secs(20);
/// Number of silent checks in a row from which an endpoint counts as silent; further ones follow at the long interval.
const SILENT_CHECKS: u32 = 2;

/// What one check of an endpoint showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// A server of this network answered there.
    Answered,
    /// Nothing answered, or something else did.
    Silent,
    /// The peer has no route to the address, or may not try it.
    NotTried,
}

/// What is known of an endpoint of this node. The order is that in which endpoints are announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reachability {
    /// Another node got an answer there.
    Confirmed,
    /// No other node has tried it yet, or one only in vain.
    #[default]
    Unchecked,
    /// Other nodes got no answer there.
    Silent,
}

impl Reachability {
    /// All states that an endpoint can have.
    pub const ALL: [Self; 3] = [Self::Confirmed, Self::Unchecked, Self::Silent];

    /// Returns the name in metrics and documents.
    pub fn label(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Unchecked => "unchecked",
            Self::Silent => "silent",
        }
    }
}

/// The checks of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct History {
    checked_at: Option<Uptime>,
    has_answered: bool,
    /// Number of silent checks since the last answer; those of one peer in a row count once.
    silent: u32,
    /// The peer that got no answer the last time.
    silent_to: Option<Prefix>,
}

impl History {
    fn reachability(self) -> Reachability {
        match (self.silent >= SILENT_CHECKS, self.has_answered) {
            (true, _) => Reachability::Silent,
            (false, true) => Reachability::Confirmed,
            (false, false) => Reachability::Unchecked,
        }
    }

    fn is_due(self, now: Uptime) -> bool {
        let is_settled = self.silent >= SILENT_CHECKS || self.silent == 0 && self.has_answered;
        let delay = if is_settled {
            CHECK_INTERVAL
        } else {
            RETRY_DELAY
        };
        self.checked_at.is_none_or(|at| now.since(at) >= delay)
    }
}

/// The checks of all endpoints that this node announces.
#[derive(Clone, Debug, Default)]
pub struct EndpointChecks(BTreeMap<Endpoint, History>);

impl EndpointChecks {
    /// Forgets endpoints that are not announced any more, and returns those that are to be checked now.
    pub fn due(&mut self, announced: &[Endpoint], now: Uptime) -> Vec<Endpoint> {
        self.0.retain(|endpoint, _| announced.contains(endpoint));
        let is_due = |endpoint: &&Endpoint| {
            let history = self.0.get(endpoint).copied().unwrap_or_default();
            history.is_due(now)
        };
        announced.iter().filter(is_due).copied().collect()
    }

    /// Records the outcome of a check by that peer; `NotTried` only delays the next one.
    pub fn note(&mut self, endpoint: Endpoint, peer: Prefix, outcome: CheckOutcome, now: Uptime) {
        let history = self.0.entry(endpoint).or_default();
        history.checked_at = Some(now);
        match outcome {
            CheckOutcome::Answered => {
                (history.has_answered, history.silent) = (true, 0);
                history.silent_to = None;
            }
            CheckOutcome::Silent if history.silent_to == Some(peer) => {}
            CheckOutcome::Silent => {
                history.silent = history.silent.saturating_add(1);
                history.silent_to = Some(peer);
            }
            CheckOutcome::NotTried => {}
        }
    }

    /// What is known of each endpoint that was checked.
    pub fn reachability(&self) -> BTreeMap<Endpoint, Reachability> {
        let histories = self.0.iter();
        histories
            .map(|(endpoint, history)| (*endpoint, history.reachability()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CheckOutcome::{Answered, NotTried, Silent};

    fn prefix(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    /// Lets two peers check one endpoint in turn whenever that is due, with these outcomes; compares the seconds and what is known after each.
    #[track_caller]
    fn check(outcomes: &[CheckOutcome], expected: &[(u64, Reachability)]) {
        let endpoint = "udp:45.67.0.1:1194".parse().unwrap();
        let mut checks = EndpointChecks::default();
        let mut outcomes = outcomes.iter().zip([1, 2].into_iter().cycle());
        let mut seen = Vec::new();
        for second in 0..2_000 {
            let now = Uptime::from_secs(second);
            if checks.due(&[endpoint], now).is_empty() {
                continue;
            }
            let Some((outcome, peer)) = outcomes.next() else {
                break;
            };
            checks.note(endpoint, prefix(peer), *outcome, now);
            seen.push((second, checks.reachability()[&endpoint]));
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn one_answer_confirms_and_two_silent_checks_in_a_row_refute() {
        use Reachability::{Confirmed, Silent as S, Unchecked};
        check(&[Answered, Answered], &[(0, Confirmed), (300, Confirmed)]);
        check(
            &[Silent, Silent, Silent, Answered],
            &[(0, Unchecked), (20, S), (320, S), (620, Confirmed)],
        );
        check(
            &[Answered, Silent, Answered, Silent, Silent],
            &[
                (0, Confirmed),
                (300, Confirmed),
                (320, Confirmed),
                (620, Confirmed),
                (640, S),
            ],
        );
        check(&[NotTried, Silent], &[(0, Unchecked), (20, Unchecked)]);
    }

    #[test]
    fn one_peer_alone_never_refutes() {
        let endpoint = "udp:45.67.0.1:1194".parse().unwrap();
        let mut checks = EndpointChecks::default();
        let seen = [1, 1, 1, 2].map(|peer| {
            checks.note(endpoint, prefix(peer), Silent, Uptime::default());
            checks.reachability()[&endpoint]
        });
        let unchecked = Reachability::Unchecked;
        assert_eq!(
            seen,
            [unchecked, unchecked, unchecked, Reachability::Silent]
        );
    }

    #[test]
    fn an_endpoint_that_is_announced_no_more_is_forgotten() {
        let endpoint = "udp:45.67.0.1:1194".parse().unwrap();
        let mut checks = EndpointChecks::default();
        checks.note(endpoint, prefix(1), Answered, Uptime::default());
        assert!(checks.due(&[], Uptime::default()).is_empty());
        assert!(checks.reachability().is_empty());
        assert_eq!(checks.due(&[endpoint], Uptime::default()), [endpoint]);
    }
}
