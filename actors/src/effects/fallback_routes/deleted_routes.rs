//! Restores IPv6 routes of babeld that another program deleted: babeld does not notice that, and would only add them again when they
//! change. Its IPv4 routes are not restored, since its table does not say which of them are installed.

use super::{Context, Destination, FallbackRoutes};
use crate::messages::{HostRepaired, RoutesRead};
use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use ipnet::{IpNet, Ipv6Net};
use os::kernel::{KernelError, NextHopRoute, Repair, RepairKind};
use policies::{alternates::NextHop, observation::INFINITY, units::Uptime};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use wire::{errors::Chain, overlay::Network};

/// Time by which a reading must be later than a change before babeld's table is believed: it was read after babeld had changed the route.
const MISSING_TIME: Duration = Duration::from_millis(500);

/// The routes that are missing, and those that were restored.
#[derive(Default)]
pub(super) struct DeletedRoutes {
    /// The routes whose deletion the kernel did not report, and when that was noticed; none but those that babeld lists as installed.
    unreported: BTreeMap<Destination, Uptime>,
    /// The destinations to which a route is being restored.
    in_progress: BTreeSet<Destination>,
    /// The restored routes, until a later reading shows whether babeld still has them.
    unverified: BTreeMap<Destination, (Uptime, NextHopRoute)>,
    /// The destinations whose last restoration failed, so that the failure is logged once.
    failed: BTreeSet<Destination>,
}

impl DeletedRoutes {
    /// Forgets what is not among babeld's installed routes any more. Returns the restored routes that it does not have, which must be deleted.
    fn verify(&mut self, at: Uptime, installed: &[NextHopRoute]) -> Vec<NextHopRoute> {
        let destinations: BTreeSet<Destination> =
            installed.iter().map(|route| route.to.into()).collect();
        self.unreported.retain(|to, _| destinations.contains(to));
        self.failed.retain(|to| destinations.contains(to));
        let is_verifiable = |_: &Destination, restored: &mut (Uptime, NextHopRoute)| {
            at.since(restored.0) >= MISSING_TIME
        };
        let verified = self.unverified.extract_if(.., is_verifiable);
        verified
            .map(|(_, (_, route))| route)
            .filter(|route| !installed.contains(route))
            .collect()
    }

    /// Forgets a destination to which there is a route again.
    pub(super) fn forget(&mut self, to: Destination) {
        self.unreported.remove(&to);
    }
}

impl FallbackRoutes {
    /// Restores the routes that babeld's table lists as installed, and that have been missing for a while. Deletes restored routes
    /// that babeld does not have, since it would never delete them.
    pub(super) fn restore_deleted(&mut self, read: &RoutesRead, ctx: &mut Context<Self>) {
        let deleted = &self.deleted;
        if self.without_route.is_empty()
            && deleted.unreported.is_empty()
            && deleted.unverified.is_empty()
        {
            return;
        }
        let installed = installed(read, self.network);
        for route in self.deleted.verify(read.at, &installed) {
            let kernel = self.kernel.clone();
            self.carry_out(ctx, async move { kernel.delete_restored(route).await });
        }
        let missing = installed
            .into_iter()
            .filter(|route| self.is_missing(route.to.into(), read.at));
        for route in missing.collect::<Vec<_>>() {
            if !self.deleted.in_progress.insert(route.to.into()) {
                continue;
            }
            let kernel = self.kernel.clone();
            let restored = async move { kernel.restore_route(route).await };
            ctx.spawn(
                restored
                    .into_actor(self)
                    .map(move |result, fallback, _| fallback.note_restored(route, result)),
            );
        }
    }

    /// Returns whether the route to this destination had been missing for long enough at that time.
    fn is_missing(&self, to: Destination, at: Uptime) -> bool {
        let unreported = self.deleted.unreported.get(&to);
        let since = self.without_route.get(&to).or(unreported);
        let is_old = since.is_some_and(|since| at.since(*since) >= MISSING_TIME);
        is_old && !self.alternates.is_blocked(to)
    }

