//! The network below the overlay: cables, addresses, and the lab's IPv6 router.

use super::{Lab, Options};
use crate::{ip, netns};
use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The last bytes of the address of the bridge, which is everybody's router on the lab's internet.
pub(super) const BRIDGE: &str = "0.1";
/// Length in bits of the prefix that all addresses on the lab's internet share.
pub(super) const UNDERLAY_PREFIX_LENGTH: u8 = 16;

/// The bridge's end of the node's cable.
pub(crate) fn bridge_port(index: usize) -> String {
    format!("n{index}")
}

/// Configures a namespace's only uplink with this address on the lab's internet.
pub(super) fn configure_uplink(options: &Options, namespace: &str, last_bytes: &str) -> Result<()> {
    skip_duplicate_address_detection(namespace)?;
    let [address, router] = [last_bytes, BRIDGE].map(|bytes| options.underlay_address(bytes));
    let lines = format!(
        "link set lo up\naddr add {address}/{UNDERLAY_PREFIX_LENGTH} dev eth0\nlink set eth0 up\nroute add default via {router}\n"
    );
    ip::batch(Some(namespace), &lines)?;
    allow_ping_sockets(namespace)
}

/// Disables duplicate address detection on the uplink, so that no snapshot of the host is taken in the middle of it.
pub(crate) fn skip_duplicate_address_detection(namespace: &str) -> Result<()> {
    netns::write_sysctl(namespace, "net/ipv6/conf/eth0/accept_dad", "0")
}

/// Lets root's group open ping sockets. The kernel passes such a socket only the replies to its own requests.
pub(crate) fn allow_ping_sockets(namespace: &str) -> Result<()> {
    netns::write_sysctl(namespace, "net/ipv4/ping_group_range", "0 0")
}

/// A router advertisement (RFC 4861) without its checksum, which the kernel fills in.
///
/// The router's lifetime is 1800 s. The prefix 2a0c:5c80::/64 is on link and usable for addresses, and both its
/// lifetimes are about a day.
#[rustfmt::skip]
const ROUTER_ADVERTISEMENT: [u8; 48] = [
    134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0,
    3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 1, 0x51, 0x80, 0, 0, 0, 0,
    0x2a, 0x0c, 0x5c, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

impl Lab {
    /// The address on the internet of this node, or of the router in front of it.
    pub fn uplink_address(&self, index: usize) -> String {
        let site = if self.is_behind_nat(index) { 2 } else { 1 };
        self.options
            .underlay_address(&format!("{site}.{}", self.router_of(index) + 1))
    }

    /// Unplugs the node's cable from the bridge. The node's own end stays up, so the node gets no notice.
    ///
    /// # Errors
    /// Fails if the kernel rejects the change.
    pub fn unplug(&self, index: usize) -> Result<()> {
        let line = format!("link set {} nomaster\n", bridge_port(index));
        ip::batch(Some(&self.internet_namespace()), &line)
    }

    /// Plugs the node's cable into the bridge again.
    ///
    /// # Errors
    /// Fails if the kernel rejects the change.
    pub fn plug_in(&self, index: usize) -> Result<()> {
        let line = format!("link set {} master internet\n", bridge_port(index));
        ip::batch(Some(&self.internet_namespace()), &line)
    }

    /// Gives the node another address on the internet, as a provider would: `45.67.3.(index+1)`.
    ///
    /// # Errors
    /// Fails if the node is behind NAT, or if the kernel rejects the change.
    pub fn change_address(&self, index: usize) -> Result<Ipv4Addr> {
        ensure!(
            !self.is_behind_nat(index),
            "node {index} is behind NAT and has no address on the internet"
        );
        let last_byte = u8::try_from(index + 1).context("there are more nodes than addresses")?;
        let address = Ipv4Addr::new(45, 67, 3, last_byte);
        let router = self.options.underlay_address(BRIDGE);
        let lines = format!(
            "addr flush dev eth0 scope global\naddr add {address}/{UNDERLAY_PREFIX_LENGTH} dev eth0\nroute add default via {router}\n"
        );
        ip::batch(Some(self.node(index)?.namespace()), &lines)?;
        Ok(address)
    }

    /// Sends one router advertisement, with an IPv6 prefix and the bridge as default router, to all on the internet.
    ///
    /// # Errors
    /// Fails if the kernel rejects the packet.
    pub fn send_router_advertisement(&self) -> Result<()> {
        let all_nodes = SocketAddr::from((Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0));
        netns::run_inside(&self.internet_namespace(), || {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            socket.bind_device(Some(b"internet"))?;
            // Receivers drop an advertisement with a smaller hop limit (RFC 4861, section 6.1.2).
            socket.set_multicast_hops_v6(255)?;
            socket.send_to(&ROUTER_ADVERTISEMENT, &all_nodes.into())?;
            Ok(())
        })
        .context("cannot send a router advertisement")
    }
}
