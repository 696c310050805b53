//! Sets an alternate route to a node while babeld has no route to it.

use super::{Context, Destination, FallbackRoutes};
use actix::AsyncContext;
use ipnet::{IpNet, Ipv6Net};
use policies::{
    alternates::{NextHop, alternate},
    names::Prefix,
    observation::{BabelTable, INFINITY, Phase, Route},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Delay between two choices of an alternate for the same destination, since tunnels come and go.
const CHOICE_INTERVAL: Duration = Duration::from_millis(200);

/// The number of choices for one loss, which take 3 s altogether. babeld finds another route by then, if there is one.
const MAX_CHOICES: u32 = 15;

/// babeld's last routes, and the alternates in the kernel.
#[derive(Default)]
pub(super) struct AlternateRoutes {
    /// babeld's tables as last read.
    table: Arc<BabelTable>,
    /// Their routes by node; `None` until they are needed.
    routes: Option<Vec<Route>>,
    /// The alternates that are set; at most one per route that babeld lost in the last 3 s.
    set: BTreeMap<Ipv6Net, NextHop>,
    /// The ranges of revoked nodes, to which nothing is sent.
    blocked: BTreeSet<Destination>,
}

impl AlternateRoutes {
    pub(super) fn set_table(&mut self, table: Arc<BabelTable>) {
        (self.table, self.routes) = (table, None);
    }

    pub(super) fn block(&mut self, range: Destination) {
        self.blocked.insert(range);
    }

    pub(super) fn unblock(&mut self, range: Destination) {
        self.blocked.remove(&range);
    }

    pub(super) fn is_blocked(&self, range: Destination) -> bool {
        self.blocked.contains(&range)
    }

    /// Returns the nodes to which babeld has installed a route that leads somewhere.
    pub(super) fn installed(&self) -> impl Iterator<Item = Prefix> {
        let routes = self.table.routes.iter();
        let installed = routes.filter(|route| route.installed && route.metric != INFINITY);
        installed.map(|route| route.node)
    }

    /// Returns all known routes to a node.
    fn routes_to(&mut self, node: Prefix) -> &[Route] {
        let routes = self.routes.get_or_insert_with(|| {
            let mut routes = self.table.routes.clone();
            routes.sort_unstable_by_key(|route| route.node);
            routes
        });
        let start = routes.partition_point(|route| route.node < node);
        let end = routes.partition_point(|route| route.node <= node);
        routes.get(start..end).unwrap_or_default()
    }
}

impl FallbackRoutes {
    /// Sets the best alternate, and chooses again and again until the route changes, [`MAX_CHOICES`] times at most.
    pub(super) fn seek_alternate(
        &mut self,
        to: Destination,
        change: u64,
        choices: u32,
        ctx: &mut Context<Self>,
    ) {
        if self.changes.get(&to) != Some(&change) {
            return;
        }
        let next_hop = match choices < MAX_CHOICES {
            true => self.choose_alternate(to),
            false => None,
        };
        match (to, next_hop) {
            (IpNet::V6(range), Some(next_hop)) => self.set_alternate(range, next_hop, ctx),
            _ => self.remove_alternate(to, ctx),
        }
        if choices < MAX_CHOICES {
            ctx.run_later(CHOICE_INTERVAL, move |fallback, ctx| {
                fallback.seek_alternate(to, change, choices.saturating_add(1), ctx)
            });
        }
    }

    fn choose_alternate(&mut self, to: Destination) -> Option<NextHop> {
        let IpNet::V6(range) = to else { return None };
        // The copies are better while babeld restarts: its neighbours still work.
        if self.kept_for().is_some() {
            return None;
        }
        if self.alternates.blocked.contains(&to) {
            return None;
        }
        let node = self.network.node_of_range(range)?;
        let tunnels = self.tunnels.borrow();
        let is_usable = |slot| {
            let tunnel = tunnels.tunnels.get(&slot);
            tunnel.is_some_and(|tunnel| tunnel.phase == Phase::Up)
        };
        alternate(self.alternates.routes_to(node), node, is_usable)
    }

    fn set_alternate(&mut self, to: Ipv6Net, next_hop: NextHop, ctx: &mut Context<Self>) {
        if self.alternates.set.insert(to, next_hop) == Some(next_hop) {
            return;
        }
        tracing::debug!(%to, via = %next_hop.via, tunnel = %next_hop.slot, "route lost; using an alternate until babeld has another one");
        let kernel = self.kernel.clone();
        self.carry_out(ctx, async move { kernel.set_alternate(to, next_hop).await });
    }

    /// Removes all alternates.
    pub(super) fn remove_all_alternates(&mut self, ctx: &mut Context<Self>) {
        for range in std::mem::take(&mut self.alternates.set).into_keys() {
            self.delete_alternate(range, ctx);
        }
    }

    /// Removes the alternate to a destination, if one is set.
    pub(super) fn remove_alternate(&mut self, to: Destination, ctx: &mut Context<Self>) {
        if let IpNet::V6(range) = to
            && self.alternates.set.remove(&range).is_some()
        {
            self.delete_alternate(range, ctx);
        }
    }

    fn delete_alternate(&self, range: Ipv6Net, ctx: &mut Context<Self>) {
        let kernel = self.kernel.clone();
        self.carry_out(ctx, async move { kernel.delete_alternate(range).await });
    }
}
