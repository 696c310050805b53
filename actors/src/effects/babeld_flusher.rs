//! Makes babeld send its requests at once while routes change.
//!
//! babeld buffers requests to a neighbour for a quarter of the hello interval, on average, at each hop. When this
//! node has lost a route, or a neighbour asks for a fresh sequence number, the buffers are flushed several times within a second.
//! `docs/decisions/0003-own-babel-packets.md` explains how.

use crate::{
    messages::RouteLost,
    store::{Store, TunnelTable},
};
use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle, StreamHandler};
use futures_util::stream::unfold;
use os::{babel_listener::BabelListener, babel_socket::BabelSocket, clock::Clock};
use policies::{names::Prefix, observation::Phase, units::Uptime};
use std::{cell::RefCell, rc::Rc, time::Duration};

/// Times after an occasion at which the buffers are flushed, in milliseconds. babeld answers a request after 50 to 150 ms, and
/// an answer can cause the next request. More flushes a second would be taken for payload.
const FLUSH_TIMES_MS: [u64; 6] = [3, 20, 80, 180, 350, 700];
/// An occasion that follows another one within this time causes no flushes of its own.
const MIN_OCCASION_INTERVAL: Duration = Duration::from_millis(5);
/// Pause after an error of the listening socket, so that a persistent error does not cause a busy loop.
const ERROR_PAUSE: Duration = Duration::from_secs(5);

/// A neighbour asked this node's babeld for a fresh sequence number.
struct SeqnoRequested;

/// The dependencies of the flusher.
#[derive(Clone)]
pub struct BabeldFlusherDeps {
    /// The prefix of this node.
    pub me: Prefix,
    /// The shared state that outlives the actor.
    pub store: Store,
}

/// The actor that flushes babeld's buffers.
pub struct BabeldFlusher {
    me: Prefix,
    clock: Clock,
    tunnels: Rc<RefCell<TunnelTable>>,
    occasion_at: Option<Uptime>,
    /// The flushes that the last occasion caused; the next one replaces them.
    timers: Vec<SpawnHandle>,
}

impl BabeldFlusher {
    /// Builds the actor; it flushes nothing until a route changes.
    pub fn new(deps: BabeldFlusherDeps) -> Self {
        let BabeldFlusherDeps { me, store } = deps;
        Self {
            me,
            clock: store.clock,
            tunnels: store.tunnels,
            occasion_at: None,
            timers: Vec::new(),
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
            .map(|delay| ctx.run_later(delay, |flusher, _| flusher.flush()))
            .collect();
    }

    /// Flushes babeld's buffer for each neighbour.
    fn flush(&self) {
        let table = self.tunnels.borrow();
        let up = table
            .tunnels
            .values()
            .filter(|tunnel| matches!(tunnel.phase, Phase::Up | Phase::Draining { .. }));
        for tunnel in up {
            if let Err(error) = BabelSocket::flush_babeld(tunnel.slot, self.me, tunnel.peer) {
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

impl StreamHandler<SeqnoRequested> for BabeldFlusher {
    fn handle(&mut self, _: SeqnoRequested, ctx: &mut Self::Context) {
        self.flush_repeatedly(ctx);
    }
}
