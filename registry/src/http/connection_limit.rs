//! Limits the number of connections of each network, whatever they carry.

use crate::service::limits::SourceNetwork;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The number of connections of each site.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimit {
    taken: Arc<Mutex<BTreeMap<SourceNetwork, usize>>>,
    most: usize,
}

/// One connection; its end is that of the connection.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    site: SourceNetwork,
    limit: ConnectionLimit,
}

impl ConnectionLimit {
    /// For at most `most` connections from each site.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            taken: Arc::default(),
            most,
        }
    }

    /// Returns a permit for a connection from `site`; `None` if the site has reached its limit.
    pub(crate) fn take(&self, site: SourceNetwork) -> Option<ConnectionPermit> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(&site).copied().unwrap_or(0);
        if count >= self.most {
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

    /// Lets connections come from `addresses` and stay; how many were let in.
    #[track_caller]
    fn check(most: usize, addresses: &[&str], let_in: usize) {
        let limit = ConnectionLimit::new(most);
        let held: Vec<ConnectionPermit> = addresses
            .iter()
            .filter_map(|address| {
                limit.take(SourceNetwork::from(address.parse::<IpAddr>().unwrap()))
            })
            .collect();
        assert_eq!(held.len(), let_in);
        drop(held);
        assert!(
            limit.taken.lock().unwrap().is_empty(),
            "a permit was not given back"
        );
    }

    #[test]
    fn a_site_has_its_share_and_takes_nobody_else_s() {
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
