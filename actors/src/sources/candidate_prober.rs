//! Measures the round trip to peers without a tunnel, and fetches the route views of some peers.
//!
//! A probe sends the first packet of a dial to the port that a dial would use. One random peer is probed at a time. A peer
//! that does not answer counts as unmeasured, not as dead. Route views are fetched over the overlay from the few peers that
//! [`policies::gain::shortlist`] selects, and from those that we dialled.

pub(crate) mod endpoint_probe;
pub mod reset;

use crate::store::Store;
use crate::{
    mailboxes::offer,
    messages::{CandidateProbed, CandidatesMeasured, DocumentsChanged, LinksSampled, RoutesRead},
    store::SharedCandidates,
};
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, SpawnHandle, WrapFuture,
};
use ipnet::Ipv6Net;
use membership::peer_api::PeerApiClient;
use os::clock::Clock;
use os::randomness::Randomness;
use policies::{
    gain::{PROBED_PER_REFRESH, VALID_REFRESHES, shortlist},
    link_cost::LinkCost,
    names::{Endpoint, Prefix, Transport},
    observation::{BabelTable, Candidate, CandidateRtt, LinkReading, PeerRouteView},
    routes::RouteIndex,
    units::Uptime,
};
use reset::{ResetKey, is_answer};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{net::UdpSocket, time::timeout};
use wire::errors::Chain;
use wire::registry::{NetworkDocument, static_key};

/// Maximum wait for an answer. It is longer than any round trip that still changes babeld's cost.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Packets in a probe of one peer. The first one is often delayed by neighbour discovery on its path.
const PACKETS_PER_PROBE: u32 = 2;
/// Number of times that route views are fetched per refresh interval; they are valid for [`VALID_REFRESHES`].
const FETCHES_PER_REFRESH: u32 = 1;

/// The settings of the candidate prober.
#[derive(Clone, Debug)]
pub struct CandidateProberSettings {
    /// The prefix of this node.
    pub me: Prefix,
    /// The network's range. Tunnels never run through the network itself (through its exit gateway), nor do candidate probes.
    pub range: Ipv6Net,
    /// The interval at which the policy compares tunnels.
    pub refresh: Duration,
    /// The network's `tls-crypt` key, then the one that other nodes may use during a key rotation.
    pub keys: Rc<[ResetKey]>,
    /// Whether this node is metered, so that it probes no candidate and fetches no route view.
    pub is_metered: bool,
}

impl CandidateProberSettings {
    /// Reads the settings from the network document.
    pub fn from_network(me: Prefix, network: &NetworkDocument) -> Self {
        let texts = std::iter::once(&network.tls_crypt).chain(&network.tls_crypt_other);
        let keys = texts
            .filter_map(|text| ResetKey::new(&static_key(text)?))
            .collect();
        Self {
            me,
            range: network.network,
            refresh: network.parameters().refresh,
            keys,
            is_metered: false,
        }
    }

    /// Reads the settings of the same node from a newer network document.
    fn updated(&self, network: &NetworkDocument) -> Self {
        Self {
            is_metered: self.is_metered,
            ..Self::from_network(self.me, network)
        }
    }
}

/// The dependencies of the candidate prober.
#[derive(Clone)]
pub struct CandidateProberDeps {
    /// This node, its network and its `tls-crypt` keys.
    pub settings: CandidateProberSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The client of the peer API.
    pub peers: PeerApiClient,
    /// The receivers of all measurements.
    pub readers: Vec<Recipient<CandidatesMeasured>>,
    /// The receiver of the outcome of each single RTT probe.
    pub outcomes: Recipient<CandidateProbed>,
}

/// The actor that probes candidates.
pub struct CandidateProber {
    settings: CandidateProberSettings,
    clock: Clock,
    random: Randomness,
    peers: SharedCandidates,
    peer_api: PeerApiClient,
    readers: Vec<Recipient<CandidatesMeasured>>,
    outcomes: Recipient<CandidateProbed>,
    links: Vec<LinkReading>,
    table: Option<Arc<BabelTable>>,
    candidate_rtts: BTreeMap<Prefix, CandidateRtt>,
    views: BTreeMap<Prefix, PeerRouteView>,
    is_fetching_views: bool,
    /// The time of the last network document; with other keys, other peers may answer.
    settings_changed_at: Uptime,
    /// The handles of the two periodic tasks.
    timers: Vec<SpawnHandle>,
}

