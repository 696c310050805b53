//! Asks nodes, over the overlay, where they can be dialled.
//!
//! babeld's table says who is there; the registry need not. Who is asked is chosen at random, a few at
//! a time; answers are bounded and filtered, and prove nothing but what the certificate proves.

use crate::store::Store;
use crate::{
    messages::{PeerSource, PeersReported, RoutesRead},
    store::SharedCandidates,
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use membership::peer_api::PeerReport;
use membership::peer_api::{PeerApiClient, PeerApiError};
use os::clock::Clock;
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

/// Most questions under way.
const AT_ONCE: usize = 4;
/// With so many dialable peers confirmed, only a trickle of questions goes on.
const ENOUGH: usize = 32;
/// So long an answer is believed.
const FRESH: Duration = Duration::from_secs(1800);
/// So soon somebody is asked again whose answer proved wrong.
const DOUBT: Duration = Duration::from_secs(60);
/// Who did not answer is asked again after this, doubled with each failure up to [`FRESH`].
const RETRY: Duration = Duration::from_secs(1);
/// Questions that may be asked in a row, and how soon one more may be.
const BURST: u32 = 32;
/// See [`BURST`]: 20 a minute.
const PACE: Duration = Duration::from_secs(3);
/// Pace of the trickle.
const TRICKLE: Duration = Duration::from_secs(60);

/// What peer discovery is built from.
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

/// The actor that chooses whom to ask.
pub struct PeerDiscovery {
    me: Prefix,
    asker: PeerApiClient,
    clock: Clock,
    peers: SharedCandidates,
    to: Vec<Recipient<PeersReported>>,
    questions: Questions,
}

impl PeerDiscovery {
    /// `peers` is what the cache knows already.
    pub fn new(deps: PeerDiscoveryDeps) -> Self {
        let PeerDiscoveryDeps {
            me,
            store,
            peers: asker,
            readers: to,
        } = deps;
        let Store {
            clock,
            candidates: peers,
            ..
        } = store;

        Self {
            me,
            asker,
            clock,
            peers,
            to,
            questions: Questions::default(),
        }
    }

    fn ask_some(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let fresh = |confirmed: Option<Uptime>| confirmed.is_some_and(|at| now.since(at) < FRESH);
        let peers = self.peers.load();
        let (mut known, mut doubted) = (BTreeSet::new(), BTreeSet::new());
        for candidate in peers.iter() {
            if candidate.failed.is_some() && candidate.failed > candidate.confirmed {
                doubted.insert(candidate.peer);
            } else if fresh(candidate.confirmed) {
                known.insert(candidate.peer);
            }
        }
        for peer in self.questions.next(&known, &doubted, now) {
            let asker = self.asker.clone();
            let ask = async move { asker.ask(peer).await };
            ctx.spawn(
                ask.into_actor(self)
                    .map(move |answer, client, ctx| client.answered(peer, answer, ctx)),
            );
        }
    }

    fn answered(
        &mut self,
        peer: Prefix,
        answer: Result<PeerReport, PeerApiError>,
        ctx: &mut Context<Self>,
    ) {
        let at = self.clock.now();
        self.questions.answered(peer, answer.is_ok(), at);
        match answer {
            Ok(heard) => {
                let heard = PeersReported {
                    at,
                    source: PeerSource::Itself,
                    peers: vec![heard],
                };
                // Life events of a bounded producer: at most four questions are under way.
                self.to.iter().for_each(|to| to.do_send(heard.clone()));
            }
            Err(error) => {
                tracing::debug!(%peer, error = %Chain(&error), "peer not asked");
                ctx.run_later(RETRY, Self::ask_some);
            }
        }
        self.ask_some(ctx);
    }
}

impl Actor for PeerDiscovery {
    type Context = Context<Self>;
}

impl Handler<RoutesRead> for PeerDiscovery {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, ctx: &mut Self::Context) {
        let Some(table) = read.table else { return };
        self.questions.reachable = reachable(&table, self.me);
        self.ask_some(ctx);
    }
}

/// All nodes that a route is installed to.
fn reachable(table: &BabelTable, me: Prefix) -> BTreeSet<Prefix> {
    let routes = table
        .routes
        .iter()
        .filter(|route| route.installed && route.metric < INFINITY);
    routes
        .map(|route| route.node)
        .filter(|node| *node != me)
        .collect()
}

/// Whom was asked when, and how many more may be.
#[derive(Default)]
struct Questions {
    reachable: BTreeSet<Prefix>,
    /// Last asked, and failures in a row.
    asked: BTreeMap<Prefix, (Uptime, u32)>,
    under_way: BTreeSet<Prefix>,
    /// Questions since the burst began, and when the last one was given back.
    spent: u32,
    refilled: Uptime,
    last: Option<Uptime>,
}

