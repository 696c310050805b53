//! Starts the actors that know where nodes can be dialled: peers, those on LANs, and this node itself.

use super::{Guarded, Wiring, settings_of, to};
use actors::{
    deciders::policy::Policy,
    sources::{
        endpoint_checks::{EndpointCheckDeps, EndpointChecker},
        hole_punching::{HolePunching, HolePunchingDeps},
        lan_discovery::{LanDiscovery, LanDiscoveryDeps},
        peer_cache::{PeerCache, PeerCacheDeps},
        pinholes::{PinholeDeps, Pinholes, keeper::PinholeKeeper},
        registry_client::RegistryClient,
    },
};
use std::rc::Rc;

impl Wiring<'_> {
    pub(super) fn start_peer_cache(&self, policy: &Guarded<Policy>) -> Guarded<PeerCache> {
        let deps = PeerCacheDeps {
            settings: settings_of::peer_cache(self.environment),
            store: self.store.clone(),
            readers: vec![to(policy), to(&self.telemetry)],
        };
        self.guard("peer_cache", deps, PeerCache::new)
    }

    /// Starts the actor that lets other nodes try this node's endpoints.
    pub(super) fn start_endpoint_checks(&self, registry_client: &Guarded<RegistryClient>) {
        let deps = EndpointCheckDeps {
            store: self.store.clone(),
            peers: self.environment.peers.clone(),
            readers: vec![to(registry_client), to(&self.telemetry)],
        };
        self.guard("endpoint_checks", deps, EndpointChecker::new);
    }

    /// Starts the actor that keeps the router's firewall open for IPv6, unless the configuration turns it off.
    pub(super) fn start_pinholes(&self) -> Option<Rc<PinholeKeeper>> {
        let keeper = settings_of::pinhole_keeper(self.environment)?;
        let deps = PinholeDeps {
            keeper: keeper.clone(),
            store: self.store.clone(),
            readers: vec![to(&self.telemetry)],
        };
        self.guard("pinholes", deps, Pinholes::new);
        Some(keeper)
    }

    /// Starts the actor that opens paths to nodes behind NATs.
    pub(super) fn start_hole_punching(&self) -> Guarded<HolePunching> {
        let deps = HolePunchingDeps {
            settings: settings_of::hole_punching(self.environment),
            store: self.store.clone(),
            peers: self.environment.peers.clone(),
            readers: vec![to(&self.telemetry)],
        };
        self.guard("hole_punching", deps, HolePunching::new)
    }

    /// Starts the search for other nodes on LANs, unless the configuration turns it off.
    pub(super) fn start_lan_discovery(&self, peer_cache: &Guarded<PeerCache>) {
        let Some(settings) = settings_of::lan_discovery(self.environment) else {
            return;
        };
        let deps = LanDiscoveryDeps {
            settings,
            store: self.store.clone(),
            kernel: self.environment.kernel.clone(),
            readers: vec![to(peer_cache), to(&self.telemetry)],
        };
        self.guard("lan_discovery", deps, LanDiscovery::new);
    }
}
