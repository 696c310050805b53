//! Makes babeld send its requests at once while routes change.
//!
//! babeld buffers requests to a neighbour for a quarter of the hello interval, on average, at each hop. When this
//! node has lost a route, or a neighbour asks for a fresh sequence number, the buffers are flushed several times within a second.
//! `docs/decisions/0003-own-babel-packets.md` explains how.

use crate::store::{Store, TunnelTable};
use actix::{Actor, AsyncContext, Context, SpawnHandle, StreamHandler};
use futures_util::stream::unfold;
use os::{
    babel_listener::BabelListener,
    babel_socket::BabelSocket,
    clock::Clock,
    kernel::{Destination, Kernel, RouteChange},
};
use policies::{names::Prefix, observation::Phase, units::Uptime};
use std::{cell::RefCell, collections::BTreeSet, rc::Rc, time::Duration};
use wire::errors::Chain;

/// Times after an occasion at which the buffers are flushed, in milliseconds. babeld answers a request after 50 to 150 ms, and
/// an answer can cause the next request. More flushes a second would be taken for payload.
const FLUSH_TIMES_MS: [u64; 6] = [3, 20, 80, 180, 350, 700];
/// A destination without a route for this long has lost it. A change of its next hop takes 1 to 20 ms.
const LOSS_DELAY: Duration = Duration::from_millis(25);
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
    /// The kernel, which reports babeld's routes.
    pub kernel: Kernel,
}

/// The actor that flushes babeld's buffers.
pub struct BabeldFlusher {
    me: Prefix,
    kernel: Kernel,
    clock: Clock,
    tunnels: Rc<RefCell<TunnelTable>>,
    occasion_at: Option<Uptime>,
    /// Destinations whose route was deleted within the last [`LOSS_DELAY`], and not added since.
    deleted: BTreeSet<Destination>,
    /// The flushes that the last occasion caused; the next one replaces them.
    timers: Vec<SpawnHandle>,
}

impl BabeldFlusher {
    /// Builds the actor; it flushes nothing until a route changes.
    pub fn new(deps: BabeldFlusherDeps) -> Self {
        let BabeldFlusherDeps { me, store, kernel } = deps;
        Self {
            me,
            kernel,
            clock: store.clock,
            tunnels: store.tunnels,
            occasion_at: None,
            deleted: BTreeSet::new(),
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
        match self.kernel.watch_routes() {
            Ok(changes) => drop(ctx.add_stream(changes)),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot watch babeld's routes; its requests are sent after a delay")
            }
        }
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

impl StreamHandler<RouteChange> for BabeldFlusher {
    fn handle(&mut self, change: RouteChange, ctx: &mut Self::Context) {
        match change {
            RouteChange::Deleted(to) => {
                self.deleted.insert(to);
                ctx.run_later(LOSS_DELAY, move |flusher, ctx| {
                    if flusher.deleted.remove(&to) {
                        flusher.flush_repeatedly(ctx);
                    }
                });
            }
            RouteChange::Added(to, _) => {
                self.deleted.remove(&to);
            }
            RouteChange::Blocked(_) | RouteChange::Unblocked(_) | RouteChange::Overrun => {}
        }
    }
}

impl StreamHandler<SeqnoRequested> for BabeldFlusher {
    fn handle(&mut self, _: SeqnoRequested, ctx: &mut Self::Context) {
        self.flush_repeatedly(ctx);
    }
}
