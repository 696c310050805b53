//! Probes each tunnel, passes suspicion on, and orders the end of a tunnel whose peer is dead; answers a peer that drains.
//!
//! When to probe and what a missing answer means is decided by [`policies::probe`]; this actor owns the
//! sockets. Suspicion makes others probe; nobody believes anything but its own probes.

mod sockets;
mod tunnel;

mod sending;

mod settings;

use crate::store::Store;
use crate::{
    effects::link_orders::{LinkOrder, Links},
    messages::{DocumentsChanged, LinksSampled, Ordered, ProbesRead, offer},
    store::LostPeers,
};
use actix::{Actor, AsyncContext, Context, Handler, Recipient, SpawnHandle, StreamHandler};
use futures_util::stream::unfold;
use os::randomness::Randomness;
use os::{clock::Clock, echo_socket::EchoReply, kernel::link_index};
use policies::{
    names::{Prefix, Slot},
    observation::{LinkReading, Phase},
    orders::{CloseReason, Order},
    probe::{Liveness, ProbePace, Probing, SuspicionLimit},
    units::Uptime,
};
use sending::*;
pub use settings::{ProberDeps, ProberSettings};
use sockets::{Datagram, Rumour, Sockets};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
    time::Duration,
};
use tunnel::Tunnel;
use wire::errors::Chain;
use wire::{
    overlay::{Network, link_local},
    suspicion::Suspicion,
};

/// While an answer is overdue, verdicts are looked for this often.
const FAST: Duration = Duration::from_millis(50);
/// An answer is overdue after this: no more than a first guess, the policy knows the round trip.
const OVERDUE: Duration = Duration::from_millis(100);
/// After a rumour the probes of a tunnel are looked after for so long.
const ALERT: Duration = Duration::from_secs(2);
/// No tunnel is probed because of rumours more often than this: what a liar can gain.
const RUMOUR_PACE: Duration = Duration::from_secs(1);
/// Interval between two readings that are sent.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// An order to end a dead tunnel is repeated until the tunnel is gone.
const INSIST: Duration = Duration::from_secs(1);
/// When the three copies of a suspicion go out: datagrams get lost.
const COPIES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(300),
    Duration::from_millis(700),
];
/// The time within which a peer that announced a drain closes the tunnel or gives up; a little
/// more than its deadline of 20 s.
const DRAINS_FOR: Duration = Duration::from_secs(30);
/// How long to wait before the sockets are tried again.
const REOPEN: Duration = Duration::from_secs(5);

/// Routes announced over a link, for the floor below which traffic is Babel's own; each 30 more cost one
/// packet in an update interval.
pub const FEW_ROUTES: usize = 30;

/// The actor that probes.
pub struct Prober {
    settings: ProberSettings,
    clock: Clock,
    random: Randomness,
    losses: LostPeers,
    links: Links,
    orders: Recipient<Ordered>,
    to: Vec<Recipient<ProbesRead>>,
    sockets: Option<Sockets>,
    tunnels: BTreeMap<Slot, Tunnel>,
    suspicion_limit: SuspicionLimit,
    reported_at: Option<Uptime>,
    timer: Option<SpawnHandle>,
}