impl CandidateProber {
    /// Builds the actor; the current network document takes precedence over `settings`.
    pub fn new(deps: CandidateProberDeps) -> Self {
        let CandidateProberDeps {
            settings,
            store,
            peers: peer_api,
            readers,
            outcomes,
        } = deps;
        let (clock, random) = (store.clock, store.random);
        let (peers, documents) = (store.candidates, store.documents.load_full());

        let settings = documents
            .network()
            .map_or(settings.clone(), |network| settings.updated(network));
        Self {
            settings,
            clock,
            random,
            peers,
            peer_api,
            readers,
            outcomes,
            links: Vec::new(),
            table: None,
            candidate_rtts: BTreeMap::new(),
            views: BTreeMap::new(),
            is_fetching_views: false,
            settings_changed_at: Uptime::default(),
            timers: Vec::new(),
        }
    }

    /// Starts the periodic probes and fetches, at intervals that follow from the refresh interval.
    fn start_timers(&mut self, ctx: &mut Context<Self>) {
        for timer in std::mem::take(&mut self.timers) {
            ctx.cancel_future(timer);
        }
        if self.settings.is_metered {
            return;
        }
        let probe_interval = (self.settings.refresh / PROBED_PER_REFRESH).max(PROBE_TIMEOUT);
        self.timers
            .push(ctx.run_interval(probe_interval, Self::probe_random_peer));
        self.timers.push(ctx.run_interval(
            self.settings.refresh / FETCHES_PER_REFRESH,
            Self::fetch_views,
        ));
    }

    /// Probes one random peer without a tunnel that has not been probed for a refresh interval.
    fn probe_random_peer(&mut self, ctx: &mut Context<Self>) {
        let (keys, range) = (self.settings.keys.clone(), self.settings.range);
        let neighbours: BTreeSet<_> = self.links.iter().map(|link| link.tunnel.peer).collect();
        let peers = self.peers.load();
        let (now, min_age) = (self.clock.now(), self.settings.refresh);
        let is_due = |peer| {
            let measured = self.candidate_rtts.get(&peer);
            measured.is_none_or(|measured| {
                measured.at < self.settings_changed_at || now.since(measured.at) >= min_age
            })
        };
        let due: Vec<_> = peers
            .iter()
            .filter(|candidate| !neighbours.contains(&candidate.peer) && is_due(candidate.peer))
            .collect();
        let Some(candidate) = self.random.choose(&due) else {
            return;
        };
        let Some(endpoint) = first_udp_endpoint(candidate) else {
            return;
        };
        let peer = candidate.peer;
        let (clock, random) = (self.clock.clone(), self.random.clone());
        let probe = async move { measure_rtt(&keys, range, endpoint, (&clock, &random)).await };
        ctx.spawn(probe.into_actor(self).map(move |rtt, prober, _| {
            let at = prober.clock.now();
            tracing::trace!(%peer, %endpoint, ?rtt, "candidate probed");
            prober
                .candidate_rtts
                .insert(peer, CandidateRtt { peer, at, rtt });
            prober.outcomes.do_send(CandidateProbed {
                at,
                peer,
                answered: rtt.is_some(),
            });
            prober.report();
        }));
    }

    /// Fetches the route views of the shortlisted peers and of those that we dialled.
    fn fetch_views(&mut self, ctx: &mut Context<Self>) {
        let Some(table) = self.table.as_ref().filter(|_| !self.is_fetching_views) else {
            return;
        };
        let routes = RouteIndex::new(&table.routes, self.settings.me, |_| true);
        let candidate_rtts: Vec<_> = self.candidate_rtts.values().copied().collect();
        let mut chosen = shortlist(&routes, &candidate_rtts, LinkCost::default());
        let is_dialled = |link: &&LinkReading| link.tunnel.role() == policies::names::Role::Dialled;
        chosen.extend(
            self.links
                .iter()
                .filter(is_dialled)
                .map(|link| link.tunnel.peer),
        );
        self.is_fetching_views = true;
        let (peer_api, clock) = (self.peer_api.clone(), self.clock.clone());
        let fetch = async move {
            let mut views = Vec::new();
            for peer in chosen {
                match peer_api.fetch_route_view(peer).await {
                    Ok(view) => views.push(PeerRouteView {
                        at: clock.now(),
                        ..view
                    }),
                    Err(error) => {
                        tracing::debug!(%peer, error = %Chain(&error), "cannot fetch a route view")
                    }
                }
            }
            views
        };
        ctx.spawn(fetch.into_actor(self).map(|views, prober, _| {
            prober.is_fetching_views = false;
            prober
                .views
                .extend(views.into_iter().map(|view| (view.peer, view)));
            prober.report();
        }));
    }

