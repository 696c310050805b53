//! Starts the actors that know where peers can be dialled, and which of them are on a LAN.

use super::{Guarded, Wiring, settings_of, to};
use actors::{
    deciders::policy::Policy,
    sources::{
        lan_discovery::{LanDiscovery, LanDiscoveryDeps},
        peer_cache::{PeerCache, PeerCacheDeps},
    },
};

impl Wiring<'_> {
    pub(super) fn start_peer_cache(&self, policy: &Guarded<Policy>) -> Guarded<PeerCache> {
        let deps = PeerCacheDeps {
            settings: settings_of::peer_cache(self.environment),
            store: self.store.clone(),
            readers: vec![to(policy), to(&self.telemetry)],
        };
        self.guard("peer_cache", deps, PeerCache::new)
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
