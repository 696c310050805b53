//! Sends and receives UDP datagrams on one link: to the nodes of a multicast group there, and to single ones.

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};
use tokio::net::UdpSocket;

/// A UDP socket that receives only what arrives on its link, and sends only there.
#[derive(Debug)]
pub struct LinkSocket {
    socket: UdpSocket,
    group: SocketAddr,
}

impl LinkSocket {
    /// Opens the socket on this port, and joins the group. Needs a running tokio reactor.
    ///
    /// # Errors
    /// The link does not exist, has no address of the group's family, or another program has the port.
    pub fn open(link: (&str, u32), group: IpAddr, port: u16) -> io::Result<Self> {
        let (name, index) = link;
        let (domain, unspecified, group) = match group {
            IpAddr::V4(group) => (
                Domain::IPV4,
                IpAddr::from(Ipv4Addr::UNSPECIFIED),
                SocketAddr::from((group, port)),
            ),
            IpAddr::V6(group) => (
                Domain::IPV6,
                IpAddr::from(Ipv6Addr::UNSPECIFIED),
                SocketAddrV6::new(group, port, 0, index).into(),
            ),
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(name.as_bytes()))?;
        match group.ip() {
            IpAddr::V4(group) => {
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_ttl_v4(1)?;
                // Neither a datagram to one node may leave the link.
                socket.set_ttl_v4(1)?;
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))?;
            }
            IpAddr::V6(group) => {
                socket.set_only_v6(true)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_hops_v6(1)?;
                socket.set_multicast_if_v6(index)?;
                socket.join_multicast_v6(&group, index)?;
            }
        }
        socket.bind(&SocketAddr::new(unspecified, port).into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, group })
    }

    /// Sends a datagram to the group, without waiting.
    ///
    /// # Errors
    /// The link is down, has no address of the family yet, or its queue is full.
    pub fn send_to_group(&self, datagram: &[u8]) -> io::Result<()> {
        self.send_to(datagram, self.group)
    }

    /// Sends a datagram to one node, without waiting.
    ///
    /// # Errors
    /// The same as for the group.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        // The runtime would have the first datagram wait until it has seen that the socket is writable.
        SockRef::from(&self.socket)
            .send_to(datagram, &to.into())
            .map(drop)
    }

    /// Waits for the next datagram; returns its length and its sender. A longer one is cut to the buffer.
    ///
    /// # Errors
    /// The link is down or gone.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await
    }
}
