//! What lies below the overlay: cables, addresses, and the lab's IPv6 router.

use crate::ip;
use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs,
    net::{Ipv6Addr, SocketAddr},
};

/// The bridge's end of the node's cable.
pub(crate) fn port(index: usize) -> String {
    format!("n{index}")
}

/// Gives a namespace its one uplink.
pub(crate) fn host(namespace: &str, address: &str, length: u8, gateway: &str) -> Result<()> {
    trust_addresses(namespace)?;
    let lines = format!(
        "link set lo up\naddr add {address}/{length} dev eth0\nlink set eth0 up\nroute add default via {gateway}\n"
    );
    ip::batch(Some(namespace), &lines)?;
    allow_pings(namespace)
}

/// Leaves out duplicate address detection on the uplink: a host that is compared before and after must not be
/// in the middle of it.
pub(crate) fn trust_addresses(namespace: &str) -> Result<()> {
    ip::inside(namespace, || {
        fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0")
            .context("cannot leave out duplicate address detection")
    })
}

/// Lets root's group make ping sockets: the kernel then hands each socket its own answers only.
pub(crate) fn allow_pings(namespace: &str) -> Result<()> {
    ip::inside(namespace, || {
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").context("cannot allow ping sockets")
    })
}

/// A router advertisement without its checksum, which the kernel fills in: router lifetime 1800 s, and the prefix
/// 2a0c:5c80::/64, on link and for addresses, valid and preferred for about a day.
#[rustfmt::skip]
const ROUTER_ADVERTISEMENT: [u8; 48] = [
    134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0,
    3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 1, 0x51, 0x80, 0, 0, 0, 0,
    0x2a, 0x0c, 0x5c, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Sends one router advertisement to all on the bridge.
pub(crate) fn advertise_router(namespace: &str) -> Result<()> {
    ip::inside(namespace, || {
        let context = "cannot send a router advertisement";
        let socket =
            Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).context(context)?;
        socket.bind_device(Some(b"internet")).context(context)?;
        socket.set_multicast_hops_v6(255).context(context)?;
        let all_nodes = SocketAddr::from((Ipv6Addr::from_bits((0xff02 << 112) + 1), 0));
        socket
            .send_to(&ROUTER_ADVERTISEMENT, &all_nodes.into())
            .context(context)?;
        Ok(())
    })
}
