//! Keeps the fallback route table: copies each route of babeld at once, and deletes the copy a moment after
//! babeld deleted the route. Then it requests a new route from the neighbours. Meanwhile packets of this node use an
//! alternate route. An IPv6 route that another program deleted is restored.
//!
//! `os/src/kernel/fallback_routes.rs` explains what the copies are for, `policies/src/alternates.rs` what the alternates are.

mod alternate_routes;
mod deleted_routes;

use crate::messages::{HostRepaired, RouteGained, RouteLost, RoutesRead};
use crate::repair_log::RepairLog;
use crate::store::Store;
use crate::store::TunnelTable;
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, StreamHandler, WrapFuture,
};
use alternate_routes::AlternateRoutes;
use deleted_routes::DeletedRoutes;
use ipnet::Ipv6Net;
use os::{
    babel_socket::BabelSocket,
    clock::Clock,
    kernel::{Destination, Kernel, KernelError, RouteChange},
};
use policies::{observation::Phase, units::Uptime};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use wire::errors::Chain;
use wire::overlay::Network;

/// Time for which the copy of a deleted route is kept. babeld adds the next route 1 to 20 ms after it
/// deleted the last one (measured, busy machine).
const COPY_LIFETIME: Duration = Duration::from_millis(300);

/// Time after an exit of babeld for which all copies are kept, so that packets still pass until the next babeld has learnt
/// the routes: it knows a neighbour after the next hello, which comes every second, or every few seconds in a network that saves bytes.
const RESTART_TIME: Duration = Duration::from_secs(8);

/// A destination that has had no route for this long has lost it. Mostly babeld adds the next route within this time.
const LOSS_DELAY: Duration = Duration::from_millis(20);

/// Delay between the first and the second request for a route; it doubles with each further request.
const FIRST_REQUEST_DELAY: Duration = Duration::from_millis(300);

/// Number of requests for the route to one destination, which take 19 s altogether. Then the destination
/// counts as dead, since no node has a route to it.
const MAX_REQUESTS: u32 = 6;

/// Time for which lost destinations are collected, so that one packet requests all of them.
const REQUEST_BATCH_TIME: Duration = Duration::from_millis(5);

/// Interval at which babeld's tables in the kernel are compared with what babeld has installed.
const COMPARISON_INTERVAL: Duration = Duration::from_secs(30);

/// The dependencies of the fallback routes actor.
#[derive(Clone)]
pub struct FallbackRoutesDeps {
    /// The network whose routes are copied.
    pub network: Network,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The kernel, which reports babeld's routes and holds the copies.
    pub kernel: Kernel,
    /// The socket for requests to neighbours.
    pub socket: BabelSocket,
    /// The receiver of `RouteLost`.
    pub lost: Recipient<RouteLost>,
    /// The receiver of `RouteGained`.
    pub gained: Recipient<RouteGained>,
    /// The receiver of restored routes.
    pub repaired: Recipient<HostRepaired>,
}

/// The actor that keeps the fallback route table.
pub struct FallbackRoutes {
    network: Network,
    kernel: Kernel,
    socket: BabelSocket,
    lost: Recipient<RouteLost>,
    gained: Recipient<RouteGained>,
    repaired: Recipient<HostRepaired>,
    deleted: DeletedRoutes,
    log: RepairLog,
    /// Destinations that have lost their route, and since when; one for each route of babeld at most.
    without_route: BTreeMap<Destination, Uptime>,
    tunnels: Rc<RefCell<TunnelTable>>,
    /// Destinations to which routes are requested with the next batch.
    batch: BTreeSet<Destination>,
    /// The number of changes of the route to each destination. By it a delayed action sees whether
    /// the route has changed again meanwhile. There is one entry for each route of babeld, and for each that it deleted in
    /// the last [`MAX_REQUESTS`] requests.
    changes: BTreeMap<Destination, u64>,
    alternates: AlternateRoutes,
    clock: Clock,
    /// Until when no copy is deleted, because babeld has exited.
    kept_until: Option<Uptime>,
    copying: CopyingAll,
}

/// Whether the whole tables are being copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CopyingAll {
    #[default]
    Idle,
    Running,
    /// They are, and the kernel has dropped messages about changes meanwhile, so that they must be copied once more.
    RunningAndOutdated,
}

impl FallbackRoutes {
    /// Builds the actor; it copies routes once it is started.
    pub fn new(deps: FallbackRoutesDeps) -> Self {
        let FallbackRoutesDeps {
            network,
            store,
            kernel,
            socket,
            lost,
            gained,
            repaired,
        } = deps;
        Self {
            network,
            kernel,
            socket,
            lost,
            gained,
            repaired,
            deleted: DeletedRoutes::default(),
            log: RepairLog::default(),
            without_route: BTreeMap::new(),
            tunnels: store.tunnels,
            clock: store.clock,
            kept_until: None,
            copying: CopyingAll::Idle,
            batch: BTreeSet::new(),
            changes: BTreeMap::new(),
            alternates: AlternateRoutes::default(),
        }
    }

    /// Counts a change of the route to `to`, and returns its number.
    fn count_change(&mut self, to: Destination) -> u64 {
        let change = self.changes.entry(to).or_default();
        *change = change.wrapping_add(1);
        *change
    }

    /// Lets the copy of a deleted route expire, and seeks another route if babeld does not add one.
    fn on_deleted(&mut self, to: Destination, ctx: &mut Context<Self>) {
        let change = self.count_change(to);
        ctx.run_later(COPY_LIFETIME, move |fallback, ctx| {
            fallback.delete_copy(to, change, ctx)
        });
        ctx.run_later(LOSS_DELAY, move |fallback, ctx| {
            if fallback.changes.get(&to) == Some(&change) {
                let now = fallback.clock.now();
                fallback.without_route.insert(to, now);
                fallback.lost.do_send(RouteLost);
            }
            fallback.seek_alternate(to, change, 0, ctx);
            fallback.request_route(to, change, 0, ctx);
        });
    }

