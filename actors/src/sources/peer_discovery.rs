//! Asks other nodes, over the overlay, where they can be dialled.
//!
//! The nodes are known from babeld's routes, so discovery works without the registry. A few random nodes are asked at a time.
//! Answers are limited in size, and filtered. The certificate proves which node answers; nothing proves that the answer is
//! true.

use crate::{
    messages::{PeerSource, PeersReported, RoutesRead},
    store::{SharedCandidates, Store},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use membership::peer_api::{PeerApiClient, PeerApiError, PeerReport};
use os::clock::Clock;
use os::randomness::Randomness;
use policies::{
    names::Prefix,
    observation::{BabelTable, INFINITY},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use wire::errors::Chain;

/// Maximum number of requests in flight.
const MAX_CONCURRENT_REQUESTS: usize = 4;
/// Number of confirmed peers from which on requests slow down to one per [`SLOW_INTERVAL`].
const ENOUGH_CONFIRMED_PEERS: usize = 32;
/// Time for which an answer counts as current.
const ANSWER_LIFETIME: Duration = Duration::from_secs(1800);
/// Delay before a node is asked again whose endpoints could not be dialled.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Delay before a node that did not answer is first asked again. It doubles with each failure, up to [`ANSWER_LIFETIME`].
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Maximum number of requests in a burst.
const MAX_BURST: u32 = 32;
/// Time after which one more request is allowed once the burst is spent: 20 requests a minute.
const REFILL_INTERVAL: Duration = Duration::from_secs(3);
/// Interval between two requests once enough peers are confirmed.
const SLOW_INTERVAL: Duration = Duration::from_secs(60);

/// The dependencies of peer discovery.
#[derive(Clone)]
pub struct PeerDiscoveryDeps {
    /// This node, which is never asked.
    pub me: Prefix,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The client of the peer API.
    pub peers: PeerApiClient,
    /// The receivers of answers.
    pub readers: Vec<Recipient<PeersReported>>,
}

/// The actor that asks other nodes for their endpoints.
pub struct PeerDiscovery {
    me: Prefix,
    peers: PeerApiClient,
    clock: Clock,
    random: Randomness,
    candidates: SharedCandidates,
    readers: Vec<Recipient<PeersReported>>,
    requests: Requests,
}

impl PeerDiscovery {
    /// Builds the actor; it asks whenever a reading of routes arrives.
    pub fn new(deps: PeerDiscoveryDeps) -> Self {
        let PeerDiscoveryDeps {
            me,
            store,
            peers,
            readers,
        } = deps;
        let Store {
            clock,
            random,
            candidates,
            ..
        } = store;
        Self {
            me,
            peers,
            clock,
            random,
            candidates,
            readers,
            requests: Requests::default(),
        }
    }

    /// Starts as many requests as are due now.
    fn start_requests(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let (mut current, mut undialable) = (BTreeSet::new(), BTreeSet::new());
        for candidate in self.candidates.load().iter() {
            let confirmed = candidate.confirmed_at;
            if candidate.failed_at.is_some() && candidate.failed_at > confirmed {
                undialable.insert(candidate.peer);
            } else if confirmed.is_some_and(|at| now.since(at) < ANSWER_LIFETIME) {
                current.insert(candidate.peer);
            }
        }
        for peer in self
            .requests
            .start_next(&current, &undialable, now, &self.random)
        {
            let peers = self.peers.clone();
            let request = async move { peers.fetch_endpoints(peer).await };
            ctx.spawn(
                request
                    .into_actor(self)
                    .map(move |answer, actor, ctx| actor.handle_answer(peer, answer, ctx)),
            );
        }
    }

    fn handle_answer(
        &mut self,
        peer: Prefix,
        answer: Result<PeerReport, PeerApiError>,
        ctx: &mut Context<Self>,
    ) {
        let at = self.clock.now();
        self.requests.finish(peer, answer.is_ok(), at);
        match answer {
            Ok(report) => {
                let reported = PeersReported {
                    at,
                    source: PeerSource::Itself,
                    peers: vec![report],
                };
                // The number of messages is bounded: at most four requests are in flight.
                for reader in &self.readers {
                    reader.do_send(reported.clone());
                }
            }
            Err(error) => {
                tracing::debug!(%peer, error = %Chain(&error), "peer did not report its endpoints");
                ctx.run_later(MIN_RETRY_DELAY, Self::start_requests);
            }
        }
        self.start_requests(ctx);
    }
}

impl Actor for PeerDiscovery {
    type Context = Context<Self>;
}

impl Handler<RoutesRead> for PeerDiscovery {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, ctx: &mut Self::Context) {
        let Some(table) = read.table else { return };
        self.requests.reachable = reachable_nodes(&table, self.me);
        self.start_requests(ctx);
    }
}

/// Returns all other nodes to which babeld has installed a route.
fn reachable_nodes(table: &BabelTable, me: Prefix) -> BTreeSet<Prefix> {
    let routes = table
        .routes
        .iter()
        .filter(|route| route.installed && route.metric < INFINITY);
    routes
        .map(|route| route.node)
        .filter(|node| *node != me)
        .collect()
}

/// The schedule of requests: which nodes were asked when, and how many more may be asked now.
#[derive(Default)]
struct Requests {
    reachable: BTreeSet<Prefix>,
    /// The time of the last request to each node, and its failures in a row.
    history: BTreeMap<Prefix, (Uptime, u32)>,
    in_flight: BTreeSet<Prefix>,
    /// The number of requests that count towards [`MAX_BURST`]; one is taken off per [`REFILL_INTERVAL`].
    spent: u32,
    refilled_at: Uptime,
    last_request_at: Option<Uptime>,
}

impl Requests {
    /// Chooses at random which nodes to ask now, and notes that requests to them are in flight.
    ///
    /// Nodes in `current`, whose answers are current, are left out. Nodes in `undialable` could not be dialled: they may have
    /// moved, so they are asked again sooner.
    fn start_next(
        &mut self,
        current: &BTreeSet<Prefix>,
        undialable: &BTreeSet<Prefix>,
        now: Uptime,
        random: &Randomness,
    ) -> Vec<Prefix> {
        self.refill(now);
        let is_slow = current.len() >= ENOUGH_CONFIRMED_PEERS;
        if is_slow
            && self
                .last_request_at
                .is_some_and(|last| now.since(last) < SLOW_INTERVAL)
        {
            return Vec::new();
        }
        let limit = if is_slow { 1 } else { MAX_CONCURRENT_REQUESTS };
        let left_of_burst = usize::try_from(MAX_BURST.saturating_sub(self.spent)).unwrap_or(0);
        let count = limit
            .saturating_sub(self.in_flight.len())
            .min(left_of_burst);
        self.history.retain(|peer, _| self.reachable.contains(peer));
        let is_due = |peer: &&Prefix| {
            let max_delay = if undialable.contains(peer) {
                RECHECK_INTERVAL
            } else {
                ANSWER_LIFETIME
            };
            let has_waited = self.history.get(peer).is_none_or(|(at, failures)| {
                now.since(*at) >= delay_after(*failures).min(max_delay)
            });
            has_waited && !current.contains(peer) && !self.in_flight.contains(peer)
        };
        let mut chosen: Vec<_> = self.reachable.iter().filter(is_due).copied().collect();
        random.shuffle(&mut chosen);
        chosen.truncate(count);
        if !chosen.is_empty() {
            self.last_request_at = Some(now);
        }
        self.spent += u32::try_from(chosen.len()).unwrap_or(MAX_BURST);
        self.in_flight.extend(chosen.iter().copied());
        chosen
    }

    fn finish(&mut self, peer: Prefix, has_answered: bool, now: Uptime) {
        self.in_flight.remove(&peer);
        let failures = self.history.get(&peer).map_or(0, |(_, failures)| *failures);
        let failures = if has_answered {
            0
        } else {
            failures.saturating_add(1)
        };
        self.history.insert(peer, (now, failures));
    }

    fn refill(&mut self, now: Uptime) {
        while self.spent > 0 && now.since(self.refilled_at) >= REFILL_INTERVAL {
            self.spent -= 1;
            self.refilled_at = self.refilled_at + REFILL_INTERVAL;
        }
        if self.spent == 0 {
            self.refilled_at = now;
        }
    }
}

/// Returns the delay before a node is asked again after this many failures in a row.
fn delay_after(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => ANSWER_LIFETIME,
        Some(doublings) => MIN_RETRY_DELAY
            .saturating_mul(2u32.saturating_pow(doublings))
            .min(ANSWER_LIFETIME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(range: std::ops::Range<u32>) -> BTreeSet<Prefix> {
        range
            .map(|number| Prefix::new(number, 16).unwrap())
            .collect()
    }

    fn at(seconds: u64) -> Uptime {
        Uptime::from_secs(1000 + seconds)
    }

    /// Starts requests at that second, finishes them with or without an answer, and compares their number.
    #[track_caller]
    fn check(
        requests: &mut Requests,
        current: u32,
        seconds: u64,
        has_answered: bool,
        expected: usize,
    ) {
        let asked = requests.start_next(
            &peers(0..current),
            &BTreeSet::new(),
            at(seconds),
            &Randomness::from_seed(1),
        );
        assert_eq!(asked.len(), expected);
        for peer in asked {
            assert!(peer.number() >= current);
            requests.finish(peer, has_answered, at(seconds));
        }
    }

    fn requests(reachable: u32) -> Requests {
        Requests {
            reachable: peers(0..reachable),
            ..Requests::default()
        }
    }

    #[test]
    fn all_nodes_of_a_small_network_are_asked_at_once_and_again_when_their_answers_expire() {
        let mut requests = requests(6);
        check(&mut requests, 0, 0, true, 4);
        check(&mut requests, 0, 0, true, 2);
        check(&mut requests, 0, 0, true, 0);
        check(&mut requests, 0, 1799, true, 0);
        check(&mut requests, 0, 1800, true, 4);
    }

    #[test]
    fn at_most_four_requests_are_in_flight_and_no_node_is_asked_twice() {
        let mut requests = requests(9);
        let first =
            requests.start_next(&peers(0..0), &peers(0..0), at(0), &Randomness::from_seed(1));
        assert_eq!(
            (
                first.len(),
                requests
                    .start_next(&peers(0..0), &peers(0..0), at(0), &Randomness::from_seed(1))
                    .len()
            ),
            (4, 0)
        );
        requests.finish(first[0], true, at(0));
        let next =
            requests.start_next(&peers(0..0), &peers(0..0), at(0), &Randomness::from_seed(1));
        assert_eq!(next.len(), 1);
        assert!(!first.contains(&next[0]));
    }

    #[test]
    fn a_node_that_does_not_answer_is_asked_again_after_growing_delays() {
        let mut requests = requests(1);
        for (seconds, expected) in [(0, 1), (0, 0), (1, 1), (2, 0), (3, 1), (6, 0), (7, 1)] {
            check(&mut requests, 0, seconds, false, expected);
        }
    }

    #[test]
    fn a_node_that_could_not_be_dialled_is_asked_again_after_a_minute() {
        let mut requests = requests(1);
        check(&mut requests, 0, 0, true, 1);
        for (seconds, expected) in [(59, 0), (60, 1)] {
            assert_eq!(
                requests
                    .start_next(
                        &BTreeSet::new(),
                        &peers(0..1),
                        at(seconds),
                        &Randomness::from_seed(1)
                    )
                    .len(),
                expected
            );
        }
    }

    #[test]
    fn the_rate_of_requests_is_limited_in_a_large_network() {
        let mut requests = requests(60_000);
        for _ in 0..8 {
            check(&mut requests, 0, 0, true, 4);
        }
        check(&mut requests, 0, 0, true, 0);
        check(&mut requests, 0, 2, true, 0);
        check(&mut requests, 0, 3, true, 1);
        check(&mut requests, 0, 60, true, 4);
    }

    #[test]
    fn a_node_with_enough_confirmed_peers_sends_one_request_a_minute() {
        let mut requests = requests(100);
        check(&mut requests, 32, 0, true, 1);
        check(&mut requests, 32, 0, true, 0);
        check(&mut requests, 32, 59, true, 0);
        check(&mut requests, 32, 60, true, 1);
    }

    #[test]
    fn nodes_that_are_not_reachable_any_more_are_forgotten() {
        let mut requests = requests(9);
        for _ in 0..3 {
            for peer in
                requests.start_next(&peers(0..0), &peers(0..0), at(0), &Randomness::from_seed(1))
            {
                requests.finish(peer, true, at(0));
            }
        }
        assert_eq!(requests.history.len(), 9);
        requests.reachable = peers(0..2);
        check(&mut requests, 0, 1, true, 0);
        assert_eq!(requests.history.len(), 2);
    }
}