impl Prober {
    /// Builds the actor; its sockets are opened when it starts.
    pub fn new(deps: ProberDeps) -> Self {
        let ProberDeps {
            settings,
            store,
            links,
            orders,
            readers: to,
        } = deps;
        let losses = store.tunnels.borrow().losses.clone();
        let (clock, random) = (store.clock, store.random);

        let suspicion_limit = SuspicionLimit::default();
        let tunnels = BTreeMap::new();
        Self {
            settings,
            clock,
            random,
            losses,
            links,
            orders,
            to,
            sockets: None,
            tunnels,
            suspicion_limit,
            reported_at: None,
            timer: None,
        }
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        match Sockets::open() {
            Ok(sockets) => {
                ctx.add_stream(sockets.replies());
                ctx.add_stream(sockets.datagrams());
                self.sockets = Some(sockets);
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "tunnels are not probed");
                ctx.run_later(REOPEN, Self::open);
            }
        }
    }

    /// Follows the table of tunnels: starts with those that came up, drops those that closed.
    fn follow(&mut self, links: &[LinkReading], now: Uptime) {
        let up =
            |link: &&LinkReading| matches!(link.tunnel.phase, Phase::Up | Phase::Draining { .. });
        let mut tunnels = BTreeMap::new();
        for link in links.iter().filter(up) {
            let known = self.tunnels.remove(&link.tunnel.slot);
            let same = known.filter(|known| {
                known.peer == link.tunnel.peer && known.up_since == link.tunnel.up_since
            });
            let mut tunnel = same.unwrap_or_else(|| Tunnel::new(link, self.settings.pace, now));
            tunnel.probing.on_counters(link.counters, now);
            if link.tunnel.phase.is_draining() {
                tunnel.drains = Some(now);
            }
            tunnels.insert(link.tunnel.slot, tunnel);
        }
        self.tunnels = tunnels;
    }

    /// Judges, probes and reports, and sets the timer for the next time.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        // Answers that wait unread must not count as missing.
        while let Some(reply) = self.sockets.as_ref().and_then(Sockets::reply_at_hand) {
            self.answered(reply, now);
        }
        let mut suspects = Vec::new();
        for (slot, tunnel) in &mut self.tunnels {
            let verdict = tunnel.probing.liveness(now);
            // A server learns of its client's exit 5 s late, or exits itself; so a drained tunnel
            // that falls silent counts as closed.
            let reason = match tunnel.drains(now) {
                true => CloseReason::PeerClosed,
                false => CloseReason::PeerDead,
            };
            if verdict >= Liveness::Suspect && reason == CloseReason::PeerDead {
                suspects.push(tunnel.peer);
            }
            let insist = tunnel
                .ordered
                .is_none_or(|ordered| now.since(ordered) >= INSIST);
            if verdict == Liveness::Dead && insist {
                if tunnel.ordered.is_none() {
                    tracing::info!(tunnel = %slot, peer = %tunnel.peer, %reason, "peer does not answer");
                }
                tunnel.ordered = Some(now);
                let order = Order::Close {
                    slot: *slot,
                    reason,
                };
                self.orders.do_send(Ordered { order });
            }
            probe(self.sockets.as_ref(), *slot, tunnel, now);
        }
        suspects
            .into_iter()
            .for_each(|peer| self.spread_suspicion(peer, now, ctx));
        self.report(now);
        self.arm(now, ctx);
    }

    fn report(&mut self, now: Uptime) {
        if self
            .reported_at
            .is_some_and(|at| now.since(at) < REPORT_INTERVAL)
        {
            return;
        }
        self.reported_at = Some(now);
        let readings = self
            .tunnels
            .iter()
            .map(|(slot, tunnel)| tunnel.probing.reading(*slot, now));
        let reading = ProbesRead {
            at: now,
            probes: readings.collect(),
        };
        self.to.iter().for_each(|to| offer(to, reading.clone()));
    }

    /// The counters come twice a second and tick as well: a timer is needed only for what is sooner.
    fn arm(&mut self, now: Uptime, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let wait = |tunnel: &Tunnel| match tunnel.alert(now) {
            true => FAST,
            false => tunnel.probing.next_due(now).since(now).max(FAST),
        };
        let next = self.tunnels.values().map(wait).min();
        if let Some(wait) = next.filter(|wait| *wait < crate::sources::sampler::PERIOD) {
            self.timer = Some(ctx.run_later(wait, Self::tick));
        }
    }

    fn answered(&mut self, reply: EchoReply, now: Uptime) {
        let mut tunnels = self.tunnels.values_mut();
        let from =
            |tunnel: &&mut Tunnel| tunnel.link == Some(reply.link) && tunnel.address == reply.from;
        if let Some(tunnel) = tunnels.find(from) {
            tunnel.answered = Some(now);
            tunnel
                .probing
                .on_reply(policies::probe::Seq(reply.sequence), now);
        }
    }

    /// Reports the suspicion to all neighbours but the suspect through their tunnels, and to the
    /// suspect by any route.
    fn spread_suspicion(&mut self, peer: Prefix, now: Uptime, ctx: &mut Context<Self>) {
        if !self.suspicion_limit.allow(peer, now) {
            return;
        }
        tracing::debug!(%peer, "peer is suspect");
        let suspicion = Suspicion {
            peer,
            nonce: self.random.bits(),
        };
        for wait in COPIES {
            if wait.is_zero() {
                self.send(suspicion);
            } else {
                ctx.run_later(wait, move |prober, _| prober.send(suspicion));
            }
        }
    }

    fn send(&self, suspicion: Suspicion) {
        let Some(sockets) = &self.sockets else { return };
        for tunnel in self
            .tunnels
            .values()
            .filter(|tunnel| tunnel.peer != suspicion.peer)
        {
            if let Some(link) = tunnel.link {
                sockets.send_suspicion(suspicion, tunnel.address, link);
            }
        }
        sockets.send_suspicion(
            suspicion,
            self.settings.network.node_address(suspicion.peer),
            0,
        );
    }

    /// Reacts to a drain by the peer at the other end: sending through this tunnel becomes costly
    /// for us too.
    fn drains(&mut self, from: Ipv6Addr, link: u32) {
        let by_it = |tunnel: &Tunnel| tunnel.link == Some(link) && tunnel.address == from;
        let now = self.clock.now();
        if let Some((slot, tunnel)) = self.tunnels.iter_mut().find(|(_, tunnel)| by_it(tunnel)) {
            tunnel.drains = Some(now);
            tracing::debug!(tunnel = %slot, peer = %tunnel.peer, "the peer drains");
            self.links.order(LinkOrder::RaiseCost(*slot, tunnel.peer));
        }
    }

    /// Somebody inside suspects a peer of ours, or us: then it is the tunnel to the sender that is dead.
    fn handle_rumour(&mut self, rumour: Rumour, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let Rumour {
            from,
            link,
            suspicion,
        } = rumour;
        let network = self.settings.network;
        let neighbour = self
            .tunnels
            .values()
            .any(|t| t.link == Some(link) && t.address == from);
        if !neighbour && !network.range().contains(&from) {
            return;
        }
        let me = suspicion.peer == self.settings.me;
        let concerned = |tunnel: &&mut Tunnel| match me {
            true => tunnel.address == from || network.node_address(tunnel.peer) == from,
            false => tunnel.peer == suspicion.peer,
        };
        let mut any = false;
        for tunnel in self.tunnels.values_mut().filter(concerned) {
            if tunnel
                .rumour
                .is_none_or(|last| now.since(last) >= RUMOUR_PACE)
            {
                tunnel.rumour = Some(now);
                tunnel.probing.on_suspicion(now);
                any = true;
            }
        }
        if any {
            self.tick(ctx);
        }
    }
}