    /// Returns for how long the copies are still kept because babeld has exited; `None` if they are not.
    fn kept_for(&self) -> Option<Duration> {
        let rest = self.kept_until?.since(self.clock.now());
        (!rest.is_zero()).then_some(rest)
    }

    fn carry_out(
        &self,
        ctx: &mut Context<Self>,
        change: impl Future<Output = Result<(), KernelError>> + 'static,
    ) {
        ctx.spawn(
            change
                .into_actor(self)
                .map(|result, _, _| log_failure(result)),
        );
    }

    /// Deletes the copy of a deleted route, unless the route has changed since.
    fn delete_copy(&mut self, to: Destination, change: u64, ctx: &mut Context<Self>) {
        if let Some(rest) = self.kept_for() {
            ctx.run_later(rest, move |fallback, ctx| {
                fallback.delete_copy(to, change, ctx)
            });
        } else if self.changes.get(&to) == Some(&change) {
            let kernel = self.kernel.clone();
            self.carry_out(ctx, async move { kernel.delete_copy(to).await });
        }
    }

    /// Requests a route to `to`, and repeats that with growing delays until there is one, at most
    /// [`MAX_REQUESTS`] times.
    fn request_route(
        &mut self,
        to: Destination,
        change: u64,
        requests_sent: u32,
        ctx: &mut Context<Self>,
    ) {
        if self.changes.get(&to) != Some(&change) {
            return;
        }
        if requests_sent == MAX_REQUESTS {
            self.changes.remove(&to);
            self.without_route.remove(&to);
            return;
        }
        if self.batch.is_empty() {
            ctx.run_later(REQUEST_BATCH_TIME, |fallback, _| fallback.send_batch());
        }
        self.batch.insert(to);
        let delay = FIRST_REQUEST_DELAY.saturating_mul(1 << requests_sent);
        ctx.run_later(delay, move |fallback, ctx| {
            fallback.request_route(to, change, requests_sent.saturating_add(1), ctx)
        });
    }

    /// Requests routes to all destinations of the batch from each neighbour.
    fn send_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        tracing::debug!(
            destinations = batch.len(),
            "requesting lost routes from the neighbours"
        );
        let has_default = batch.remove(&Ipv6Net::default().into());
        let destinations: Vec<Destination> = batch.into_iter().collect();
        let table = self.tunnels.borrow();
        for tunnel in table
            .tunnels
            .values()
            .filter(|tunnel| tunnel.phase == Phase::Up)
        {
            self.socket
                .request_some(tunnel.slot, tunnel.peer, &destinations);
            if has_default {
                self.socket
                    .request_default(tunnel.slot, self.network.range());
            }
        }
    }

    /// Copies the whole tables, at most once at a time: a flood of routes lets the kernel drop messages again and again.
    fn copy_all(&mut self, ctx: &mut Context<Self>) {
        if self.copying != CopyingAll::Idle {
            self.copying = CopyingAll::RunningAndOutdated;
            return;
        }
        self.copying = CopyingAll::Running;
        let kernel = self.kernel.clone();
        let copied = async move { kernel.copy_all_routes().await };
        ctx.spawn(copied.into_actor(self).map(|result, fallback, ctx| {
            log_failure(result);
            let state = std::mem::take(&mut fallback.copying);
            if state == CopyingAll::RunningAndOutdated {
                fallback.copy_all(ctx);
            }
        }));
    }
}

fn log_failure(result: Result<(), KernelError>) {
    if let Err(error) = result {
        tracing::debug!(error = %Chain(&error), "fallback route table not changed");
    }
}

impl Actor for FallbackRoutes {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match self.kernel.watch_routes() {
            Ok(changes) => drop(ctx.add_stream(changes)),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot watch babeld's routes; there are no fallback routes")
            }
        }
        self.copy_all(ctx);
        let kernel = self.kernel.clone();
        self.carry_out(ctx, async move { kernel.clear_alternates().await });
        ctx.run_interval(COMPARISON_INTERVAL, Self::compare_tables);
    }
}

impl Handler<RoutesRead> for FallbackRoutes {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, ctx: &mut Self::Context) {
        self.restore_deleted(&read, ctx);
        match read.table {
            Some(table) => self.alternates.set_table(table),
            None => {
                self.kept_until = Some(read.at + RESTART_TIME);
                self.remove_all_alternates(ctx);
            }
        }
    }
}

impl StreamHandler<RouteChange> for FallbackRoutes {
    fn handle(&mut self, change: RouteChange, ctx: &mut Self::Context) {
        match change {
            RouteChange::Added(to, route) => {
                if self.without_route.remove(&to).is_some() || !self.changes.contains_key(&to) {
                    self.gained.do_send(RouteGained);
                }
                self.deleted.forget(to);
                self.count_change(to);
                self.remove_alternate(to, ctx);
                let kernel = self.kernel.clone();
                self.carry_out(ctx, async move { kernel.copy_route(*route).await });
            }
            RouteChange::Deleted(to) => self.on_deleted(to, ctx),
            RouteChange::Blocked(to) => {
                self.alternates.block(to);
                self.remove_alternate(to, ctx);
                self.on_deleted(to, ctx);
            }
            RouteChange::Unblocked(to) => self.alternates.unblock(to),
            RouteChange::Overrun => self.copy_all(ctx),
        }
    }
}
