//! Holds as many connections as one address may have, and looks who is served meanwhile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
};
use support::Registry;

/// What one address may have here.
const SHARE: usize = 8;

/// A TCP connection that comes from another address of this machine.
fn from(address: [u8; 4], registry: &Registry) -> TcpStream {
    let [a, b, c, d] = address;
    let line = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(line.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
    connect(
        line.as_raw_fd(),
        &SockaddrIn::new(127, 0, 0, 1, registry.address.port()),
    )
    .unwrap();
    TcpStream::from(line)
}

/// Whether who comes from `address` gets an answer to a call; its connection.
fn is_served(registry: &Registry, address: [u8; 4]) -> Option<impl Read + Write> {
    let ca = support::read(&registry.paths.config_dir.join("ca.crt"));
    let mut tls = registry.connect_on(from(address, registry), None, &ca);
    tls.write_all(b"GET /v1/network HTTP/1.1\r\nhost: registry\r\n\r\n")
        .ok()?;
    let mut begin = [0; 12];
    tls.read_exact(&mut begin).ok()?;
    assert_eq!(&begin, b"HTTP/1.1 401", "nobody has no certificate");
    Some(tls)
}

#[test]
fn one_address_takes_its_share_of_connections_and_no_more() {
    let registry = Registry::with_share(SHARE);
    let mut held: Vec<_> = (0..SHARE)
        .map(|_| is_served(&registry, [127, 0, 0, 2]).unwrap())
        .collect();
    assert!(
        is_served(&registry, [127, 0, 0, 2]).is_none(),
        "one more than its share"
    );
    assert!(
        is_served(&registry, [127, 0, 0, 3]).is_some(),
        "another address"
    );
    // Whoever leaves makes room.
    held.clear();
    let again = (0..1_000).find_map(|_| is_served(&registry, [127, 0, 0, 2]));
    assert!(again.is_some(), "after all others have left");
}
