//! Probes each tunnel, orders the close of a tunnel whose peer is dead, exchanges suspicions with other
//! nodes, and reacts to a peer's drain notice.
//!
//! [`policies::probe`] decides when to probe and what a missing answer means; this actor owns the
//! sockets. A suspicion makes other nodes probe; each of them believes only its own probes.

mod narrow_paths;
mod sending;
mod settings;
mod sockets;
mod suspicions;
mod tunnel;

use crate::store::Store;
use crate::{
    effects::link_orders::{LinkOrder, LinkOrderQueue},
    mailboxes::offer,
    messages::{DocumentsChanged, LinksSampled, Ordered, ProbesRead},
    store::{Loss, Losses, LostPeers, SharedCandidates, TunnelTable},
};
use actix::{Actor, AsyncContext, Context, Handler, Recipient, SpawnHandle, StreamHandler};
use futures_util::stream::unfold;
use os::randomness::Randomness;
use os::{
    clock::Clock,
    echo_socket::{EchoReply, ProbeKind},
    kernel::link_index,
};
use policies::{
    names::{Prefix, Role, Slot},
    observation::{LinkReading, Phase, ProbeReading},
    orders::{CloseReason, Order},
    probe::{Liveness, ProbePace, Probing, Seq, SuspicionLimit},
    probe_history::ProbeTotals,
    silence::Silence,
    units::Uptime,
};
use sending::*;
pub use settings::{ProberDeps, ProberSettings};
use sockets::{Datagram, Sockets};
use std::{cell::RefCell, collections::BTreeMap, net::Ipv6Addr, rc::Rc, time::Duration};
use tunnel::Tunnel;
use wire::errors::Chain;
use wire::overlay::{Network, link_local};

/// Interval at which a watched tunnel is judged, and the shortest delay between two ticks.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// A busy tunnel is watched once an answer is missing for this long. This is only a hint to look more often;
/// `policies::probe`, which knows the round trip, decides.
const ANSWER_OVERDUE_AFTER: Duration = Duration::from_millis(100);
/// A tunnel is watched for this long after a suspicion about its peer arrived.
const WATCH_TIME: Duration = Duration::from_secs(2);
/// Interval between two readings that are sent to other actors.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Delay after which the order to close a dead tunnel is repeated, if the tunnel still exists.
const CLOSE_REPEAT_DELAY: Duration = Duration::from_secs(1);
/// Time after a drain was last seen for which its tunnel counts as draining. A node closes the tunnel or
/// gives up the drain within 20 s (`policies::parameters::DRAIN_DEADLINE`).
const DRAIN_LIFETIME: Duration = Duration::from_secs(30);
/// Delay before opening the sockets is tried again.
const REOPEN_DELAY: Duration = Duration::from_secs(5);

/// Number of routes that babeld is assumed to announce over a link. `ProbePace` computes from it how much
/// traffic is Babel's own; each 30 further routes cost one packet in an update interval.
pub const ASSUMED_ROUTES: usize = 30;

