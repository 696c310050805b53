//! Further ports of the servers on the gateway: which of them are requested, and when a refused one is requested again.

use super::{
    super::{gateway::Finder, ledger::Ledger},
    Keeper, LeaseError, Mappings,
};
use policies::{names::Transport, units::Uptime};
use std::time::Duration;
use wire::errors::Chain;

/// Interval between two requests for a further port that the gateway refuses. Many gateways keep 443 for themselves.
const RETRY_INTERVAL: Duration = Duration::from_secs(900);

impl Mappings {
    /// Takes note that a further port was not mapped. The node does without, since its first port is mapped on its own.
    pub(super) fn refuse_further(
        &mut self,
        key: (Transport, u16),
        error: &LeaseError,
        now: Uptime,
    ) {
        let (transport, port) = key;
        if self.refused_further.insert(key, now).is_none() {
            tracing::info!(%transport, port, error = %Chain(error), "the router does not map a further port of listen; peers on the internet use the others");
        }
    }
}

impl<F: Finder, L: Ledger> Keeper<F, L> {
    /// Returns the ports that should have a lease now, and whether each is a further one. A further port that the gateway has just
    /// refused is left out.
    pub(super) fn due_ports(
        &self,
        mappings: &Mappings,
        now: Uptime,
    ) -> Vec<(Transport, u16, bool)> {
        let is_due = |key: &&(Transport, u16)| {
            let refused_at = mappings.refused_further.get(key);
            refused_at.is_none_or(|at| now.since(*at) >= RETRY_INTERVAL)
        };
        let first = self.settings.wanted.iter().map(|port| (port, false));
        let further = self.settings.further.iter().filter(is_due);
        let all = first.chain(further.map(|port| (port, true)));
        all.map(|((transport, port), is_further)| (*transport, *port, is_further))
            .collect()
    }
}