impl Questions {
    /// Chooses at random whom to ask now, and notes that they are asked.
    ///
    /// `known` need not be asked; where dialling `doubted` failed, they may have moved.
    fn next(
        &mut self,
        known: &BTreeSet<Prefix>,
        doubted: &BTreeSet<Prefix>,
        now: Uptime,
    ) -> Vec<Prefix> {
        self.refill(now);
        let trickles = known.len() >= ENOUGH;
        if trickles && self.last.is_some_and(|last| now.since(last) < TRICKLE) {
            return Vec::new();
        }
        let may = if trickles { 1 } else { AT_ONCE };
        let may = may.saturating_sub(self.under_way.len());
        let may = may.min(usize::try_from(BURST.saturating_sub(self.spent)).unwrap_or(0));
        self.asked.retain(|peer, _| self.reachable.contains(peer));
        let due = |peer: &&Prefix| {
            let longest = if doubted.contains(peer) { DOUBT } else { FRESH };
            let rested = self
                .asked
                .get(peer)
                .is_none_or(|(at, failures)| now.since(*at) >= rest(*failures).min(longest));
            rested && !known.contains(peer) && !self.under_way.contains(peer)
        };
        let mut due: Vec<_> = self.reachable.iter().filter(due).copied().collect();
        fastrand::shuffle(&mut due);
        due.truncate(may);
        if !due.is_empty() {
            self.last = Some(now);
        }
        self.spent += u32::try_from(due.len()).unwrap_or(BURST);
        self.under_way.extend(due.iter().copied());
        due
    }

    fn answered(&mut self, peer: Prefix, good: bool, now: Uptime) {
        self.under_way.remove(&peer);
        let failures = self.asked.get(&peer).map_or(0, |(_, failures)| *failures);
        let failures = if good { 0 } else { failures.saturating_add(1) };
        self.asked.insert(peer, (now, failures));
    }

    fn refill(&mut self, now: Uptime) {
        while self.spent > 0 && now.since(self.refilled) >= PACE {
            self.spent -= 1;
            self.refilled = self.refilled + PACE;
        }
        if self.spent == 0 {
            self.refilled = now;
        }
    }
}

/// How long not to ask again after that many failures in a row.
fn rest(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => FRESH,
        Some(doublings) => RETRY
            .saturating_mul(2u32.saturating_pow(doublings))
            .min(FRESH),
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

    /// Asks at that second; answers all that were asked, well or not; tells how many they were.
    #[track_caller]
    fn check(questions: &mut Questions, known: u32, seconds: u64, good: bool, expected: usize) {
        let asked = questions.next(&peers(0..known), &BTreeSet::new(), at(seconds));
        assert_eq!(asked.len(), expected);
        for peer in asked {
            assert!(peer.number() >= known);
            questions.answered(peer, good, at(seconds));
        }
    }

    fn questions(reachable: u32) -> Questions {
        Questions {
            reachable: peers(0..reachable),
            ..Questions::default()
        }
    }

    #[test]
    fn all_of_a_small_network_are_asked_once_and_at_once() {
        let mut questions = questions(6);
        check(&mut questions, 0, 0, true, 4);
        check(&mut questions, 0, 0, true, 2);
        check(&mut questions, 0, 0, true, 0);
        check(&mut questions, 0, 1799, true, 0);
        check(&mut questions, 0, 1800, true, 4);
    }

    #[test]
    fn at_most_four_are_under_way_and_none_twice() {
        let mut questions = questions(9);
        let first = questions.next(&peers(0..0), &peers(0..0), at(0));
        assert_eq!(
            (
                first.len(),
                questions.next(&peers(0..0), &peers(0..0), at(0)).len()
            ),
            (4, 0)
        );
        questions.answered(first[0], true, at(0));
        let next = questions.next(&peers(0..0), &peers(0..0), at(0));
        assert_eq!(next.len(), 1);
        assert!(!first.contains(&next[0]));
    }

    #[test]
    fn who_does_not_answer_is_asked_again_ever_later() {
        let mut questions = questions(1);
        for (seconds, expected) in [(0, 1), (0, 0), (1, 1), (2, 0), (3, 1), (6, 0), (7, 1)] {
            check(&mut questions, 0, seconds, false, expected);
        }
    }

    #[test]
    fn whom_dialling_failed_is_asked_again_after_a_minute() {
        let mut questions = questions(1);
        check(&mut questions, 0, 0, true, 1);
        for (seconds, expected) in [(59, 0), (60, 1)] {
            assert_eq!(
                questions
                    .next(&BTreeSet::new(), &peers(0..1), at(seconds))
                    .len(),
                expected
            );
        }
    }

    #[test]
    fn a_large_network_is_asked_at_a_bounded_pace() {
        let mut questions = questions(60_000);
        for _ in 0..8 {
            check(&mut questions, 0, 0, true, 4);
        }
        check(&mut questions, 0, 0, true, 0);
        check(&mut questions, 0, 2, true, 0);
        check(&mut questions, 0, 3, true, 1);
        check(&mut questions, 0, 60, true, 4);
    }

    #[test]
    fn who_knows_enough_asks_one_a_minute() {
        let mut questions = questions(100);
        check(&mut questions, 32, 0, true, 1);
        check(&mut questions, 32, 0, true, 0);
        check(&mut questions, 32, 59, true, 0);
        check(&mut questions, 32, 60, true, 1);
    }
}
