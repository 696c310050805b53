//! Measures the round trip to peers without a tunnel, and fetches the route views of some peers.
//!
//! The round trip is that of the first packet of a dial, at the port that a dial would use; one
//! random peer is probed at a time. A peer that does not answer is unknown, not dead. Route views
//! are fetched over the overlay from the few peers that [`policies::gain::shortlist`] selects.

pub mod reset;

use crate::store::Store;
use crate::{
    messages::{
        CandidateProbed, CandidatesMeasured, DocumentsChanged, LinksSampled, RoutesRead, offer,
    },
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
    time::Duration,
};
use tokio::{net::UdpSocket, time::timeout};
use wire::errors::Chain;
use wire::registry::{NetworkDocument, static_key};

/// How long an answer is waited for: more than babeld makes a difference of.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Packets to one peer: the first often waits for somebody's neighbour discovery.
const PACKETS: u32 = 2;
/// Views are asked for so often in a refresh.
const ASKS: u32 = 2;

/// The settings of the candidate prober.
#[derive(Clone, Debug)]
pub struct CandidateProberSettings {
    /// The prefix of this node.
    pub me: Prefix,
    /// The network's range: tunnels never go out by a gateway of the network itself, nor do candidate_rtts.
    pub range: Ipv6Net,
    /// The interval at which the policy compares tunnels.
    pub refresh: Duration,
    /// The network's `tls-crypt` key, then the one that others may use while it is changed.
    pub keys: Rc<[ResetKey]>,
}

impl CandidateProberSettings {
    /// As the network document has them.
    pub fn of(me: Prefix, network: &NetworkDocument) -> Self {
        let texts = std::iter::once(&network.tls_crypt).chain(&network.tls_crypt_other);
        let keys = texts
            .filter_map(|text| ResetKey::new(&static_key(text)?))
            .collect();
        Self {
            me,
            range: network.network,
            refresh: network.parameters().refresh,
            keys,
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
    to: Vec<Recipient<CandidatesMeasured>>,
    outcomes: Recipient<CandidateProbed>,
    links: Vec<LinkReading>,
    table: Option<BabelTable>,
    candidate_rtts: BTreeMap<Prefix, CandidateRtt>,
    views: BTreeMap<Prefix, PeerRouteView>,
    asking: bool,
    /// The handles of the two periodic tasks.
    beats: Vec<SpawnHandle>,
}

impl CandidateProber {
    /// Builds the actor; the current network document takes precedence over `settings`.
    pub fn new(deps: CandidateProberDeps) -> Self {
        let CandidateProberDeps {
            settings,
            store,
            peers: peer_api,
            readers: to,
            outcomes,
        } = deps;
        let (clock, random) = (store.clock, store.random);
        let (peers, documents) = (store.candidates, store.documents.load_full());

        let settings = documents.network().map_or(settings.clone(), |network| {
            CandidateProberSettings::of(settings.me, network)
        });
        Self {
            settings,
            clock,
            random,
            peers,
            peer_api,
            to,
            outcomes,
            links: Vec::new(),
            table: None,
            candidate_rtts: BTreeMap::new(),
            views: BTreeMap::new(),
            asking: false,
            beats: Vec::new(),
        }
    }

    /// Starts the periodic probes and fetches at the pace of the refresh interval.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        for beat in std::mem::take(&mut self.beats) {
            ctx.cancel_future(beat);
        }
        let pace = (self.settings.refresh / PROBED_PER_REFRESH).max(PROBE_TIMEOUT);
        self.beats.push(ctx.run_interval(pace, Self::probe_one));
        self.beats
            .push(ctx.run_interval(self.settings.refresh / ASKS, Self::ask));
    }

