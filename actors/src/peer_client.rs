//! Asks nodes, over the overlay, where they can be dialled.
//!
//! babeld's table says who is there; the registry need not. Who is asked is chosen at random, a few at
//! a time; answers are bounded and filtered, and prove nothing but what the certificate proves.

use crate::{
    clock::Clock,
    documents::held::PrivateEndpoints,
    errors::Chain,
    member::{Member, MemberError},
    messages::{PeerHeard, PeerSource, PeersHeard, RoutesRead},
    peer_cache::SharedPeers,
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use arc_swap::ArcSwap;
use policies::{
    names::{Endpoint, Prefix},
    units::Uptime,
    world::{BabelTable, INFINITY, View},
};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV6,
    sync::Arc,
    time::Duration,
};
use wire::{
    endpoints::dialable,
    overlay::Network,
    peer::{ANSWER_LIMIT, DOCUMENT_LIMIT, NodeDocument, TURN, ViewDocument, call_of},
    registry::Kind,
    signed::SignedDocument,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
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

/// Why a node's answer is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection, no such certificate, no answer in time.
    #[error("cannot ask {peer}")]
    Http {
        /// Who was asked.
        peer: Prefix,
        /// What failed.
        #[source]
        source: reqwest::Error,
    },
    /// Longer than any honest one.
    #[error("{peer} answered more than {limit} bytes")]
    TooLong {
        /// Who was asked.
        peer: Prefix,
        /// In bytes.
        limit: usize,
    },
    /// Not a document of this version.
    #[error("{peer} answered no document of ours")]
    Document {
        /// Who was asked.
        peer: Prefix,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It speaks of another node.
    #[error("{peer} answered as {answered}")]
    OtherNode {
        /// Who was asked.
        peer: Prefix,
        /// Who it says it is.
        answered: Prefix,
    },
}

/// Asks members; cheap to clone. Its clones share the certificate that they show.
#[derive(Clone)]
pub struct Asker {
    http: Arc<ArcSwap<reqwest::Client>>,
    me: Prefix,
    network: Network,
    port: u16,
    private: PrivateEndpoints,
}

/// What the client must know.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Who we are.
    pub me: Prefix,
    /// The network: from a prefix to an address.
    pub network: Network,
    /// The others' port: [`wire::peer::PORT`].
    pub port: u16,
    /// Believe private endpoints.
    pub private: PrivateEndpoints,
}

impl Asker {
    /// Comes from our node address, so that the other end can compare it with our certificate.
    ///
    /// # Errors
    /// No TLS can be made of the certificate and key.
    pub fn new(settings: &ClientSettings, member: &Member) -> Result<Self, MemberError> {
        let (me, network, port, private) = (
            settings.me,
            settings.network,
            settings.port,
            settings.private.clone(),
        );
        let http = Arc::new(ArcSwap::from_pointee(http(network, me, member)?));
        Ok(Self {
            http,
            me,
            network,
            port,
            private,
        })
    }

    /// From the next question on it, and each clone of it, shows that member's certificate.
    ///
    /// # Errors
    /// No TLS can be made of the certificate and key.
    pub fn renew(&self, member: &Member) -> Result<(), MemberError> {
        self.http
            .store(Arc::new(http(self.network, self.me, member)?));
        Ok(())
    }

    /// Where that node can be dialled, by its own word; empty where it says nowhere.
    ///
    /// # Errors
    /// It did not answer, or not what it should.
    pub async fn ask(&self, peer: Prefix) -> Result<PeerHeard, AskError> {
        let document = self.node(peer).await?;
        let private = self.private.allowed();
        let good = |endpoint: &Endpoint| dialable(*endpoint, self.network, private).is_ok();
        let endpoints = document.endpoints.into_iter().filter(good).collect();
        Ok(PeerHeard {
            peer,
            endpoints,
            transit_price: Some(document.transit_price),
        })
    }

    /// What that node says of itself.
    ///
    /// # Errors
    /// It did not answer, or not what it should.
    pub async fn node(&self, peer: Prefix) -> Result<NodeDocument, AskError> {
        let document: NodeDocument = self.get(peer, "/v1/node", ANSWER_LIMIT).await?;
        if document.prefix != peer {
            return Err(AskError::OtherNode {
                peer,
                answered: document.prefix,
            });
        }
        Ok(document)
    }