    /// Drops outdated measurements and reports the others.
    fn report(&mut self) {
        let now = self.clock.now();
        let max_age = self.settings.refresh.saturating_mul(VALID_REFRESHES);
        self.candidate_rtts
            .retain(|_, measured| now.since(measured.at) <= max_age);
        self.views.retain(|_, view| now.since(view.at) <= max_age);
        let candidate_rtts = self.candidate_rtts.values().copied().collect();
        let measured = CandidatesMeasured {
            at: now,
            candidate_rtts,
            views: self.views.values().cloned().collect(),
        };
        self.readers
            .iter()
            .for_each(|reader| offer(reader, measured.clone()));
    }
}

/// Returns the best UDP endpoint, at which the peer would be dialled.
fn first_udp_endpoint(candidate: &Candidate) -> Option<Endpoint> {
    candidate
        .endpoints
        .iter()
        .copied()
        .find(|endpoint| endpoint.transport == Transport::Udp)
}

/// Measures the shortest round trip of a few packets with the first key that the peer answers; `None` if it answers none.
async fn measure_rtt(
    keys: &[ResetKey],
    range: Ipv6Net,
    endpoint: Endpoint,
    (clock, random): (&Clock, &Randomness),
) -> Option<Duration> {
    for key in keys {
        let mut shortest = None;
        for _ in 0..PACKETS_PER_PROBE {
            let rtt = probe_once(key, range, endpoint, (clock, random)).await;
            shortest = shortest.into_iter().chain(rtt).min();
        }
        if shortest.is_some() {
            return shortest;
        }
    }
    None
}

/// Measures the round trip of one packet. Each packet has a socket of its own, so that a late answer is never taken for the
/// answer to a later packet.
async fn probe_once(
    key: &ResetKey,
    range: Ipv6Net,
    endpoint: Endpoint,
    (clock, random): (&Clock, &Randomness),
) -> Option<Duration> {
    let local = match endpoint.address.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(local).await.ok()?;
    socket.connect(endpoint.address).await.ok()?;
    // The route to the peer leads through the network itself.
    if matches!(socket.local_addr().ok()?.ip(), IpAddr::V6(own) if range.contains(&own)) {
        return None;
    }
    let sent_at = clock.now();
    let session = random.bits().to_be_bytes();
    let seconds = u32::try_from(sent_at.since(Uptime::default()).as_secs()).unwrap_or(u32::MAX);
    socket.send(&key.packet(session, seconds)?).await.ok()?;
    let mut answer = [0; 256];
    let length = timeout(PROBE_TIMEOUT, socket.recv(&mut answer))
        .await
        .ok()?
        .ok()?;
    is_answer(answer.get(..length)?).then(|| clock.now().since(sent_at))
}

impl Actor for CandidateProber {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.start_timers(ctx);
    }
}

impl Handler<DocumentsChanged> for CandidateProber {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, ctx: &mut Self::Context) {
        let Some(network) = changed.documents.network() else {
            return;
        };
        let settings = self.settings.updated(network);
        let has_other_interval = settings.refresh != self.settings.refresh;
        self.settings = settings;
        self.settings_changed_at = self.clock.now();
        if has_other_interval {
            self.start_timers(ctx);
        }
    }
}

impl Handler<LinksSampled> for CandidateProber {
    type Result = ();

    fn handle(&mut self, sampled: LinksSampled, _: &mut Self::Context) {
        self.links = sampled.links;
    }
}

impl Handler<RoutesRead> for CandidateProber {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, _: &mut Self::Context) {
        self.table = read.table;
    }
}
