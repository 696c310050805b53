//! Decides which endpoint a dial tries, and when it leaves one that is silent for the next.
//!
//! A path may drop UDP, or the packets to one of the peer's addresses, without notice. While other endpoints are
//! untried, the first dial of a peer waits only briefly for a first sign of the server, much as RFC 8305 (section 5) starts
//! its next connection before the first has failed. If the whole dial fails, the next ones wait
//! their full time at each endpoint, so that a peer behind a very slow path is reached as well.

use crate::{names::Endpoint, units::Uptime};
use std::{collections::VecDeque, time::Duration};

/// Time in which a server answers the first packets of a client. OpenVPN sends them at 0 and 1 s (`--tls-timeout 1`), so
/// one may be lost, and a round trip may take half a second even then.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// One attempt to reach a peer: an endpoint and a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The endpoint that is dialled.
    pub endpoint: Endpoint,
    /// Whether the network's second `tls-crypt` key is used instead of the first.
    pub uses_other_key: bool,
    /// The port of this host from which the endpoint is dialled; `None` for any.
    pub local_port: Option<u16>,
}

/// The attempts of one dial, and how far the current one is.
#[derive(Clone, Debug)]
pub struct Attempts {
    current: Attempt,
    /// Attempts still to be made, best first.
    untried: VecDeque<Attempt>,
    /// Whether each attempt has its full time.
    is_patient: bool,
    /// The moment at which the client sent its first packet; `None` before, and once the server has answered.
    unanswered_since: Option<Uptime>,
}

impl Attempts {
    /// Makes one attempt for each endpoint, and with `is_key_replaced` one more with the network's other key. If `is_patient`, each
    /// has its full time. Returns `None` if there is no endpoint.
    pub fn new(endpoints: &[Endpoint], is_key_replaced: bool, is_patient: bool) -> Option<Self> {
        let keys = [false, true]
            .into_iter()
            .take(1 + usize::from(is_key_replaced));
        let attempts = keys.flat_map(|uses_other_key| {
            endpoints.iter().map(move |endpoint| Attempt {
                endpoint: *endpoint,
                uses_other_key,
                local_port: None,
            })
        });
        let mut untried: VecDeque<_> = attempts.collect();
        Some(Self {
            current: untried.pop_front()?,
            untried,
            is_patient,
            unanswered_since: None,
        })
    }

    /// Makes all attempts from this port.
    pub fn with_local_port(mut self, local_port: Option<u16>) -> Self {
        let attempts = self.untried.iter_mut().chain([&mut self.current]);
        attempts.for_each(|attempt| attempt.local_port = local_port);
        self
    }

    /// Starts over with the current endpoint alone, which has its full time.
    pub fn start_over(&mut self, is_key_replaced: bool) {
        let current = self.current;
        if let Some(attempts) = Self::new(&[current.endpoint], is_key_replaced, true) {
            *self = attempts.with_local_port(current.local_port);
        }
    }

    /// The attempts of a dial that has succeeded with this one.
    pub fn succeeded(current: Attempt) -> Self {
        Self {
            current,
            untried: VecDeque::new(),
            is_patient: true,
            unanswered_since: None,
        }
    }

    /// Returns the attempt that is being made.
    pub fn current(&self) -> Attempt {
        self.current
    }

    /// Returns whether another endpoint or key is left to try.
    pub fn has_other(&self) -> bool {
        !self.untried.is_empty()
    }

    /// Goes on to the next attempt, if one is left, and returns the one that is current then.
    pub fn advance(&mut self) -> Attempt {
        if let Some(next) = self.untried.pop_front() {
            self.current = next;
            self.unanswered_since = None;
        }
        self.current
    }

    /// Records that the client begins to send.
    pub fn note_start(&mut self, now: Uptime) {
        self.unanswered_since = Some(now);
    }

    /// Records that the server has answered.
    pub fn note_answer(&mut self) {
        self.unanswered_since = None;
    }

    /// Returns whether the current attempt is to end now, in favour of the next one.
    pub fn is_abandoned(&self, now: Uptime) -> bool {
        let is_silent = self
            .unanswered_since
            .is_some_and(|since| now.since(since) >= FIRST_ANSWER_TIMEOUT);
        is_silent && !self.is_patient && self.has_other()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Uptime {
        Uptime(Duration::from_millis(ms))
    }

    fn endpoints() -> [Endpoint; 2] {
        ["udp:192.0.2.1:1194", "tcp:192.0.2.1:1194"].map(|text| text.parse().unwrap())
    }

    #[test]
    fn a_silent_endpoint_is_left_after_one_and_a_half_seconds_while_another_is_untried() {
        let mut attempts = Attempts::new(&endpoints(), false, false).unwrap();
        assert!(!attempts.is_abandoned(at(60_000)), "nothing was sent yet");
        attempts.note_start(at(1_000));
        assert!(!attempts.is_abandoned(at(2_499)));
        assert!(attempts.is_abandoned(at(2_500)));
        assert_eq!(attempts.advance().endpoint, endpoints()[1]);
        attempts.note_start(at(3_100));
        assert!(!attempts.is_abandoned(at(60_000)), "it is the last one");
        assert_eq!(attempts.advance().endpoint, endpoints()[1]);
    }

    #[test]
    fn an_endpoint_that_answered_has_its_full_time_and_so_has_each_after_a_failed_dial() {
        let mut attempts = Attempts::new(&endpoints(), false, false).unwrap();
        attempts.note_start(at(0));
        attempts.note_answer();
        assert!(!attempts.is_abandoned(at(9_000)));
        let mut attempts = Attempts::new(&endpoints(), false, true).unwrap();
        attempts.note_start(at(0));
        assert!(!attempts.is_abandoned(at(9_000)));
    }

    #[test]
    fn all_endpoints_are_tried_with_the_other_key_too_while_it_is_replaced() {
        let mut attempts = Attempts::new(&endpoints(), true, false).unwrap();
        let mut made = vec![attempts.current()];
        while attempts.has_other() {
            made.push(attempts.advance());
        }
        let expected = [(0, false), (1, false), (0, true), (1, true)];
        let expected = expected.map(|(index, uses_other_key)| Attempt {
            endpoint: endpoints()[index],
            uses_other_key,
            local_port: None,
        });
        assert_eq!(made, expected);
        assert!(Attempts::new(&[], true, false).is_none());
    }

    #[test]
    fn all_attempts_are_made_from_the_port_of_an_opened_path_and_so_are_those_after_a_restart() {
        let attempts = Attempts::new(&endpoints(), false, false).unwrap();
        let mut attempts = attempts.with_local_port(Some(40_000));
        attempts.advance();
        let last = attempts.current();
        assert_eq!(
            (last.endpoint, last.local_port),
            (endpoints()[1], Some(40_000))
        );
        attempts.start_over(true);
        assert_eq!(attempts.current(), last);
        let next = attempts.advance();
        assert_eq!((next.uses_other_key, next.local_port), (true, Some(40_000)));
    }
}