    /// Probes one random peer without a tunnel.
    fn probe_one(&mut self, ctx: &mut Context<Self>) {
        let (keys, range) = (self.settings.keys.clone(), self.settings.range);
        let neighbours: BTreeSet<_> = self.links.iter().map(|link| link.tunnel.peer).collect();
        let peers = self.peers.load();
        let distant: Vec<_> = peers
            .iter()
            .filter(|candidate| !neighbours.contains(&candidate.peer))
            .collect();
        let Some(candidate) = self.random.choose(&distant) else {
            return;
        };
        let Some(endpoint) = by_udp(candidate) else {
            return;
        };
        let peer = candidate.peer;
        let (clock, random) = (self.clock.clone(), self.random.clone());
        let probe = async move { round_trip(&keys, range, endpoint, (&clock, &random)).await };
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
    fn ask(&mut self, ctx: &mut Context<Self>) {
        let Some(table) = self.table.as_ref().filter(|_| !self.asking) else {
            return;
        };
        let routes = RouteIndex::new(&table.routes, self.settings.me, |_| true);
        let candidate_rtts: Vec<_> = self.candidate_rtts.values().copied().collect();
        let mut chosen = shortlist(&routes, &candidate_rtts, LinkCost::default());
        let dialled = |link: &&LinkReading| link.tunnel.role() == policies::names::Role::Dialled;
        chosen.extend(
            self.links
                .iter()
                .filter(dialled)
                .map(|link| link.tunnel.peer),
        );
        self.asking = true;
        let (peer_api, clock) = (self.peer_api.clone(), self.clock.clone());
        let asked = async move {
            let mut views = Vec::new();
            for peer in chosen {
                match peer_api.view(peer).await {
                    Ok(view) => views.push(PeerRouteView {
                        at: clock.now(),
                        ..view
                    }),
                    Err(error) => tracing::debug!(%peer, error = %Chain(&error), "no view"),
                }
            }
            views
        };
        ctx.spawn(asked.into_actor(self).map(|views, prober, _| {
            prober.asking = false;
            prober
                .views
                .extend(views.into_iter().map(|view| (view.peer, view)));
            prober.report();
        }));
    }

    fn report(&mut self) {
        let now = self.clock.now();
        let fresh = self.settings.refresh.saturating_mul(VALID_REFRESHES);
        self.candidate_rtts
            .retain(|_, measured| now.since(measured.at) <= fresh);
        self.views.retain(|_, view| now.since(view.at) <= fresh);
        let candidate_rtts = self.candidate_rtts.values().copied().collect();
        let measured = CandidatesMeasured {
            at: now,
            candidate_rtts,
            views: self.views.values().cloned().collect(),
        };
        self.to.iter().for_each(|to| offer(to, measured.clone()));
    }
}

/// Returns the endpoint at which the tunnel would be dialled.
fn by_udp(candidate: &Candidate) -> Option<Endpoint> {
    candidate
        .endpoints
        .iter()
        .copied()
        .find(|endpoint| endpoint.transport == Transport::Udp)
}

/// The least round trip of a few packets; `None` where nothing came back, by whichever key.
async fn round_trip(
    keys: &[ResetKey],
    range: Ipv6Net,
    endpoint: Endpoint,
    (clock, random): (&Clock, &Randomness),
) -> Option<Duration> {
    for key in keys {
        let mut least = None;
        for _ in 0..PACKETS {
            let rtt = packet_back(key, range, endpoint, (clock, random)).await;
            least = least.into_iter().chain(rtt).min();
        }
        if least.is_some() {
            return least;
        }
    }
    None
}

/// The round trip of one packet. Its socket is its own, so that no later packet takes its late answer for theirs.
async fn packet_back(
    key: &ResetKey,
    range: Ipv6Net,
    endpoint: Endpoint,
    (clock, random): (&Clock, &Randomness),
) -> Option<Duration> {
    let any = match endpoint.address.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(endpoint.address).await.ok()?;
    if matches!(socket.local_addr().ok()?.ip(), IpAddr::V6(own) if range.contains(&own)) {
        return None;
    }
    let began = clock.now();
    let session = random.bits().to_be_bytes();
    let seconds = u32::try_from(began.since(Uptime::default()).as_secs()).unwrap_or(u32::MAX);
    socket.send(&key.packet(session, seconds)?).await.ok()?;
    let mut answer = [0; 256];
    let length = timeout(PROBE_TIMEOUT, socket.recv(&mut answer))
        .await
        .ok()?
        .ok()?;
    is_answer(answer.get(..length)?).then(|| clock.now().since(began))
}

impl Actor for CandidateProber {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.arm(ctx);
    }
}

impl Handler<DocumentsChanged> for CandidateProber {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, ctx: &mut Self::Context) {
        let Some(network) = changed.documents.network() else {
            return;
        };
        let settings = CandidateProberSettings::of(self.settings.me, network);
        let other_pace = settings.refresh != self.settings.refresh;
        self.settings = settings;
        if other_pace {
            self.arm(ctx);
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
