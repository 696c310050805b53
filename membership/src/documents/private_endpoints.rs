//! Decides which endpoints with private addresses are announced, believed and dialled.
//!
//! A private address means another host in each LAN. So such an endpoint is dialled only where it probably means the peer,
//! or where an operator has said that it always does.

use super::DocumentStore;
use arc_swap::ArcSwap;
use policies::names::Endpoint;
use std::{fmt, net::IpAddr, sync::Arc};
use wire::endpoints::{EndpointError, PrivateEndpointUse, class_of};

/// An address of this host with the length of its subnet's prefix, in bits.
pub type HostAddress = (IpAddr, u8);

/// The reason why a private endpoint is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PrivateEndpointError {
    /// Neither this node's configuration nor the network allows private endpoints.
    NotAllowed,
    /// The endpoint probably means another host than the peer.
    Elsewhere,
    /// The endpoint has an address of this host.
    OwnAddress,
    /// The endpoint is in the network's own IPv4 range, so that a tunnel to it would be carried by tunnels.
    Overlay,
}

impl fmt::Display for PrivateEndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => {
                "private-endpoints is false here, and the network does not allow private endpoints"
            }
            Self::Elsewhere => {
                "no address of this node is in its subnet, and the registry is not reached at a private address"
            }
            Self::OwnAddress => "this node has that address itself",
            Self::Overlay => "its address is in the network's own IPv4 range",
        })
    }
}

/// What is known of the network around this host.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    addresses: Vec<HostAddress>,
    is_registry_private: bool,
}

/// The rules for private endpoints. All clones share one setting and one view of the surroundings.
#[derive(Clone, Debug, Default)]
pub struct PrivateEndpoints {
    configured: Arc<ArcSwap<PrivateEndpointUse>>,
    surroundings: Arc<ArcSwap<Surroundings>>,
    documents: DocumentStore,
}

/// Returns whether an endpoint has a private address.
pub fn is_private(endpoint: Endpoint) -> bool {
    class_of(endpoint.address.ip()) == Some(EndpointError::Private)
}

