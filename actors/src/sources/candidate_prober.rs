//! Measures the round trip to peers without a tunnel, and fetches the route views of some peers. Peers whose tunnel is by TCP are
//! tried, too: once their UDP servers answer, the planner leaves TCP.
//!
//! A probe sends the first packet of a dial to the port that a dial would use. One random peer is probed at a time. A peer
//! that does not answer counts as unmeasured, not as dead. Route views are fetched over the overlay from the few peers that
//! [`policies::gain::shortlist`] selects, and from those that we dialled.

pub(crate) mod endpoint_probe;
pub mod reset;
mod round_trip;

use crate::store::Store;
use crate::{
    mailboxes::offer,
    messages::{CandidateProbed, CandidatesMeasured, DocumentsChanged, LinksSampled, RoutesRead},
    store::{SharedCandidates, TunnelTable},
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
    names::{Endpoint, Prefix, Role, Transport},
    observation::{
        BabelTable, Candidate, CandidateRtt, LinkReading, PeerRouteView, Phase, TunnelReading,
    },
    routes::RouteIndex,
    tcp_fallback::UdpProbeWaits,
    units::Uptime,
};
use reset::ResetKey;
use round_trip::{PROBE_TIMEOUT, measure_rtt};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use wire::errors::Chain;
use wire::registry::{NetworkDocument, static_key};

/// Mean time after which the UDP servers of a peer are probed first if a tunnel to it came up by TCP. The actual one is drawn once
/// a run, so that neighbours do not leave TCP at the same time.
const MEAN_UDP_WAIT: Duration = Duration::from_secs(12);
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
    tunnels: Rc<RefCell<TunnelTable>>,
    /// Time from a tunnel by TCP to the first probe by UDP.
    first_udp_wait: Duration,
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
        let first_udp_wait = random.around(MEAN_UDP_WAIT);
        Self {
            settings,
            clock,
            random,
            first_udp_wait,
            peers,
            tunnels: store.tunnels,
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
            .push(ctx.run_interval(probe_interval, Self::probe_peer));
        self.timers.push(ctx.run_interval(
            self.settings.refresh / FETCHES_PER_REFRESH,
            Self::fetch_views,
        ));
    }

    /// Probes one peer: one with a tunnel by TCP that may be reached by UDP again, or else a random one without a tunnel that has
    /// not been probed for a refresh interval.
    fn probe_peer(&mut self, ctx: &mut Context<Self>) {
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
        let by_tcp = self.due_by_udp(now);
        let by_tcp = first_with_udp(&peers, &by_tcp);
        let Some(candidate) = by_tcp.or_else(|| self.random.choose(&due).copied()) else {
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

    /// Returns the peers of dialled tunnels by TCP whose UDP servers are to be probed now. A peer whose path by UDP is narrow is left out.
    fn due_by_udp(&self, now: Uptime) -> BTreeSet<Prefix> {
        let table = self.tunnels.borrow();
        let waits = UdpProbeWaits {
            first: self.first_udp_wait,
            max: self.settings.refresh,
        };
        let is_tried = |tunnel: &&TunnelReading| {
            let is_tcp = |endpoint: Endpoint| endpoint.transport == Transport::Tcp;
            let is_by_tcp = tunnel.role() == Role::Dialled && tunnel.endpoint.is_some_and(is_tcp);
            let Some(up_since) = tunnel.up_since.filter(|_| tunnel.phase == Phase::Up) else {
                return false;
            };
            let probed = self.candidate_rtts.get(&tunnel.peer);
            let is_due = waits.is_due(up_since, probed.map(|probed| probed.at), now);
            is_by_tcp && is_due && !table.prefers_tcp(tunnel.peer, now)
        };
        let due = self.links.iter().map(|link| &link.tunnel).filter(is_tried);
        due.map(|tunnel| tunnel.peer).collect()
    }

    /// Fetches the route views of the shortlisted peers and of those that we dialled.
    fn fetch_views(&mut self, ctx: &mut Context<Self>) {
        let Some(table) = self.table.as_ref().filter(|_| !self.is_fetching_views) else {
            return;
        };
        let routes = RouteIndex::new(&table.routes, self.settings.me, |_| true);
        let candidate_rtts: Vec<_> = self.candidate_rtts.values().copied().collect();
        let mut chosen = shortlist(&routes, &candidate_rtts, LinkCost::default());
        let is_dialled = |link: &&LinkReading| link.tunnel.role() == Role::Dialled;
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

/// Returns the first of these peers that announces a UDP endpoint; one without can never be probed, and must not keep others from it.
fn first_with_udp<'c>(
    candidates: &'c [Candidate],
    peers: &BTreeSet<Prefix>,
) -> Option<&'c Candidate> {
    candidates
        .iter()
        .find(|known| peers.contains(&known.peer) && first_udp_endpoint(known).is_some())
}

/// Returns the best UDP endpoint, at which the peer would be dialled.
fn first_udp_endpoint(candidate: &Candidate) -> Option<Endpoint> {
    candidate
        .endpoints
        .iter()
        .copied()
        .find(|endpoint| endpoint.transport == Transport::Udp)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_without_a_udp_endpoint_keeps_no_other_from_being_probed() {
        let peer = |number| Prefix::new(number, 16).unwrap();
        let candidate = |number, endpoint: &str| Candidate {
            peer: peer(number),
            endpoints: vec![endpoint.parse().unwrap()],
            on_lan: 0,
            confirmed_at: None,
            failed_at: None,
            failures: 0,
            transit_cost: 0,
        };
        let candidates = [
            candidate(2, "tcp:45.67.0.2:1194"),
            candidate(3, "udp:45.67.0.3:1194"),
            candidate(4, "udp:45.67.0.4:1194"),
        ];
        let chosen = |peers: &[u32]| {
            let peers = peers.iter().map(|number| peer(*number)).collect();
            first_with_udp(&candidates, &peers).map(|known| known.peer)
        };
        assert_eq!(chosen(&[2]), None);
        assert_eq!(chosen(&[2, 4]), Some(peer(4)));
    }
}