impl Actor for Prober {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.open(ctx);
        let losses = self.losses.clone();
        ctx.add_stream(unfold(losses, |losses| async move {
            Some((losses.take().await, losses))
        }));
    }
}

impl Handler<LinksSampled> for Prober {
    type Result = ();

    fn handle(&mut self, sampled: LinksSampled, ctx: &mut Self::Context) {
        self.follow(&sampled.links, sampled.at);
        self.tick(ctx);
    }
}

impl StreamHandler<BTreeSet<Prefix>> for Prober {
    /// OpenVPN's own word that a peer is gone is as good a reason to suspect it as missing answers.
    fn handle(&mut self, lost: BTreeSet<Prefix>, ctx: &mut Self::Context) {
        let now = self.clock.now();
        lost.into_iter()
            .for_each(|peer| self.spread_suspicion(peer, now, ctx));
    }
}

impl StreamHandler<EchoReply> for Prober {
    fn handle(&mut self, reply: EchoReply, _: &mut Self::Context) {
        self.answered(reply, self.clock.now());
    }
}

impl StreamHandler<Datagram> for Prober {
    fn handle(&mut self, datagram: Datagram, ctx: &mut Self::Context) {
        match datagram {
            Datagram::Rumour(rumour) => self.handle_rumour(rumour, ctx),
            Datagram::DrainNotice { from, link } => self.drains(from, link),
        }
    }
}

impl Handler<DocumentsChanged> for Prober {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, ctx: &mut Self::Context) {
        let Some(network) = changed.documents.network() else {
            return;
        };
        self.settings.pace = ProbePace::new(&network.parameters(), FEW_ROUTES);
        for tunnel in self.tunnels.values_mut() {
            tunnel.probing.set_pace(self.settings.pace);
        }
        self.arm(self.clock.now(), ctx);
    }
}
