//! Configures the host's kernel for babeld: exit routes and IPv4 payload. Flushes the routes of an exited babeld, and retracts a lost
//! default route of the host.

use super::*;

impl Babeld {
    /// Configures IPv4 payload and the exit route as the network document requires.
    pub(super) fn configure_host(&self, ctx: &mut Context<Self>) {
        let (kernel, config) = (self.kernel.clone(), &self.settings.config);
        let (ipv4, own, network) = (config.ipv4, config.own, config.network);
        let exit = if config.gateways.is_empty() {
            Exit::None
        } else if config.announces_default() {
            Exit::Own(self.settings.openvpn_uid)
        } else {
            Exit::Others(self.settings.openvpn_uid)
        };
        let results = async move {
            [
                kernel.apply_ipv4(ipv4, own).await,
                kernel.apply_exit_rules(network, exit).await,
            ]
        };
        ctx.spawn(results.into_actor(self).map(|results, _, _| {
            for error in results.into_iter().filter_map(Result::err) {
                tracing::warn!(error = %Chain(&error), "cannot configure the host for IPv4 payload or the exit route");
            }
        }));
    }

    /// Removes the routes that an exited babeld left in the kernel, and then starts babeld again if it may run.
    pub(super) fn flush_routes(&mut self, ctx: &mut Context<Self>) {
        self.is_flushing = true;
        let kernel = self.kernel.clone();
        let result = async move { kernel.flush_babel_routes().await };
        ctx.spawn(result.into_actor(self).map(|result, babeld, _| {
            if let Err(error) = result {
                tracing::warn!(error = %Chain(&error), "cannot remove the routes of the exited babeld");
            }
            babeld.is_flushing = false;
            babeld.handle_event(Event::Tick);
        }));
    }

    /// Retracts our default route from the neighbours once the host has lost its own.
    ///
    /// babeld 1.12.1 sends the retraction under the name of another route (`check_xroutes` in its xroute.c), so that neighbours
    /// would keep our default route for minutes.
    pub(super) fn retract_lost_default(&mut self, announces_default: bool) {
        if self.announces_default && !announces_default && self.settings.config.announces_default()
        {
            tracing::info!("the host has lost its default route; it is retracted from the network");
            let (network, table) = (self.settings.config.network.range(), self.table.borrow());
            let up_tunnels = table
                .tunnels
                .values()
                .filter(|tunnel| tunnel.phase == Phase::Up);
            up_tunnels.for_each(|tunnel| {
                self.links
                    .order(LinkOrder::RetractDefault(tunnel.slot, network))
            });
        }
        self.announces_default = announces_default;
    }
}
