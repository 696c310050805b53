//! Derives babeld's configuration from the network document and from what the host allows.

use super::*;

impl Babeld {
    /// Returns the configuration that the network document and the host require.
    pub(super) fn wanted_config(&self) -> BabelConfig {
        let transit_cost = match self.is_transit_blocked.get() {
            true => INFINITY,
            false => self.configured_transit_cost,
        };
        let config = BabelConfig {
            transit_cost,
            ..self.settings.config.clone()
        };
        let documents = self.documents.load();
        let Some(network) = documents.network() else {
            return config;
        };
        let parameters = network.parameters();
        let has_lan = !config.interfaces.is_empty();
        BabelConfig {
            hello_interval: parameters.hello_interval,
            update_interval: parameters.update_interval,
            // Packets carry a MAC (RFC 8967) only on a LAN, see docs/decisions/0001-no-mac-on-tunnels.md.
            key: if has_lan {
                MacKey::from_hex(&network.babel_key)
            } else {
                None
            },
            lenient: has_lan && network.babel_lenient,
            ipv4: network.payload4().filter(|_| !self.has_ipv4_overlap.get()),
            prefix_lengths: network.prefix_lengths.iter().copied().collect(),
            gateways: network.gateways.iter().copied().collect(),
            ..config
        }
    }
}
