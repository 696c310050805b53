//! Tests that no endpoint is dialled that is in the network's own IPv4 range.

#![allow(clippy::unwrap_used, reason = "a test")]

mod ca;

use arc_swap::ArcSwap;
use ca::{Ca, accept, network, trusting};
use membership::documents::{DocumentStore, PrivateEndpointError, PrivateEndpoints};
use wire::{endpoints::PrivateEndpointUse, registry::NetworkDocument};

/// The rules of a node with the address 10.0.2.5/24 in a network with this IPv4 range.
fn rules(range: &str, configured: PrivateEndpointUse) -> PrivateEndpoints {
    let ca = Ca::self_signed("network", 0);
    let document = NetworkDocument {
        ipv4: Some(range.parse().unwrap()),
        ..network(1, &[&ca])
    };
    let documents = accept(&trusting(&[&ca]), &ca.sign_document(false, &document));
    let store = DocumentStore::new(ArcSwap::from_pointee(documents));
    let rules = PrivateEndpoints::new(configured, store);
    rules.set_addresses(vec![("10.0.2.5".parse().unwrap(), 24)]);
    // Private endpoints are believed, since the registry has a private address.
    rules.set_registry_address("10.9.9.9".parse().unwrap());
    rules
}

#[track_caller]
fn check(range: &str, endpoint: &str, expected: Result<(), PrivateEndpointError>) {
    for configured in [PrivateEndpointUse::Auto, PrivateEndpointUse::All] {
        let outcome = rules(range, configured).check(endpoint.parse().unwrap());
        assert_eq!(outcome, expected, "{range} {endpoint} {configured:?}");
    }
}

#[test]
fn no_endpoint_in_the_ipv4_range_of_the_network_is_dialled() {
    let overlay = Err(PrivateEndpointError::Overlay);
    check("10.0.0.0/8", "udp:10.1.2.3:1194", overlay);
    check("10.0.0.0/8", "tcp:10.255.255.255:443", overlay);
    check("10.0.0.0/8", "udp:11.0.0.1:1194", Ok(()));
    check("10.0.0.0/8", "udp:172.16.0.1:1194", Ok(()));
    check("100.64.0.0/10", "udp:100.127.0.1:1194", overlay);
    check("100.64.0.0/10", "udp:10.1.2.3:1194", Ok(()));
    // The range may be public.
    check("45.67.0.0/16", "udp:45.67.1.1:1194", overlay);
    check("45.67.0.0/16", "udp:45.68.1.1:1194", Ok(()));
}

#[test]
fn an_endpoint_in_a_subnet_of_the_host_is_not_in_the_network() {
    check("10.0.0.0/8", "udp:10.0.2.77:1194", Ok(()));
    check(
        "10.0.0.0/8",
        "udp:10.0.3.77:1194",
        Err(PrivateEndpointError::Overlay),
    );
}
