//! Keeps the copies of babeld's routes: follows at once what is added, and a moment later what is deleted;
//! asks the neighbours for what is lost.
//!
//! Why there are copies stands at [`os::kernel::Kernel::shadow`].

use crate::store::Store;
use crate::store::TunnelTable;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, StreamHandler, WrapFuture};
use ipnet::Ipv6Net;
use os::{
    babel_socket::BabelSocket,
    kernel::{Destination, Kernel, KernelError, RouteChange},
};
use policies::observation::Phase;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use wire::errors::Chain;

/// babeld adds the next way 1 to 20 ms after it deleted the last (measured, busy machine); whoever has
/// no way after this long has none.
const GRACE: Duration = Duration::from_millis(300);

/// For a destination without a way the neighbours are asked so often, each time after twice the wait, from
/// [`GRACE`] on: over 19 s altogether. Nobody has a way to a node that died.
const ASKED: u32 = 6;

/// Destinations that are lost at once are asked for together.
const TOGETHER: Duration = Duration::from_millis(20);

/// The dependencies of the fallback routes actor.
#[derive(Clone)]
pub struct FallbackRoutesDeps {
    /// The range of the network whose routes are copied.
    pub network: Ipv6Net,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The kernel that reports and takes routes.
    pub kernel: Kernel,
    /// The socket by which neighbours are asked for routes.
    pub socket: BabelSocket,
}

/// The actor.
pub struct FallbackRoutes {
    network: Ipv6Net,
    kernel: Kernel,
    sender: BabelSocket,
    table: Rc<RefCell<TunnelTable>>,
    /// Destinations that the neighbours will be asked for in a moment.
    wanted: BTreeSet<Destination>,
    /// How often each destination changed: a deletion counts only if nothing came after it.
    turns: BTreeMap<Destination, u64>,
}

impl FallbackRoutes {
    /// Follows babeld's tables in `kernel`; asks through the tunnels in `table`, also for the way out of `network`.
    pub fn new(deps: FallbackRoutesDeps) -> Self {
        let FallbackRoutesDeps {
            network,
            store,
            kernel,
            socket: sender,
        } = deps;
        let table = store.tunnels;

        Self {
            network,
            kernel,
            sender,
            table,
            wanted: BTreeSet::new(),
            turns: BTreeMap::new(),
        }
    }

    fn turn(&mut self, to: Destination) -> u64 {
        let turn = self.turns.entry(to).or_default();
        *turn = turn.wrapping_add(1);
        *turn
    }

    fn carry_out(
        &self,
        ctx: &mut Context<Self>,
        change: impl Future<Output = Result<(), KernelError>> + 'static,
    ) {
        ctx.spawn(change.into_actor(self).map(|done, _, _| {
            if let Err(error) = done {
                tracing::debug!(error = %Chain(&error), "route not copied");
            }
        }));
    }

    fn forget(&mut self, to: Destination, turn: u64, ctx: &mut Context<Self>) {
        if self.turns.get(&to) == Some(&turn) {
            let kernel = self.kernel.clone();
            self.carry_out(ctx, async move { kernel.unshadow(to).await });
            self.seek(to, turn, 0, ctx);
        }
    }

    /// Asks for a way to `to` until there is one, or it was asked for often enough.
    fn seek(&mut self, to: Destination, turn: u64, asked: u32, ctx: &mut Context<Self>) {
        if self.turns.get(&to) != Some(&turn) {
            return;
        }
        if asked == ASKED {
            self.turns.remove(&to);
            return;
        }
        if self.wanted.is_empty() {
            ctx.run_later(TOGETHER, |shadow, _| shadow.ask());
        }
        self.wanted.insert(to);
        let wait = GRACE.saturating_mul(1 << asked);
        ctx.run_later(wait, move |shadow, ctx| {
            shadow.seek(to, turn, asked.saturating_add(1), ctx)
        });
    }

    fn ask(&mut self) {
        let mut wanted = std::mem::take(&mut self.wanted);
        tracing::debug!(
            destinations = wanted.len(),
            "asking neighbours for lost ways"
        );
        let out = wanted.remove(&Ipv6Net::default().into());
        let wanted: Vec<Destination> = wanted.into_iter().collect();
        let table = self.table.borrow();
        for tunnel in table
            .tunnels
            .values()
            .filter(|tunnel| tunnel.phase == Phase::Up)
        {
            self.sender.request_some(tunnel.slot, &wanted);
            if out {
                self.sender.request_default(tunnel.slot, self.network);
            }
        }
    }

    fn read_all(&self, ctx: &mut Context<Self>) {
        let kernel = self.kernel.clone();
        self.carry_out(ctx, async move { kernel.copy_all_routes().await });
    }
}

impl Actor for FallbackRoutes {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match self.kernel.watch_routes() {
            Ok(changes) => drop(ctx.add_stream(changes)),
            Err(error) => tracing::warn!(error = %Chain(&error), "routes are not copied"),
        }
        self.read_all(ctx);
    }
}

impl StreamHandler<RouteChange> for FallbackRoutes {
    fn handle(&mut self, change: RouteChange, ctx: &mut Self::Context) {
        match change {
            RouteChange::Added(to, route) => {
                self.turn(to);
                let kernel = self.kernel.clone();
                self.carry_out(ctx, async move { kernel.copy_route(*route).await });
            }
            RouteChange::Gone(to) => {
                let turn = self.turn(to);
                ctx.run_later(GRACE, move |shadow, ctx| shadow.forget(to, turn, ctx));
            }
            RouteChange::Lost => self.read_all(ctx),
        }
    }
}
