//! Builds the part of the status about ports that the router maps, or for which its firewall is open.

use super::View;
use crate::messages::Lease;
use wire::control::LeaseEntry;

impl View<'_> {
    pub(super) fn leases(&self) -> Vec<LeaseEntry> {
        let leases = self.node.leases.leases.iter();
        leases.map(|lease| self.lease(lease)).collect()
    }

    pub(super) fn pinholes(&self) -> Vec<LeaseEntry> {
        let pinholes = self.node.pinholes.pinholes.iter();
        pinholes.map(|pinhole| self.lease(pinhole)).collect()
    }

    pub(super) fn pinholes_missing(&self) -> Option<String> {
        let missing = self.node.pinholes.missing.as_ref();
        missing.map(|missing| missing.text.clone())
    }

    fn lease(&self, lease: &Lease) -> LeaseEntry {
        LeaseEntry {
            transport: lease.transport.to_string(),
            internal_port: lease.internal_port,
            external: lease.external,
            expires_at: self.wall_time(lease.until),
        }
    }
}