    fn note_restored(&mut self, route: NextHopRoute, result: Result<(), KernelError>) {
        let to = IpNet::from(route.to);
        self.deleted.in_progress.remove(&to);
        let at = self.clock.now();
        if let Err(error) = result {
            if self.deleted.failed.insert(to) {
                tracing::warn!(%to, error = %Chain(&error), "a route of babeld that another program deleted was not restored");
            }
            return;
        }
        self.without_route.remove(&to);
        self.deleted.forget(to);
        self.deleted.failed.remove(&to);
        self.deleted.unverified.insert(to, (at, route));
        let repairs = vec![Repair {
            kind: RepairKind::Route,
            object: format!("babeld's route to {to}"),
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
    fn note_missing(&mut self, present: &BTreeSet<Destination>) {
        let now = self.clock.now();
        let network = self.network;
        let installed = self.alternates.installed();
        let installed = installed.map(|node| IpNet::from(network.node_range(node)));
        for to in installed.filter(|to| !present.contains(to)) {
            self.deleted.unreported.entry(to).or_insert(now);
        }
    }
}

/// Returns the routes that babeld has installed: to nodes, and the default routes to exit gateways.
fn installed(read: &RoutesRead, network: Network) -> Vec<NextHopRoute> {
    let routes = read.table.iter().flat_map(|table| &table.routes);
    let to_nodes = routes
        .filter(|route| route.installed && route.metric != INFINITY)
        .map(|route| NextHopRoute {
            to: network.node_range(route.node),
            from: None,
            next_hop: NextHop {
                slot: route.slot,
                via: route.via,
            },
        });
    let exits = read.exit_routes.routes.iter();
    let defaults = exits
        .filter(|route| route.installed && route.metric != INFINITY)
        .map(|route| NextHopRoute {
            to: Ipv6Net::default(),
            from: Some(network.range()),
            next_hop: NextHop {
                slot: route.slot,
                via: route.via,
            },
        });
    to_nodes.chain(defaults).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::names::{Prefix, Slot};

    fn route(via: u32) -> NextHopRoute {
        NextHopRoute {
            to: "2001:db8:42:8::/64".parse().unwrap(),
            from: None,
            next_hop: NextHop {
                slot: Slot::Dialling(1),
                via: Prefix::new(via, 16).unwrap(),
            },
        }
    }

    /// Restores a route at second 10, and returns what a reading of that time and with these routes deletes.
    fn deleted_at(milliseconds: u64, installed: &[NextHopRoute]) -> Vec<NextHopRoute> {
        let mut deleted = DeletedRoutes::default();
        let restored_at = Uptime::from_secs(10);
        let to = route(8).to.into();
        deleted.unverified.insert(to, (restored_at, route(8)));
        deleted.verify(restored_at + Duration::from_millis(milliseconds), installed)
    }

    #[test]
    fn a_restored_route_that_babeld_has_retracted_or_changed_is_deleted() {
        assert_eq!(deleted_at(2000, &[]), [route(8)]);
        assert_eq!(deleted_at(2000, &[route(9)]), [route(8)]);
        assert_eq!(deleted_at(2000, &[route(8)]), []);
        assert_eq!(deleted_at(100, &[]), [], "the reading may be older");
    }

    #[test]
    fn a_missing_route_is_forgotten_once_babeld_does_not_have_it() {
        let (mut deleted, to) = (DeletedRoutes::default(), route(8).to.into());
        deleted.unreported.insert(to, Uptime::from_secs(1));
        deleted.verify(Uptime::from_secs(3), &[route(8)]);
        assert!(deleted.unreported.contains_key(&to));
        deleted.verify(Uptime::from_secs(5), &[]);
        assert!(deleted.unreported.is_empty());
    }
}
