//! Learns how near peers are that no tunnel leads to, and what they and our neighbours say of themselves.
//!
//! A peer's round trip is sounded by the first packet of a dial, at the port that a dial would use; one
//! peer at a time, drawn at random. Who does not answer is unknown, not dead. Views are asked for over
//! the overlay, of few: those that are worth it, as [`policies::gain::shortlist`] says.

pub mod reset;

use crate::{
    clock::Clock,
    errors::Chain,
    messages::{LinksSampled, RoutesRead, Scouted, offer},
    peer_cache::SharedPeers,
    peer_client::Asker,
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use policies::{
    gain::{FRESH_REFRESHES, SOUNDED, shortlist},
    link_cost::LinkCost,
    names::{Endpoint, Prefix, Transport},
    units::Uptime,
    ways::Ways,
    world::{BabelTable, Candidate, LinkReading, Sounding, View},
};
use reset::{ResetKey, is_answer};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};
use tokio::{net::UdpSocket, time::timeout};

/// How long an answer is waited for: more than babeld makes a difference of.
const PATIENCE: Duration = Duration::from_secs(1);
/// Packets to one peer: the first often waits for somebody's neighbour discovery.
const PACKETS: u32 = 2;
/// Views are asked for so often in a refresh.
const ASKS: u32 = 2;

/// What the scout must know.
#[derive(Clone, Debug)]
pub struct ScoutSettings {
    /// Who we are.
    pub me: Prefix,
    /// How often the policy compares.
    pub refresh: Duration,
    /// The network's `tls-crypt` key; without it nobody is sounded.
    pub key: Option<Rc<ResetKey>>,
}

/// The actor that scouts.
pub struct Scout {
    settings: ScoutSettings,
    clock: Clock,
    peers: SharedPeers,
    asker: Asker,
    to: Vec<Recipient<Scouted>>,
    links: Vec<LinkReading>,
    table: Option<BabelTable>,
    soundings: BTreeMap<Prefix, Sounding>,
    views: BTreeMap<Prefix, View>,
    asking: bool,
}

impl Scout {
    /// `peers` is what the cache knows; `to` hears of all that was found out.
    pub fn new(
        settings: ScoutSettings,
        clock: Clock,
        peers: SharedPeers,
        asker: Asker,
        to: Vec<Recipient<Scouted>>,
    ) -> Self {
        Self {
            settings,
            clock,
            peers,
            asker,
            to,
            links: Vec::new(),
            table: None,
            soundings: BTreeMap::new(),
            views: BTreeMap::new(),
            asking: false,
        }
    }

    /// Sounds one peer that no tunnel leads to, by chance.
    fn sound(&mut self, ctx: &mut Context<Self>) {
        let Some(key) = self.settings.key.clone() else { return };
        let neighbours: BTreeSet<_> = self.links.iter().map(|link| link.tunnel.peer).collect();
        let peers = self.peers.load();
        let distant: Vec<_> =
            peers.iter().filter(|candidate| !neighbours.contains(&candidate.peer)).collect();
        let Some(candidate) = fastrand::choice(&distant) else { return };
        let Some(endpoint) = sounded(candidate) else { return };
        let (peer, clock) = (candidate.peer, self.clock.clone());
        let sounding = async move { round_trip(&key, endpoint, &clock).await };
        ctx.spawn(sounding.into_actor(self).map(move |rtt, scout, _| {
            let at = scout.clock.now();
            tracing::trace!(%peer, %endpoint, ?rtt, "peer sounded");
            scout.soundings.insert(peer, Sounding { peer, at, rtt });
            scout.tell();
        }));
    }

    /// Asks those for their views who are worth it, and whom we dialled.
    fn ask(&mut self, ctx: &mut Context<Self>) {
        let Some(table) = self.table.as_ref().filter(|_| !self.asking) else { return };
        let ways = Ways::of(&table.routes, self.settings.me, |_| true);
        let soundings: Vec<_> = self.soundings.values().copied().collect();
        let mut whom = shortlist(&ways, &soundings, LinkCost::default());
        let dialled = |link: &&LinkReading| link.tunnel.role() == policies::names::Role::Dialled;
        whom.extend(self.links.iter().filter(dialled).map(|link| link.tunnel.peer));
        self.asking = true;
        let (asker, clock) = (self.asker.clone(), self.clock.clone());
        let asked = async move {
            let mut views = Vec::new();
            for peer in whom {
                match asker.view(peer).await {
                    Ok(view) => views.push(View { at: clock.now(), ..view }),
                    Err(error) => tracing::debug!(%peer, error = %Chain(&error), "no view"),
                }
            }
            views
        };
        ctx.spawn(asked.into_actor(self).map(|views, scout, _| {
            scout.asking = false;
            scout.views.extend(views.into_iter().map(|view| (view.peer, view)));
            scout.tell();
        }));
    }

    fn tell(&mut self) {
        let now = self.clock.now();
        let fresh = self.settings.refresh.saturating_mul(FRESH_REFRESHES);
        self.soundings.retain(|_, sounding| now.since(sounding.at) <= fresh);
        self.views.retain(|_, view| now.since(view.at) <= fresh);
        let soundings = self.soundings.values().copied().collect();
        let scouted = Scouted { at: now, soundings, views: self.views.values().cloned().collect() };
        self.to.iter().for_each(|to| offer(to, scouted.clone()));
    }
}

/// The endpoint whose round trip tells of the tunnel to be.
fn sounded(candidate: &Candidate) -> Option<Endpoint> {
    candidate.endpoints.iter().copied().find(|endpoint| endpoint.transport == Transport::Udp)
}

/// The least round trip of a few packets; `None` where nothing came back.
async fn round_trip(key: &ResetKey, endpoint: Endpoint, clock: &Clock) -> Option<Duration> {
    let any = match endpoint.address.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(endpoint.address).await.ok()?;
    let mut least = None;
    for _ in 0..PACKETS {
        let began = clock.now();
        let session = fastrand::u64(..).to_be_bytes();
        let seconds = u32::try_from(began.since(Uptime::default()).as_secs()).unwrap_or(u32::MAX);
        socket.send(&key.packet(session, seconds)?).await.ok()?;
        let mut answer = [0; 256];
        let Ok(Ok(length)) = timeout(PATIENCE, socket.recv(&mut answer)).await else { continue };
        if is_answer(answer.get(..length).unwrap_or_default()) {
            let rtt = clock.now().since(began);
            least = Some(least.map_or(rtt, |least: Duration| least.min(rtt)));
        }
    }
    least
}

impl Actor for Scout {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let pace = (self.settings.refresh / SOUNDED).max(PATIENCE);
        ctx.run_interval(pace, Self::sound);
        ctx.run_interval(self.settings.refresh / ASKS, Self::ask);
    }
}

impl Handler<LinksSampled> for Scout {
    type Result = ();

    fn handle(&mut self, sampled: LinksSampled, _: &mut Self::Context) {
        self.links = sampled.links;
    }
}

impl Handler<RoutesRead> for Scout {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, _: &mut Self::Context) {
        self.table = read.table;
    }
}
