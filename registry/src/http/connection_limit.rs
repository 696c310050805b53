//! Limits the number of connections from each network, whatever they carry.

use crate::service::limits::SourceNetwork;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The number of connections from each network, and their limit.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimit {
    taken: Arc<Mutex<BTreeMap<SourceNetwork, usize>>>,
    max_connections: usize,
}

/// Permits one connection. It must be dropped when the connection closes.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    site: SourceNetwork,
    limit: ConnectionLimit,
}

impl ConnectionLimit {
    /// Creates a limit of `max_connections` connections from each network.
    pub(crate) fn new(max_connections: usize) -> Self {
        Self {
            taken: Arc::default(),
            max_connections,
        }
    }

    /// Returns a permit for a connection from `site`; `None` if that network has reached its limit.
    pub(crate) fn take(&self, site: SourceNetwork) -> Option<ConnectionPermit> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(&site).copied().unwrap_or(0);
        if count >= self.max_connections {
            return None;
        }
        taken.insert(site, count + 1);
        Some(ConnectionPermit {
            site,
            limit: self.clone(),
        })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut taken = self
            .limit
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.site) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                taken.remove(&self.site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    /// Opens connections from `addresses`, none of which closes, and compares the number of permits.
    #[track_caller]
    fn check(max_connections: usize, addresses: &[&str], expected_permits: usize) {
        let limit = ConnectionLimit::new(max_connections);
        let permits: Vec<ConnectionPermit> = addresses
            .iter()
            .filter_map(|address| {
                limit.take(SourceNetwork::from(address.parse::<IpAddr>().unwrap()))
            })
            .collect();
        assert_eq!(permits.len(), expected_permits);
        drop(permits);
        assert!(
            limit.taken.lock().unwrap().is_empty(),
            "a dropped permit still counts"
        );
    }

    #[test]
    fn each_network_has_as_many_connections_as_the_limit_allows() {
        check(2, &["45.67.0.1"; 5], 2);
        check(2, &["45.67.0.1", "45.67.0.1", "45.67.0.1", "45.67.0.2"], 3);
        check(
            2,
            &[
                "2001:db8::1",
                "2001:db8::2",
                "2001:db8::3",
                "2001:db8:0:1::1",
            ],
            3,
        );
        check(0, &["45.67.0.1"], 0);
    }
}
