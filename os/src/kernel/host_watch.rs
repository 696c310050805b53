//! Reports that something on the host changed which the node may have to restore, or which may let it reach its peers again.
//!
//! The kernel sends a notification about each change. A BPF filter drops most of those about routes, which babeld changes all the
//! time. The content is not read: the receiver compares the host as a whole.

use super::{Kernel, KernelError, numbers::PROTOCOL};
use nix::sys::socket::{NetlinkAddr, bind};
use rtnetlink::{MulticastGroup, packet_route::route::RouteType};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::{io, net::UdpSocket as StdUdpSocket, os::fd::AsRawFd};
use tokio::net::UdpSocket;

/// The groups of notifications: rules, addresses, links and settings of both families, and routes.
const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Netconf,
    MulticastGroup::Ipv6Netconf,
];

/// `RTM_NEWROUTE` and `RTM_DELROUTE` of linux/rtnetlink.h.
const ROUTE_MESSAGES: [u16; 2] = [24, 25];

/// Offsets in a notification about a route: its type (struct nlmsghdr), and the length of the destination, the protocol and the kind of
/// route (struct rtmsg).
const TYPE_OFFSET: u32 = 4;
const PREFIX_LENGTH_OFFSET: u32 = 17;
const PROTOCOL_OFFSET: u32 = 21;
const KIND_OFFSET: u32 = 23;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h: the group of notifications about nftables.
const NFTABLES_GROUP: u32 = 7;

/// `NFT_MSG_DELTABLE`, `NFT_MSG_DELCHAIN` and `NFT_MSG_DELRULE` of linux/netfilter/nf_tables.h, with the number of the subsystem.
const NFTABLES_MESSAGES: [u16; 3] = [0xa02, 0xa05, 0xa08];

/// Sockets that receive notifications about changes of the host.
pub struct HostWatch {
    socket: UdpSocket,
    /// `None` if the kernel has no nftables.
    nftables: Option<UdpSocket>,
}

impl Kernel {
    /// Opens a socket for notifications. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The netlink socket cannot be opened.
    pub fn watch_host(&self) -> Result<HostWatch, KernelError> {
        let groups = GROUPS
            .iter()
            .fold(0, |groups, group| groups | 1 << (number(*group) - 1));
        let socket = open(libc::NETLINK_ROUTE, &filter(), groups).map_err(KernelError::Open)?;
        let nftables = 1 << (NFTABLES_GROUP - 1);
        let nftables = open(libc::NETLINK_NETFILTER, &nftables_filter(), nftables).ok();
        Ok(HostWatch { socket, nftables })
    }
}

fn open(family: i32, filter: &[SockFilter], groups: u32) -> io::Result<UdpSocket> {
    let netlink = Protocol::from(family);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(netlink))?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(filter)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    // A netlink socket receives like a UDP socket.
    UdpSocket::from_std(StdUdpSocket::from(socket))
}

#[expect(
    clippy::as_conversions,
    reason = "the library gives the number of a group no other name"
)]
fn number(group: MulticastGroup) -> u32 {
    group as u32
}

impl HostWatch {
    /// Waits until something has changed. All changes up to the return count as one.
    ///
    /// # Errors
    ///
    /// The socket failed.
    pub async fn changed(&self) -> io::Result<()> {
        match &self.nftables {
            Some(nftables) => tokio::select! {
                received = receive_all(&self.socket) => received,
                received = receive_all(nftables) => received,
            },
            None => receive_all(&self.socket).await,
        }
    }
}

/// Waits for a notification, and receives all that have arrived.
async fn receive_all(socket: &UdpSocket) -> io::Result<()> {
    // What a notification says does not matter, so its beginning is read, and the kernel drops the rest.
    let mut beginning = [0; 16];
    let is_received = |result: io::Result<usize>| match result {
        Ok(_) => Ok(true),
        // Notifications were lost, which is as good as one.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    };
    is_received(socket.recv(&mut beginning).await)?;
    while is_received(socket.try_recv(&mut beginning))? {}
    Ok(())
}

// Instructions of linux/filter.h.
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Builds a classic BPF filter that passes notifications about deleted tables, chains and rules only: some programs change their own
/// sets all the time.
fn nftables_filter() -> [SockFilter; 6] {
    let step = SockFilter::new;
    let [table, chain, rule] = NFTABLES_MESSAGES.map(|kind| u32::from(kind.to_be()));
    [
        step(LOAD_HALF, 0, 0, TYPE_OFFSET),
        step(JUMP_IF_EQUAL, 2, 0, table),
        step(JUMP_IF_EQUAL, 1, 0, chain),
        step(JUMP_IF_EQUAL, 0, 1, rule),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}

/// Builds a classic BPF filter that drops notifications about routes, unless the route is a default route or an
/// `unreachable` one of the daemon.
fn filter() -> [SockFilter; 11] {
    let step = SockFilter::new;
    // BPF loads numbers in network byte order, and netlink has the host's.
    let [added, deleted] = ROUTE_MESSAGES.map(|kind| u32::from(kind.to_be()));
    [
        step(LOAD_HALF, 0, 0, TYPE_OFFSET),
        step(JUMP_IF_EQUAL, 1, 0, added),
        step(JUMP_IF_EQUAL, 0, 6, deleted),
        step(LOAD_BYTE, 0, 0, PREFIX_LENGTH_OFFSET),
        step(JUMP_IF_EQUAL, 4, 0, 0),
        step(LOAD_BYTE, 0, 0, PROTOCOL_OFFSET),
        step(JUMP_IF_EQUAL, 0, 3, u32::from(u8::from(PROTOCOL))),
        step(LOAD_BYTE, 0, 0, KIND_OFFSET),
        step(
            JUMP_IF_EQUAL,
            0,
            1,
            u32::from(u8::from(RouteType::Unreachable)),
        ),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}