/// Returns whether both addresses are in the subnet that the first `length` bits of `own` name.
pub fn is_in_subnet((own, length): HostAddress, other: IpAddr) -> bool {
    match (own, other) {
        (IpAddr::V4(own), IpAddr::V4(other)) => {
            let rest = 32u32.saturating_sub(length.into());
            (own.to_bits() ^ other.to_bits())
                .checked_shr(rest)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(own), IpAddr::V6(other)) => {
            let rest = 128u32.saturating_sub(length.into());
            (own.to_bits() ^ other.to_bits())
                .checked_shr(rest)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

impl PrivateEndpoints {
    /// Combines the setting in this node's configuration with that in the network document.
    pub fn new(configured: PrivateEndpointUse, documents: DocumentStore) -> Self {
        Self {
            configured: Arc::new(ArcSwap::from_pointee(configured)),
            surroundings: Arc::default(),
            documents,
        }
    }

    /// Replaces the setting in this node's configuration, for all clones.
    pub fn set_configured(&self, configured: PrivateEndpointUse) {
        self.configured.store(Arc::new(configured));
    }

    /// Replaces the addresses of this host, for all clones.
    pub fn set_addresses(&self, addresses: Vec<HostAddress>) {
        self.surroundings.rcu(|old| Surroundings {
            addresses: addresses.clone(),
            ..Surroundings::clone(old)
        });
    }

    /// Sets the address at which the registry was reached, for all clones.
    pub fn set_registry_address(&self, address: IpAddr) {
        let is_registry_private = class_of(address) == Some(EndpointError::Private);
        if self.surroundings.load().is_registry_private != is_registry_private {
            self.surroundings.rcu(|old| Surroundings {
                is_registry_private,
                ..Surroundings::clone(old)
            });
        }
    }

    /// Returns whether an operator has said that private endpoints mean the same host everywhere.
    pub fn are_all_allowed(&self) -> bool {
        **self.configured.load() == PrivateEndpointUse::All
            || self
                .documents
                .load()
                .network()
                .is_some_and(|network| network.private_endpoints)
    }

    /// Returns whether this node announces its private endpoints.
    pub fn are_announced(&self) -> bool {
        **self.configured.load() == PrivateEndpointUse::Auto || self.are_all_allowed()
    }

    /// Returns in which order the endpoints of a peer are dialled: in a subnet of this host 0, public 1, other private ones 2.
    pub fn rank(&self, endpoint: Endpoint) -> u8 {
        let surroundings = self.surroundings.load();
        let address = endpoint.address.ip();
        let mut own = surroundings.addresses.iter();
        match is_private(endpoint) {
            true if own.any(|own| is_in_subnet(*own, address)) => 0,
            true => 2,
            false => 1,
        }
    }

    /// Returns whether packets to this address may enter the network itself: it is in the network's IPv4 range. An
    /// address in a subnet of this host is not: a node that has such a subnet has no IPv4 in the network.
    pub fn is_in_overlay(&self, address: IpAddr) -> bool {
        let IpAddr::V4(ipv4) = address else {
            return false;
        };
        let documents = self.documents.load();
        let payload = documents.network().and_then(|network| network.payload4());
        let surroundings = self.surroundings.load();
        let mut own = surroundings.addresses.iter();
        payload.is_some_and(|payload| payload.range().contains(&ipv4))
            && !own.any(|own| is_in_subnet(*own, address))
    }

    /// Returns whether a peer's endpoint may be dialled. A public address may, unless it is the network's own.
    ///
    /// # Errors
    /// The address is private, and probably not that of the peer, or it is in the network's IPv4 range.
    pub fn check(&self, endpoint: Endpoint) -> Result<(), PrivateEndpointError> {
        if self.is_in_overlay(endpoint.address.ip()) {
            return Err(PrivateEndpointError::Overlay);
        }
        if !is_private(endpoint) || self.are_all_allowed() {
            return Ok(());
        }
        if **self.configured.load() == PrivateEndpointUse::NetworkOnly {
            return Err(PrivateEndpointError::NotAllowed);
        }
        let surroundings = self.surroundings.load();
        let address = endpoint.address.ip();
        let mut own = surroundings.addresses.iter();
        if own.clone().any(|(own, _)| *own == address) {
            return Err(PrivateEndpointError::OwnAddress);
        }
        if surroundings.is_registry_private || own.any(|own| is_in_subnet(*own, address)) {
            Ok(())
        } else {
            Err(PrivateEndpointError::Elsewhere)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PrivateEndpointError::{Elsewhere, NotAllowed, OwnAddress};

    /// A node with these addresses: 192.168.1.5/24, 10.1.2.3/32 and fd00:1::5/64.
    fn rules(configured: PrivateEndpointUse, registry: &str) -> PrivateEndpoints {
        let rules = PrivateEndpoints::new(configured, DocumentStore::default());
        rules.set_addresses(vec![
            ("192.168.1.5".parse().unwrap(), 24),
            ("10.1.2.3".parse().unwrap(), 32),
            ("fd00:1::5".parse().unwrap(), 64),
        ]);
        rules.set_registry_address(registry.parse().unwrap());
        rules
    }

    #[track_caller]
    fn check(rules: &PrivateEndpoints, endpoint: &str, expected: Result<(), PrivateEndpointError>) {
        assert_eq!(
            rules.check(endpoint.parse().unwrap()),
            expected,
            "{endpoint}"
        );
    }

    #[test]
    fn a_private_endpoint_is_dialled_in_a_subnet_of_this_node() {
        let rules = rules(PrivateEndpointUse::Auto, "45.67.0.1");
        for (endpoint, expected) in [
            ("udp:45.67.0.1:1194", Ok(())),
            ("udp:192.168.1.77:1194", Ok(())),
            ("tcp:[fd00:1::77]:1194", Ok(())),
            ("udp:192.168.2.77:1194", Err(Elsewhere)),
            ("udp:10.1.2.4:1194", Err(Elsewhere)),
            ("udp:100.64.0.1:1194", Err(Elsewhere)),
            ("tcp:[fd00:2::77]:1194", Err(Elsewhere)),
            ("udp:192.168.1.5:1194", Err(OwnAddress)),
            ("udp:10.1.2.3:1194", Err(OwnAddress)),
        ] {
            check(&rules, endpoint, expected);
        }
    }

    #[test]
    fn any_private_endpoint_is_dialled_where_the_registry_is_reached_at_a_private_address() {
        let rules = rules(PrivateEndpointUse::Auto, "10.9.9.9");
        check(&rules, "udp:172.16.0.1:1194", Ok(()));
        check(&rules, "udp:192.168.1.5:1194", Err(OwnAddress));
        // The registry may move, and a registry on this host says nothing.
        rules.set_registry_address("127.0.0.1".parse().unwrap());
        check(&rules, "udp:172.16.0.1:1194", Err(Elsewhere));
    }

    #[test]
    fn the_configuration_allows_all_private_endpoints_or_none() {
        let all = rules(PrivateEndpointUse::All, "45.67.0.1");
        check(&all, "udp:172.16.0.1:1194", Ok(()));
        check(&all, "udp:192.168.1.5:1194", Ok(()));
        let none = rules(PrivateEndpointUse::NetworkOnly, "10.9.9.9");
        check(&none, "udp:192.168.1.77:1194", Err(NotAllowed));
        check(&none, "udp:45.67.0.1:1194", Ok(()));
        none.set_configured(PrivateEndpointUse::Auto);
        check(&none, "udp:192.168.1.77:1194", Ok(()));
    }

    #[test]
    fn endpoints_in_the_own_subnet_are_dialled_first_and_other_private_ones_last() {
        let rules = rules(PrivateEndpointUse::Auto, "10.9.9.9");
        let ranked = [
            ("udp:192.168.1.77:1194", 0),
            ("udp:45.67.0.1:1194", 1),
            ("udp:172.17.0.1:1194", 2),
        ];
        for (endpoint, rank) in ranked {
            assert_eq!(rules.rank(endpoint.parse().unwrap()), rank, "{endpoint}");
        }
    }

    #[test]
    fn private_endpoints_are_announced_unless_the_configuration_says_otherwise() {
        assert!(rules(PrivateEndpointUse::Auto, "45.67.0.1").are_announced());
        assert!(rules(PrivateEndpointUse::All, "45.67.0.1").are_announced());
        assert!(!rules(PrivateEndpointUse::NetworkOnly, "10.9.9.9").are_announced());
    }
}
