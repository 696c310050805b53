//! Restores routes of babeld that another program deleted: babeld does not notice that, and would only add them again when they change.

use super::{Context, Destination, FallbackRoutes};
use crate::messages::{HostRepaired, RoutesRead};
use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use os::kernel::{NextHopRoute, Repair, RepairKind};
use policies::{alternates::NextHop, observation::INFINITY};
use std::time::Duration;
use wire::errors::Chain;

/// Time for which a route must have been missing before babeld's table is believed: it was read after babeld had changed the route.
const MISSING_TIME: Duration = Duration::from_millis(500);

impl FallbackRoutes {
    /// Restores the routes that babeld's table lists as installed, and that have been missing for a while.
    pub(super) fn restore_deleted(&mut self, read: &RoutesRead, ctx: &mut Context<Self>) {
        if self.without_route.is_empty() {
            return;
        }
        for route in self.deleted(read) {
            let kernel = self.kernel.clone();
            let to = route.to;
            let restored = async move { kernel.restore_route(route).await };
            ctx.spawn(restored.into_actor(self).map(move |result, fallback, _| {
                match result {
                    Ok(()) => fallback.report_restored(to),
                    Err(error) => tracing::warn!(%to, error = %Chain(&error), "a route of babeld that another program deleted was not restored"),
                }
            }));
        }
    }

    /// Returns the routes that another program has deleted.
    fn deleted(&self, read: &RoutesRead) -> Vec<NextHopRoute> {
        let is_missing = |to: &Destination| {
            let since = self.without_route.get(to);
            let is_old = since.is_some_and(|since| read.at.since(*since) >= MISSING_TIME);
            is_old && !self.alternates.is_blocked(*to)
        };
        let mut found = Vec::new();
        let table = read.table.iter().flat_map(|table| &table.routes);
        for route in table.filter(|route| route.installed && route.metric != INFINITY) {
            let next_hop = NextHop {
                slot: route.slot,
                via: route.via,
            };
            // For IPv4 babeld's readings name no next hop, and another one than babeld's would stay for ever.
            let to = self.network.node_range(route.node).into();
            let missing = Some(to).filter(is_missing);
            found.extend(missing.map(|to| NextHopRoute {
                to,
                from: None,
                next_hop,
            }));
        }
        let default: Destination = ipnet::Ipv6Net::default().into();
        let exits = read.exit_routes.routes.iter();
        let exit = exits.filter(|route| route.installed && route.metric != INFINITY);
        found.extend(
            exit.filter(|_| is_missing(&default))
                .map(|route| NextHopRoute {
                    to: default,
                    from: Some(self.network.range()),
                    next_hop: NextHop {
                        slot: route.slot,
                        via: route.via,
                    },
                }),
        );
        found
    }

    fn report_restored(&mut self, to: Destination) {
        self.without_route.remove(&to);
        let (at, object) = (self.clock.now(), format!("babeld's route to {to}"));
        let repairs = vec![Repair {
            kind: RepairKind::Route,
            object,
        }];
        self.log.log(at, &repairs);
        self.repaired.do_send(HostRepaired { at, repairs });
    }

    /// Looks for routes whose deletion was not reported, and copies those that have no copy.
    pub(super) fn compare_tables(&mut self, ctx: &mut Context<Self>) {
        let kernel = self.kernel.clone();
        let compared = async move { kernel.copy_missing_routes().await };
        ctx.spawn(
            compared
                .into_actor(self)
                .map(|result, fallback, _| match result {
                    Ok(present) => fallback.note_missing(&present),
                    Err(error) => {
                        tracing::debug!(error = %Chain(&error), "babeld's tables not compared")
                    }
                }),
        );
    }

    /// Notes routes that babeld has installed according to its last table, and that are not among these.
    fn note_missing(&mut self, present: &std::collections::BTreeSet<Destination>) {
        let now = self.clock.now();
        let network = self.network;
        let installed = self.alternates.installed();
        let missing: Vec<Destination> = installed
            .map(|node| network.node_range(node).into())
            .filter(|to| !present.contains(to))
            .collect();
        for to in missing {
            self.without_route.entry(to).or_insert(now);
        }
    }
}
