//! Starts the actors that keep the node's part of the host as it should be.

use super::{Guarded, Wiring, to};
use actors::{
    effects::{
        babeld_flusher::{BabeldFlusher, BabeldFlusherDeps},
        fallback_routes::{FallbackRoutes, FallbackRoutesDeps},
        tunnels::Tunnels,
    },
    sources::{
        host_reconciler::{HostReconciler, HostReconcilerDeps},
        registry_client::RegistryClient,
    },
};

/// Those actors to which babeld's actor sends its readings.
pub(super) struct HostActors {
    pub(super) fallback_routes: Guarded<FallbackRoutes>,
    pub(super) reconciler: Guarded<HostReconciler>,
}

impl Wiring<'_> {
    pub(super) fn start_host_actors(
        &self,
        tunnels: &Guarded<Tunnels>,
        registry_client: &Guarded<RegistryClient>,
    ) -> HostActors {
        let deps = HostReconcilerDeps {
            store: self.store.clone(),
            kernel: self.environment.kernel.clone(),
            network: self.environment.identity.network,
            me: self.environment.identity.me,
            transit_cost: self.environment.settings.transit_cost(),
            babeld_uid: self.environment.host.babeld_rights.uid,
            repaired_to: to(&self.telemetry),
            compared_to: to(&self.telemetry),
            links: self.links.clone(),
            ordered_to: to(tunnels),
            uplink_to: vec![to(tunnels), to(registry_client)],
        };
        HostActors {
            fallback_routes: self.start_fallback_routes(&self.start_babeld_flusher()),
            reconciler: self.guard("host_reconciler", deps, HostReconciler::new),
        }
    }

    fn start_fallback_routes(&self, flusher: &Guarded<BabeldFlusher>) -> Guarded<FallbackRoutes> {
        let deps = FallbackRoutesDeps {
            network: self.environment.identity.network,
            store: self.store.clone(),
            kernel: self.environment.kernel.clone(),
            socket: self.environment.babel_socket.clone(),
            lost: to(flusher),
            gained: to(flusher),
            repaired: to(&self.telemetry),
        };
        self.guard("fallback_routes", deps, FallbackRoutes::new)
    }

    fn start_babeld_flusher(&self) -> Guarded<BabeldFlusher> {
        let deps = BabeldFlusherDeps {
            me: self.environment.identity.me,
            network: self.environment.identity.network,
            store: self.store.clone(),
        };
        self.guard("babeld_flusher", deps, BabeldFlusher::new)
    }
}