/// The actor that probes tunnels.
pub struct Prober {
    settings: ProberSettings,
    clock: Clock,
    random: Randomness,
    lost_peers: LostPeers,
    table: Rc<RefCell<TunnelTable>>,
    candidates: SharedCandidates,
    links: LinkOrderQueue,
    orders: Recipient<Ordered>,
    readers: Vec<Recipient<ProbesRead>>,
    sockets: Option<Sockets>,
    tunnels: BTreeMap<Slot, Tunnel>,
    /// The probes of tunnels that have closed.
    closed: BTreeMap<Role, ProbeTotals>,
    suspicion_limit: SuspicionLimit,
    silence: Silence,
    /// When the neighbours were last asked whether they still reach this node.
    asked_at: Option<Uptime>,
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
            readers,
        } = deps;
        let lost_peers = store.tunnels.borrow().lost_peers.clone();
        let (table, candidates) = (store.tunnels, store.candidates);
        let (clock, random) = (store.clock, store.random);

        let suspicion_limit = SuspicionLimit::default();
        let tunnels = BTreeMap::new();
        Self {
            settings,
            clock,
            random,
            lost_peers,
            table,
            candidates,
            links,
            orders,
            readers,
            sockets: None,
            tunnels,
            closed: BTreeMap::new(),
            suspicion_limit,
            silence: Silence::default(),
            asked_at: None,
            reported_at: None,
            timer: None,
        }
    }

    fn open_sockets(&mut self, ctx: &mut Context<Self>) {
        match Sockets::open() {
            Ok(sockets) => {
                ctx.add_stream(sockets.replies());
                ctx.add_stream(sockets.datagrams());
                self.sockets = Some(sockets);
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot open the probe sockets; no tunnel is probed until that succeeds");
                ctx.run_later(REOPEN_DELAY, Self::open_sockets);
            }
        }
    }

    /// Adds the tunnels that came up, removes those that closed, and updates the counters of the others.
    fn update_tunnels(&mut self, links: &[LinkReading], now: Uptime) {
        let is_up =
            |link: &&LinkReading| matches!(link.tunnel.phase, Phase::Up | Phase::Draining { .. });
        let (mut tunnels, mut closed) = (BTreeMap::new(), Vec::new());
        for link in links.iter().filter(is_up) {
            let mut tunnel = match self.tunnels.remove(&link.tunnel.slot) {
                Some(known) if known.is_of(&link.tunnel) => known,
                earlier => {
                    closed.extend(earlier);
                    Tunnel::new(link, &self.settings, now)
                }
            };
            tunnel.probing.on_counters(link.counters, now);
            tunnel.set_endpoint(link.tunnel.endpoint, now);
            if link.tunnel.phase.is_draining() {
                tunnel.drain_seen_at = Some(now);
            }
            tunnels.insert(link.tunnel.slot, tunnel);
        }
        closed.extend(std::mem::replace(&mut self.tunnels, tunnels).into_values());
        for tunnel in closed {
            let (role, totals) = tunnel.into_totals(now);
            self.closed.entry(role).or_default().add(&totals);
        }
    }

    /// Judges and probes all tunnels, sends a reading if it is due, and sets the timer for the next tick.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        // A probe whose answer waits in the socket must not count as missed.
        while let Some(reply) = self.sockets.as_ref().and_then(Sockets::try_receive_reply) {
            self.on_reply(reply, now);
        }
        let mut suspects = Vec::new();
        for (slot, tunnel) in &mut self.tunnels {
            // A client that connects again takes the slot over before the next reading says so. Nobody is to suspect its
            // node because the tunnel before it fell silent.
            if !tunnel.is_in(&self.table.borrow(), *slot) {
                continue;
            }
            let found = tunnel.probing.liveness(now);
            let liveness = match tunnel.path_mtu.may_stall(now) {
                true => Liveness::Alive,
                false => found,
            };
            // A draining tunnel that falls silent counts as closed by the peer, not as dead: a client may have
            // exited, which OpenVPN's server reports only 5 s later, or the peer's server has exited.
            let reason = match tunnel.is_draining(now) {
                true => CloseReason::PeerClosed,
                false => CloseReason::PeerDead,
            };
            if liveness >= Liveness::Suspect && reason == CloseReason::PeerDead {
                suspects.push(tunnel.peer);
            }
            let is_order_due = tunnel
                .close_ordered_at
                .is_none_or(|ordered_at| now.since(ordered_at) >= CLOSE_REPEAT_DELAY);
            if liveness == Liveness::Dead && is_order_due {
                if tunnel.close_ordered_at.is_none() {
                    tracing::debug!(tunnel = %slot, peer = %tunnel.peer, %reason, "peer does not answer; closing the tunnel");
                }
                tunnel.close_ordered_at = Some(now);
                let order = Order::Close {
                    slot: *slot,
                    reason,
                };
                self.orders.do_send(Ordered {
                    order,
                    about: Some(tunnel.identity()),
                });
            }
            send_due_probe(
                self.sockets.as_ref(),
                *slot,
                tunnel,
                self.settings.is_metered,
                now,
            );
            check_path(
                self.sockets.as_ref(),
                *slot,
                tunnel,
                self.settings.openvpn_uid,
                now,
            );
        }
        self.leave_narrow_paths(now);
        suspects
            .into_iter()
            .for_each(|peer| self.spread_suspicion(peer, now, ctx));
        self.send_reading(now);
        self.set_timer(now, ctx);
    }

    fn send_reading(&mut self, now: Uptime) {
        if self
            .reported_at
            .is_some_and(|at| now.since(at) < REPORT_INTERVAL)
        {
            return;
        }
        self.reported_at = Some(now);
        let readings = self.tunnels.iter().map(|(slot, tunnel)| ProbeReading {
            full_size: tunnel.path_mtu.full_size(),
            ..tunnel.probing.reading(*slot, now)
        });
        let reading = ProbesRead {
            at: now,
            probes: readings.collect(),
            totals: self.probe_totals(),
            asked_at: self.asked_at,
        };
        self.readers
            .iter()
            .for_each(|reader| offer(reader, reading.clone()));
    }

    /// Returns the probes of all tunnels, closed ones included.
    fn probe_totals(&self) -> BTreeMap<Role, ProbeTotals> {
        let mut totals = self.closed.clone();
        for (role, more) in self.tunnels.values().map(Tunnel::totals) {
            totals.entry(role).or_default().add(more);
        }
        totals
    }

    /// Sets a timer for the next tick, if one is due before the sampler's next reading, which causes a tick anyway.
    fn set_timer(&mut self, now: Uptime, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let delay = |tunnel: &Tunnel| match tunnel.is_watched(now) {
            true => WATCH_INTERVAL,
            false => tunnel.probing.next_due(now).since(now).max(WATCH_INTERVAL),
        };
        let next = self.tunnels.values().map(delay).min();
        if let Some(delay) = next.filter(|delay| *delay < crate::sources::sampler::PERIOD) {
            self.timer = Some(ctx.run_later(delay, Self::tick));
        }
    }

    fn on_reply(&mut self, reply: EchoReply, now: Uptime) {
        let mut tunnels = self.tunnels.values_mut();
        let is_sender =
            |tunnel: &&mut Tunnel| tunnel.link == Some(reply.link) && tunnel.address == reply.from;
        if let Some(tunnel) = tunnels.find(is_sender) {
            match reply.kind {
                ProbeKind::Liveness => {
                    tunnel.answered_at = Some(now);
                    tunnel.probing.on_reply(Seq(reply.sequence), now);
                }
                // The frame itself, which the link has counted, ends the silence.
                ProbeKind::Question => {}
                ProbeKind::Small => tunnel.path_mtu.on_small_reply(reply.sequence),
                ProbeKind::FullSize => tunnel.path_mtu.on_full_size_reply(reply.sequence, now),
            }
        }
    }

    /// Probes a tunnel less often, since the peer is metered.
    fn on_metered_notice(&mut self, from: Ipv6Addr, link: u32) {
        let mut tunnels = self.tunnels.values_mut();
        let is_sender = |tunnel: &&mut Tunnel| tunnel.link == Some(link) && tunnel.address == from;
        if let Some(tunnel) = tunnels.find(is_sender) {
            tunnel.mark_metered(self.settings.pace);
        }
    }

    /// Raises the cost of a tunnel that the peer drains, so that our traffic moves away from it too.
    fn on_drain_notice(&mut self, from: Ipv6Addr, link: u32) {
        let is_sender = |tunnel: &Tunnel| tunnel.link == Some(link) && tunnel.address == from;
        let now = self.clock.now();
        if let Some((slot, tunnel)) = self
            .tunnels
            .iter_mut()
            .find(|(_, tunnel)| is_sender(tunnel))
        {
            tunnel.drain_seen_at = Some(now);
            tracing::debug!(tunnel = %slot, peer = %tunnel.peer, "the peer drains this tunnel");
            self.links.order(LinkOrder::RaiseCost(*slot, tunnel.peer));
        }
    }
}

