//! Requests peers soon after the last tunnel of this node was lost: the known ones may all be gone, or the certificate revoked.

use super::*;
use policies::observation::{Phase, TunnelReading};

/// Mean delay from the loss of the last tunnel to the request. Nodes that lose theirs together spread their requests.
const DELAY: Duration = Duration::from_secs(4);

impl RegistryClient {
    /// Moves the next request for peers forward if this node has lost its last tunnel.
    pub(super) fn note_isolation(&mut self, now: Uptime) {
        let is_up =
            |tunnel: &TunnelReading| matches!(tunnel.phase, Phase::Up | Phase::Draining { .. });
        let has_tunnel = self.tunnels.borrow().tunnels.values().any(is_up);
        let had_tunnel = std::mem::replace(&mut self.had_tunnel, has_tunnel);
        if had_tunnel && !has_tunnel {
            self.delays = CallDelays::default();
            let soon = now + self.random.around(DELAY);
            self.request_peers_at = self.request_peers_at.min(soon);
        }
    }
}
