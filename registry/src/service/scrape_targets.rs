//! Lists the nodes that Prometheus can scrape.

use super::{RegistryService, error::ServiceError};
use policies::names::Prefix;
use std::{collections::BTreeMap, net::Ipv6Addr};
use wire::overlay::Network;

/// A node that has a live certificate, whether it runs or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeTarget {
    /// The address of the node in the network.
    pub address: Ipv6Addr,
    /// The prefix of the node.
    pub prefix: Prefix,
    /// The name of the node, if it has one.
    pub name: Option<String>,
}

impl RegistryService {
    /// Returns the network of the registry.
    pub fn network_range(&self) -> Network {
        self.authorities.authority.network()
    }

    /// Returns all nodes with a live certificate, sorted by prefix.
    ///
    /// # Errors
    /// The database failed.
    pub fn scrape_targets(&self) -> Result<Vec<ScrapeTarget>, ServiceError> {
        let network = self.network_range();
        let live = self.members()?.into_iter();
        let live = live.filter(|node| node.member.revoked_at.is_none());
        // A node that has just renewed its certificate has two.
        let names: BTreeMap<_, _> = live.map(|node| (node.member.prefix, node.name)).collect();
        let target = |(prefix, name)| ScrapeTarget {
            address: network.node_address(prefix),
            prefix,
            name,
        };
        Ok(names.into_iter().map(target).collect())
    }
}