impl Actor for Prober {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.open_sockets(ctx);
        let lost_peers = self.lost_peers.clone();
        ctx.add_stream(unfold(lost_peers, |lost_peers| async move {
            Some((lost_peers.take().await, lost_peers))
        }));
    }
}

impl Handler<LinksSampled> for Prober {
    type Result = ();

    fn handle(&mut self, sampled: LinksSampled, ctx: &mut Self::Context) {
        self.update_tunnels(&sampled.links, sampled.at);
        let received = sampled.links.iter().map(|link| link.counters.rx_packets);
        let received = received.fold(0, u64::saturating_add);
        if self.silence.should_ask(received, sampled.at) {
            ask_neighbours(self.sockets.as_ref(), &mut self.tunnels);
            self.asked_at = Some(sampled.at);
        }
        self.tick(ctx);
    }
}

impl StreamHandler<Losses> for Prober {
    /// Suspects peers whose tunnel closed because OpenVPN lost them, which is as good a reason as missing answers, and
    /// notifies those that cannot know that it closed.
    fn handle(&mut self, lost: Losses, ctx: &mut Self::Context) {
        let now = self.clock.now();
        for (peer, loss) in lost {
            match loss {
                Loss::Silent => self.spread_suspicion(peer, now, ctx),
                Loss::Unannounced => self.notify_of_close(peer, now, ctx),
            }
        }
    }
}

impl StreamHandler<EchoReply> for Prober {
    fn handle(&mut self, reply: EchoReply, _: &mut Self::Context) {
        self.on_reply(reply, self.clock.now());
    }
}

impl StreamHandler<Datagram> for Prober {
    fn handle(&mut self, datagram: Datagram, ctx: &mut Self::Context) {
        match datagram {
            Datagram::Suspicion(received) => self.on_suspicion(received, ctx),
            Datagram::DrainNotice { from, link } => self.on_drain_notice(from, link),
            Datagram::MeteredNotice { from, link } => self.on_metered_notice(from, link),
        }
    }
}

impl Handler<DocumentsChanged> for Prober {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, ctx: &mut Self::Context) {
        let Some(network) = changed.documents.network() else {
            return;
        };
        self.settings.pace = ProbePace::new(&network.parameters(), ASSUMED_ROUTES);
        for tunnel in self.tunnels.values_mut() {
            tunnel.set_pace(self.settings.pace);
        }
        self.set_timer(self.clock.now(), ctx);
    }
}
