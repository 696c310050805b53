//! Reads the addresses of the host, by which other nodes may reach this one.

use super::*;

impl RegistryClient {
    /// Reads the addresses of the host's uplinks.
    pub(super) fn read_addresses(&self, ctx: &mut Context<Self>) {
        let kernel = self.kernel.clone();
        let read = async move { kernel.addresses().await };
        ctx.spawn(read.into_actor(self).map(|read, client, ctx| {
            match read {
                Ok(addresses) => client.set_uplinks(&addresses),
                Err(error) => tracing::warn!(error = %Chain(&error), "cannot read the addresses of uplinks; the endpoints stay as announced"),
            }
            client.call_if_due(ctx);
        }));
    }

    fn set_uplinks(&mut self, addresses: &[UplinkAddress]) {
        let own = addresses.iter().map(UplinkAddress::in_subnet);
        self.settings.private.set_addresses(own.collect());
        let endpoints = addresses.iter().flat_map(|found| {
            let ports = self.settings.ports.iter();
            ports.map(|(transport, port)| {
                let endpoint = Endpoint {
                    address: SocketAddr::new(found.address, *port),
                    transport: *transport,
                };
                (endpoint, found.is_main)
            })
        });
        self.uplinks = endpoints.collect();
    }
}

impl Handler<UplinkRestored> for RegistryClient {
    type Result = ();

    /// Reads the addresses, announces them and requests peers at once, as at the start.
    fn handle(&mut self, _: UplinkRestored, ctx: &mut Self::Context) {
        let now = self.clock.now();
        self.addresses_read_at = None;
        self.delays = CallDelays::default();
        self.failed_endpoints = None;
        (self.announce_at, self.request_peers_at) = (now, now);
        self.call_if_due(ctx);
    }
}
