//! Keeps the copies of babeld's routes: adds copies at once, and deletes them a moment after the
//! route; asks the neighbours for lost routes.
//!
//! [`os::kernel::Kernel::copy_route`] explains the copies.

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

/// babeld adds the next route 1 to 20 ms after it deleted the last (measured, busy machine). A
/// destination that has no route after this span has lost it.
const GRACE: Duration = Duration::from_millis(300);

/// Number of requests for a destination without a route, each after twice the wait, starting at
/// [`GRACE`]: 19 s altogether. No node has a route to a node that died.
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

/// The actor that keeps the fallback routes.
pub struct FallbackRoutes {
    network: Ipv6Net,
    kernel: Kernel,
    sender: BabelSocket,
    table: Rc<RefCell<TunnelTable>>,
    /// Destinations that the neighbours will be asked for in a moment.
    wanted: BTreeSet<Destination>,
    /// How often each destination changed: a deletion counts only if nothing came after it.
    changes: BTreeMap<Destination, u64>,
}

impl FallbackRoutes {
    /// Builds the actor; it follows babeld's tables in the kernel, and asks through all tunnels,
    /// also for the default route.
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
            changes: BTreeMap::new(),
        }
    }

    fn note_change(&mut self, to: Destination) -> u64 {
        let change = self.changes.entry(to).or_default();
        *change = change.wrapping_add(1);
        *change
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

    fn delete_copy(&mut self, to: Destination, change: u64, ctx: &mut Context<Self>) {
        if self.changes.get(&to) == Some(&change) {
            let kernel = self.kernel.clone();
            self.carry_out(ctx, async move { kernel.unshadow(to).await });
            self.seek(to, change, 0, ctx);
        }
    }

    /// Requests a route to `to` until there is one, or until it was requested often enough.
    fn seek(&mut self, to: Destination, change: u64, asked: u32, ctx: &mut Context<Self>) {
        if self.changes.get(&to) != Some(&change) {
            return;
        }
        if asked == ASKED {
            self.changes.remove(&to);
            return;
        }
        if self.wanted.is_empty() {
            ctx.run_later(TOGETHER, |fallback, _| fallback.ask());
        }
        self.wanted.insert(to);
        let wait = GRACE.saturating_mul(1 << asked);
        ctx.run_later(wait, move |fallback, ctx| {
            fallback.seek(to, change, asked.saturating_add(1), ctx)
        });
    }

    fn ask(&mut self) {
        let mut wanted = std::mem::take(&mut self.wanted);
        tracing::debug!(
            destinations = wanted.len(),
            "requesting lost routes from the neighbours"
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
                self.note_change(to);
                let kernel = self.kernel.clone();
                self.carry_out(ctx, async move { kernel.copy_route(*route).await });
            }
            RouteChange::Gone(to) => {
                let change = self.note_change(to);
                ctx.run_later(GRACE, move |fallback, ctx| {
                    fallback.delete_copy(to, change, ctx)
                });
            }
            RouteChange::Lost => self.read_all(ctx),
        }
    }
}
