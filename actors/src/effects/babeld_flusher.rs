//! Makes babeld send its requests and updates at once while routes change.
//!
//! babeld buffers requests to a neighbour for a quarter of the hello interval, on average, and updates for about a hello interval, at each hop. When
//! this node has lost a route, or a neighbour asks for a fresh sequence number, the requests are flushed several times within a second; when it
//! has a route to another destination, the updates. `docs/decisions/0003-own-babel-packets.md` explains how.

use crate::{
    messages::{RouteGained, RouteLost},
    store::{Store, TunnelTable},
};
use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle, StreamHandler};
use futures_util::stream::unfold;
use os::{babel_listener::BabelListener, babel_socket::BabelSocket, clock::Clock};
use policies::{
    names::{Prefix, Slot},
    observation::Phase,
    units::Uptime,
};
use std::{cell::RefCell, io, rc::Rc, time::Duration};
use wire::overlay::Network;

/// Times after an occasion at which the buffers are flushed, in milliseconds. babeld answers a request after 50 to 150 ms, and
/// an answer can cause the next request. More flushes a second would be taken for payload.
const FLUSH_TIMES_MS: [u64; 6] = [3, 20, 80, 180, 350, 700];
/// An occasion that follows another one within this time causes no flushes of its own.
const MIN_OCCASION_INTERVAL: Duration = Duration::from_millis(5);
/// Time for which routes to other destinations are collected before their updates are flushed. babeld adds its update to the buffer
/// right after it has added a route to the kernel's table.
const UPDATE_BATCH_TIME: Duration = Duration::from_millis(20);
/// Minimum time between two flushes of updates.
const MIN_UPDATE_FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// Pause after an error of the listening socket, so that a persistent error does not cause a busy loop.
const ERROR_PAUSE: Duration = Duration::from_secs(5);

/// A neighbour asked this node's babeld for a fresh sequence number.
struct SeqnoRequested;

/// The dependencies of the flusher.
#[derive(Clone)]
pub struct BabeldFlusherDeps {
    /// The prefix of this node.
    pub me: Prefix,
    /// The network of this node.
    pub network: Network,
    /// The shared state that outlives the actor.
    pub store: Store,
}

/// The actor that flushes babeld's buffers.
pub struct BabeldFlusher {
    me: Prefix,
    network: Network,
    clock: Clock,
    tunnels: Rc<RefCell<TunnelTable>>,
    occasion_at: Option<Uptime>,
    /// The flushes that the last occasion caused; the next one replaces them.
    timers: Vec<SpawnHandle>,
    /// The time of the last flush of updates, which may lie ahead.
    updates_flushed_at: Option<Uptime>,
}

impl BabeldFlusher {
    /// Builds the actor; it flushes nothing until a route changes.
    pub fn new(deps: BabeldFlusherDeps) -> Self {
        let BabeldFlusherDeps { me, network, store } = deps;
        Self {
            me,
            network,
            clock: store.clock,
            tunnels: store.tunnels,
            occasion_at: None,
            timers: Vec::new(),
            updates_flushed_at: None,
        }
    }

    /// Flushes the buffers now and several times within the next second.
    fn flush_repeatedly(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let is_same_occasion = |at| now.since(at) < MIN_OCCASION_INTERVAL;
        if self.occasion_at.is_some_and(is_same_occasion) {
            return;
        }
        self.occasion_at = Some(now);
        for timer in self.timers.drain(..) {
            ctx.cancel_future(timer);
        }
        let delays = FLUSH_TIMES_MS.into_iter().map(Duration::from_millis);
        self.timers = delays
            .map(|delay| ctx.run_later(delay, |flusher, _| flusher.flush_requests()))
            .collect();
    }

    /// Flushes the updates a moment later, unless that is scheduled already.
    fn flush_updates_soon(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let earliest = now + UPDATE_BATCH_TIME;
        let flush_at = match self.updates_flushed_at {
            Some(at) if at >= earliest => return,
            Some(at) => earliest.max(at + MIN_UPDATE_FLUSH_INTERVAL),
            None => earliest,
        };
        self.updates_flushed_at = Some(flush_at);
        ctx.run_later(flush_at.since(now), |flusher, _| flusher.flush_updates());
    }

    /// Flushes what babeld has buffered for each neighbour.
    fn flush_requests(&self) {
        self.for_each_neighbour(|slot, peer| BabelSocket::flush_requests(slot, self.me, peer));
    }

    /// Flushes the updates that babeld has buffered.
    fn flush_updates(&self) {
        let (network, me) = (self.network, self.me);
        self.for_each_neighbour(|slot, peer| BabelSocket::flush_updates(slot, network, me, peer));
    }

    fn for_each_neighbour(&self, flush: impl Fn(Slot, Prefix) -> io::Result<()>) {
        let table = self.tunnels.borrow();
        let up = table
            .tunnels
            .values()
            .filter(|tunnel| matches!(tunnel.phase, Phase::Up | Phase::Draining { .. }));
        for tunnel in up {
            if let Err(error) = flush(tunnel.slot, tunnel.peer) {
                tracing::debug!(tunnel = %tunnel.slot, %error, "babeld not asked to flush its buffer");
            }
        }
    }
}

impl Actor for BabeldFlusher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match BabelListener::open() {
            Ok(listener) => drop(ctx.add_stream(unfold(listener, |listener| async move {
                while let Err(error) = listener.seqno_request().await {
                    tracing::debug!(%error, "cannot receive copies of Babel packets");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
                Some((SeqnoRequested, listener))
            }))),
            Err(error) => {
                tracing::warn!(%error, "cannot receive copies of Babel packets; requests of neighbours are forwarded after a delay")
            }
        }
    }
}

impl Handler<RouteLost> for BabeldFlusher {
    type Result = ();

    fn handle(&mut self, _: RouteLost, ctx: &mut Self::Context) {
        self.flush_repeatedly(ctx);
    }
}

impl Handler<RouteGained> for BabeldFlusher {
    type Result = ();

    fn handle(&mut self, _: RouteGained, ctx: &mut Self::Context) {
        self.flush_updates_soon(ctx);
    }
}

impl StreamHandler<SeqnoRequested> for BabeldFlusher {
    fn handle(&mut self, _: SeqnoRequested, ctx: &mut Self::Context) {
        self.flush_repeatedly(ctx);
    }
}
