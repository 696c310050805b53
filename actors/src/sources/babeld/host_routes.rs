//! Adapts the host to babeld: exit routes, IPv4 payload, and the routes of a dead babeld.

use super::*;

impl Babeld {
    /// Makes the host carry IPv4, and packets out of the network, as the network wants it.
    pub(super) fn carry(&self, ctx: &mut Context<Self>) {
        let (kernel, config) = (self.kernel.clone(), &self.settings.config);
        let (ipv4, own, network) = (config.ipv4, config.own, config.network);
        let exit = if config.gateways.is_empty() {
            Exit::None
        } else if config.announces_default() {
            Exit::Own(self.settings.openvpn_uid)
        } else {
            Exit::Others(self.settings.openvpn_uid)
        };
        let carried = async move {
            [
                kernel.carry_ipv4(ipv4, own).await,
                kernel.carry_default(network, exit).await,
            ]
        };
        ctx.spawn(carried.into_actor(self).map(|carried, _, _| {
            for error in carried.into_iter().filter_map(Result::err) {
                tracing::warn!(error = %Chain(&error), "the host does not carry what the network wants");
            }
        }));
    }

    pub(super) fn flush(&self, ctx: &mut Context<Self>) {
        let kernel = self.kernel.clone();
        let flushed = async move { kernel.flush_babel_routes().await };
        ctx.spawn(flushed.into_actor(self).map(|flushed, _, _| {
            if let Err(error) = flushed {
                tracing::warn!(error = %Chain(&error), "babeld's routes not flushed");
            }
        }));
    }
}
