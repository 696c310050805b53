//! Exchanges suspicions with other nodes: datagrams that ask them to probe a peer, or to probe this node.

use super::*;
use sockets::ReceivedSuspicion;
use wire::suspicion::Suspicion;

/// Minimum interval between two bursts of probes that received suspicions cause on one tunnel. It bounds
/// the traffic that a lying node can cause.
const MIN_SUSPICION_INTERVAL: Duration = Duration::from_secs(1);
/// Delays after which the three copies of a suspicion are sent; there are three since datagrams can be lost.
const SUSPICION_DELAYS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(300),
    Duration::from_millis(700),
];
/// Delays after which the copies of a notice about a closed tunnel are sent; the first leaves time for an alternate route.
const CLOSE_NOTICE_DELAYS: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(700),
];

impl Prober {
    /// Sends the suspicion to all other neighbours, each through its tunnel, and to the suspect by whatever
    /// route there is.
    pub(super) fn spread_suspicion(&mut self, peer: Prefix, now: Uptime, ctx: &mut Context<Self>) {
        if !self.suspicion_limit.allow(peer, now) {
            return;
        }
        tracing::debug!(%peer, "peer is suspect; asking its other neighbours to probe it");
        let suspicion = Suspicion {
            peer,
            nonce: self.random.bits(),
        };
        for delay in SUSPICION_DELAYS {
            if delay.is_zero() {
                self.send_suspicion(suspicion);
            } else {
                ctx.run_later(delay, move |prober, _| prober.send_suspicion(suspicion));
            }
        }
    }

    fn send_suspicion(&self, suspicion: Suspicion) {
        let Some(sockets) = &self.sockets else { return };
        for tunnel in self
            .tunnels
            .values()
            .filter(|tunnel| tunnel.peer != suspicion.peer)
        {
            if let Some(link) = tunnel.link {
                sockets.send_suspicion(suspicion, tunnel.address, link);
            }
        }
        self.send_suspicion_to_suspect(suspicion);
    }

    fn send_suspicion_to_suspect(&self, suspicion: Suspicion) {
        let address = self.settings.network.node_address(suspicion.peer);
        if let Some(sockets) = &self.sockets {
            sockets.send_suspicion(suspicion, address, 0);
        }
    }

    /// Asks the peer to probe its tunnel to this node, whose end closed without a notice. This is sent as a suspicion of
    /// the peer, by whatever route there is.
    pub(super) fn notify_of_close(&mut self, peer: Prefix, now: Uptime, ctx: &mut Context<Self>) {
        if !self.suspicion_limit.allow(peer, now) {
            return;
        }
        let suspicion = Suspicion {
            peer,
            nonce: self.random.bits(),
        };
        for delay in CLOSE_NOTICE_DELAYS {
            ctx.run_later(delay, move |prober, _| {
                prober.send_suspicion_to_suspect(suspicion)
            });
        }
    }

    /// Probes the suspected peer. If the suspect is this node, probes the tunnel to the sender. Suspicions from
    /// outside the network are ignored.
    pub(super) fn on_suspicion(&mut self, received: ReceivedSuspicion, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let ReceivedSuspicion {
            from,
            link,
            suspicion,
        } = received;
        let network = self.settings.network;
        let is_from_neighbour = self
            .tunnels
            .values()
            .any(|tunnel| tunnel.link == Some(link) && tunnel.address == from);
        if !is_from_neighbour && !network.range().contains(&from) {
            return;
        }
        let is_about_me = suspicion.peer == self.settings.me;
        let is_concerned = |tunnel: &&mut Tunnel| match is_about_me {
            true => tunnel.address == from || network.node_address(tunnel.peer) == from,
            false => tunnel.peer == suspicion.peer,
        };
        let mut is_probe_due = false;
        for tunnel in self.tunnels.values_mut().filter(is_concerned) {
            if tunnel
                .suspected_at
                .is_none_or(|last| now.since(last) >= MIN_SUSPICION_INTERVAL)
            {
                tunnel.suspected_at = Some(now);
                tunnel.probing.on_suspicion(now);
                is_probe_due = true;
            }
        }
        if is_probe_due {
            self.tick(ctx);
        }
    }
}
