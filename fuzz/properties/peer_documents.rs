//! Documents of other nodes' APIs: bounded lists, no endpoint inside the network, and what is read is written to the same document.

use policies::names::Endpoint;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, net::IpAddr};
use wire::{
    endpoints::{class_of, dialable},
    overlay::Network,
    peer::{
        HolePunchDocument, HolePunchRequest, MAX_DISTANCES, MAX_NODES, MAX_OBSERVERS, MAX_TOKENS,
        NodeDocument, ObservationDocument, ObservationRequest, ObserversDocument, PeersDocument,
        RouteViewDocument, Token,
    },
    registry::{Announced, Bootstrap, Node},
    text::FEW,
};

/// The input is the body of an answer.
pub fn check(input: &[u8]) {
    if let Some(node) = round_trip::<NodeDocument>(input) {
        check_endpoints(&node.endpoints);
    }
    if let Some(peers) = round_trip::<PeersDocument>(input) {
        check_nodes(&peers.nodes);
    }
    if let Some(bootstrap) = round_trip::<Bootstrap>(input) {
        check_nodes(&bootstrap.nodes);
    }
    round_trip::<Announced>(input);
    if let Some(document) = round_trip::<ObserversDocument>(input) {
        assert!(document.observers.len() <= MAX_OBSERVERS);
    }
    if let Some(request) = round_trip::<ObservationRequest>(input) {
        assert!(request.tokens.len() <= MAX_TOKENS);
    }
    if let Some(document) = round_trip::<ObservationDocument>(input) {
        assert!(document.seen.len() <= MAX_TOKENS);
    }
    round_trip::<HolePunchRequest>(input);
    round_trip::<HolePunchDocument>(input);
    if let Some(token) = Token::of_datagram(input) {
        assert_eq!(token.datagram(), input);
    }
    if let Some(view) = round_trip::<RouteViewDocument>(input) {
        assert!(view.distances.len() <= MAX_DISTANCES);
    }
}

fn check_nodes(nodes: &[Node]) {
    assert!(nodes.len() <= MAX_NODES);
    nodes
        .iter()
        .for_each(|node| check_endpoints(&node.endpoints));
}

/// Requires that the list is bounded, and that no endpoint is dialled which leads to this host or into the network.
fn check_endpoints(endpoints: &[Endpoint]) {
    assert!(endpoints.len() <= FEW);
    let network = "fd00:1:2::/48".parse().ok().and_then(Network::new);
    let network = network.unwrap_or_else(|| unreachable!("a network that is large enough"));
    for endpoint in endpoints {
        let address = endpoint.address.ip();
        if dialable(*endpoint, network, false).is_ok() {
            assert!(class_of(address).is_none() && !address.is_loopback());
            assert!(!matches!(address, IpAddr::V6(address) if network.range().contains(&address)));
        }
    }
}

/// Reads a document, and requires that it is the same after it was written and read again.
fn round_trip<T: DeserializeOwned + Serialize + Debug + PartialEq>(input: &[u8]) -> Option<T> {
    let document: T = serde_json::from_slice(input).ok()?;
    let text = serde_json::to_vec(&document).unwrap_or_default();
    let again = serde_json::from_slice(&text).ok();
    assert_eq!(again.as_ref(), Some(&document));
    Some(document)
}
