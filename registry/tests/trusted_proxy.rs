//! Connections through a proxy: each client behind it is limited alone, and only the proxy's word is taken.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};
use support::{Registry, connect_from, key, request};

/// The address of the trusted proxy, and another one.
const PROXY: [u8; 4] = [127, 0, 0, 2];
const OTHER: [u8; 4] = [127, 0, 0, 3];
/// Largest number of connections from one client.
const MAX_CONNECTIONS: usize = 4;
/// Time within which a connection above the limit is closed; the handshake of a silent one may take longer.
const REJECTION_TIME: Duration = Duration::from_secs(2);
/// Time within which a rejected connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects from an address of this machine, and sends these bytes before TLS.
fn connect_with(from: [u8; 4], registry: &Registry, header: &str) -> TcpStream {
    let mut tcp = connect_from(from, registry);
    tcp.set_read_timeout(Some(CLOSE_TIMEOUT)).unwrap();
    tcp.write_all(header.as_bytes()).unwrap();
    tcp
}

/// Claims with a wrong token; returns the status of the answer, if there is one.
fn claim(registry: &Registry, from: [u8; 4], header: &str) -> Option<u16> {
    let csr = request(&rcgen::CertificateParams::default(), &key());
    let token = "AAAAAAAAAAAAAAAAAAAAAA";
    let body = json!({"version": 1, "token": token, "csr": csr}).to_string();
    let mut tls = registry.connect_on(
        connect_with(from, registry, header),
        None,
        &registry.trusted(),
    );
    let length = body.len();
    let head = format!(
        "POST /v1/claims HTTP/1.1\r\nhost: registry\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    tls.write_all(format!("{head}{body}").as_bytes()).ok()?;
    let mut begin = [0; 12];
    tls.read_exact(&mut begin).ok()?;
    std::str::from_utf8(&begin[9..]).unwrap().parse().ok()
}

fn header(client: &str) -> String {
    format!("PROXY TCP4 {client} 45.67.0.2 4000 9443\r\n")
}

#[test]
fn clients_behind_a_proxy_are_limited_each_for_itself() {
    let registry = Registry::with_trusted_proxy("127.0.0.2/32", MAX_CONNECTIONS);
    let mut guesser = || claim(&registry, PROXY, &header("45.67.0.9")).unwrap();
    let answers: Vec<_> = std::iter::repeat_with(&mut guesser).take(6).collect();
    assert_eq!(answers[5], 429, "{answers:?}");
    assert!(
        answers[..5].iter().all(|status| *status != 429),
        "{answers:?}"
    );
    assert_ne!(claim(&registry, PROXY, &header("45.67.0.10")), Some(429));
    assert_ne!(claim(&registry, OTHER, ""), Some(429));
}

#[test]
fn a_proxy_without_a_header_and_a_header_without_a_proxy_are_rejected() {
    let registry = Registry::with_trusted_proxy("127.0.0.2/32", MAX_CONNECTIONS);
    assert_eq!(claim(&registry, PROXY, ""), None);
    assert_eq!(claim(&registry, PROXY, "PROXY TCP4 nobody\r\n"), None);
    assert_eq!(claim(&registry, OTHER, &header("45.67.0.9")), None);
    assert!(claim(&registry, OTHER, "").is_some());
    let without_proxies = Registry::start();
    assert_eq!(claim(&without_proxies, PROXY, &header("45.67.0.9")), None);
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test waits for the registry's timeouts"
)]
fn silent_clients_are_limited_before_tls_and_do_not_keep_their_connections() {
    let registry = Registry::with_trusted_proxy("127.0.0.2/32", MAX_CONNECTIONS);
    for (from, first, other) in [
        (PROXY, header("45.67.0.9"), header("45.67.0.10")),
        (OTHER, String::new(), String::new()),
    ] {
        let silent: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| connect_with(from, &registry, &first))
            .collect();
        let mut rejected = connect_with(from, &registry, &first);
        rejected.set_read_timeout(Some(REJECTION_TIME)).unwrap();
        assert_eq!(rejected.read(&mut [0]).unwrap(), 0);
        let elsewhere = if from == OTHER { [127, 0, 0, 4] } else { from };
        assert!(claim(&registry, elsewhere, &other).is_some());
        // The registry closes a silent connection although the client keeps its end open.
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while claim(&registry, from, &first).is_none() {
            assert!(
                Instant::now() < deadline,
                "silent clients are still counted"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        drop(silent);
    }
}
