//! Opens as many connections as one address may have, and checks which others are served meanwhile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::io::{Read, Write};
use support::{Registry, connect_from};

/// Largest number of connections from one address to this registry.
const MAX_CONNECTIONS: usize = 8;

/// Makes a call from `address`; returns the connection, which stays open, if there is an answer.
fn try_call_from(registry: &Registry, address: [u8; 4]) -> Option<impl Read + Write> {
    let ca = support::read(&registry.paths.config_dir.join("ca.crt"));
    let mut tls = registry.connect_on(connect_from(address, registry), None, &ca);
    tls.write_all(b"GET /v1/network HTTP/1.1\r\nhost: registry\r\n\r\n")
        .ok()?;
    let mut begin = [0; 12];
    tls.read_exact(&mut begin).ok()?;
    assert_eq!(
        &begin, b"HTTP/1.1 401",
        "a call without a certificate must be rejected with 401"
    );
    Some(tls)
}

#[test]
fn one_address_has_as_many_connections_as_the_limit_allows() {
    let registry = Registry::with_max_connections(MAX_CONNECTIONS);
    let mut connections: Vec<_> = (0..MAX_CONNECTIONS)
        .map(|_| try_call_from(&registry, [127, 0, 0, 2]).unwrap())
        .collect();
    assert!(
        try_call_from(&registry, [127, 0, 0, 2]).is_none(),
        "a connection above the limit is served"
    );
    assert!(
        try_call_from(&registry, [127, 0, 0, 3]).is_some(),
        "another address is not served"
    );
    // The registry notices closed connections after a moment.
    connections.clear();
    let connection = (0..1_000).find_map(|_| try_call_from(&registry, [127, 0, 0, 2]));
    assert!(
        connection.is_some(),
        "no connection is served after all others have closed"
    );
}