    /// How that node sees the network; when it was asked is the caller's to say.
    ///
    /// # Errors
    /// It did not answer, or not what it should.
    pub async fn view(&self, peer: Prefix) -> Result<View, AskError> {
        let document: ViewDocument = self.get(peer, "/v1/view", ANSWER_LIMIT).await?;
        let ViewDocument {
            version: _,
            prefix,
            room,
            accepted,
            loss,
            distances,
        } = document;
        if prefix != peer {
            return Err(AskError::OtherNode {
                peer,
                answered: prefix,
            });
        }
        let mut distances: Vec<_> = distances
            .into_iter()
            .map(|one| (one.node, one.metric))
            .collect();
        distances.sort_unstable();
        distances.dedup_by_key(|(node, _)| *node);
        Ok(View {
            peer,
            at: Uptime::default(),
            room,
            accepted,
            loss,
            distances,
        })
    }

    /// The signed document that it holds; not verified here.
    ///
    /// # Errors
    /// It did not answer, or not what it should.
    pub async fn document(&self, peer: Prefix, kind: Kind) -> Result<SignedDocument, AskError> {
        self.get(peer, call_of(kind), DOCUMENT_LIMIT).await
    }

    /// Gives it a signed document.
    ///
    /// # Errors
    /// It did not take it.
    pub async fn post(
        &self,
        peer: Prefix,
        kind: Kind,
        document: &SignedDocument,
    ) -> Result<(), AskError> {
        let failed = |source| AskError::Http { peer, source };
        let body =
            serde_json::to_vec(document).map_err(|source| AskError::Document { peer, source })?;
        let url = self.url(peer, call_of(kind));
        let request = self
            .http
            .load()
            .post(url)
            .header("content-type", "application/json")
            .body(body);
        let answer = request
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        answer.map(drop).map_err(failed)
    }

    /// Asks it for its [turn](crate::turns) to end tunnels (`POST`), or gives it back (`DELETE`); whether it agrees.
    ///
    /// # Errors
    /// It did not answer, or knows no turns.
    pub async fn turn(&self, peer: Prefix, method: reqwest::Method) -> Result<bool, AskError> {
        let failed = |source| AskError::Http { peer, source };
        let answer = self
            .http
            .load()
            .request(method, self.url(peer, TURN))
            .send()
            .await
            .map_err(failed)?;
        let refused = answer.status() == reqwest::StatusCode::CONFLICT;
        if refused {
            Ok(false)
        } else {
            answer.error_for_status().map(|_| true).map_err(failed)
        }
    }

    fn url(&self, peer: Prefix, call: &str) -> String {
        let address = SocketAddrV6::new(self.network.node_address(peer), self.port, 0, 0);
        format!("https://{address}{call}")
    }

    async fn get<T: DeserializeOwned>(
        &self,
        peer: Prefix,
        call: &str,
        limit: usize,
    ) -> Result<T, AskError> {
        let failed = |source| AskError::Http { peer, source };
        let request = self.http.load().get(self.url(peer, call));
        let asked = request.send().await;
        let mut response = asked
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if answer.len() + chunk.len() > limit {
                return Err(AskError::TooLong { peer, limit });
            }
            answer.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&answer).map_err(|source| AskError::Document { peer, source })
    }
}

fn http(network: Network, me: Prefix, member: &Member) -> Result<reqwest::Client, MemberError> {
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(member.client()?)
        .local_address(std::net::IpAddr::V6(network.node_address(me)))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .pool_max_idle_per_host(0)
        .timeout(PATIENCE)
        .build();
    http.map_err(|error| MemberError::Client(Box::new(error)))
}

/// The actor that chooses whom to ask.
pub struct PeerClient {
    me: Prefix,
    asker: Asker,
    clock: Clock,
    peers: SharedPeers,
    to: Vec<Recipient<PeersHeard>>,
    questions: Questions,
}

impl PeerClient {
    /// `peers` is what the cache knows already.
    pub fn new(
        me: Prefix,
        asker: Asker,
        clock: Clock,
        peers: SharedPeers,
        to: Vec<Recipient<PeersHeard>>,
    ) -> Self {
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
        answer: Result<PeerHeard, AskError>,
        ctx: &mut Context<Self>,
    ) {
        let at = self.clock.now();
        self.questions.answered(peer, answer.is_ok(), at);
        match answer {
            Ok(heard) => {
                let heard = PeersHeard {
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

impl Actor for PeerClient {
    type Context = Context<Self>;
}

impl Handler<RoutesRead> for PeerClient {
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
