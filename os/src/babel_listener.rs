//! Receives copies of the Babel packets that arrive for this node's babeld; sends none.
//!
//! A raw socket gets a copy of each UDP packet that is delivered on this host. A BPF filter drops all but Babel's.

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::{
    io,
    net::{Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
};
use tokio::net::UdpSocket;
use wire::babel_packet;

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;
/// Longest Babel packet on a slot.
const MAX_PACKET: usize = 1500;

/// One packet as it arrived.
pub struct Packet {
    /// The address that it came from.
    pub from: Ipv6Addr,
    /// The index of the link on which it arrived; 0 if `from` is not link-local.
    pub link: u32,
    /// Its content, without the UDP header.
    pub bytes: Vec<u8>,
}

/// A raw socket for Babel packets.
pub struct BabelListener {
    socket: UdpSocket,
}

impl BabelListener {
    /// Opens the socket; needs CAP_NET_RAW and a running tokio reactor.
    ///
    /// # Errors
    /// The capability is missing, or too many files are open.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::UDP))?;
        socket.attach_filter(&filter(babel_packet::PORT))?;
        socket.set_nonblocking(true)?;
        // A raw socket receives like a UDP socket, with the UDP header before the payload.
        let socket = UdpSocket::from_std(StdUdpSocket::from(socket))?;
        Ok(Self { socket })
    }

    /// Waits until a Seqno Request arrives that babeld may forward.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn seqno_request(&self) -> io::Result<()> {
        while !babel_packet::has_forwardable_request(&self.receive().await?.bytes) {}
        Ok(())
    }

    /// Waits for the next packet.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn receive(&self) -> io::Result<Packet> {
        let mut bytes = [0; MAX_PACKET];
        loop {
            let (length, from) = self.socket.recv_from(&mut bytes).await?;
            if let SocketAddr::V6(from) = from {
                return Ok(Packet {
                    from: *from.ip(),
                    link: from.scope_id(),
                    bytes: bytes.get(UDP_HEADER..length).unwrap_or_default().to_vec(),
                });
            }
        }
    }
}

/// Builds a classic BPF filter that accepts only packets to this port. The packet begins at the UDP header.
fn filter(port: u16) -> [SockFilter; 4] {
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = SockFilter::new;
    [
        step(LOAD_HALF, 0, 0, 2),
        step(JUMP_IF_EQUAL, 0, 1, u32::from(port)),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}
