//! Sends datagrams from the UDP port of a server that runs, and receives copies of those that arrive for it.
//!
//! A raw socket needs no bind(2), so that nothing of the server is touched (raw(7)). It carries IPv4 only, since NATs do.

use crate::route_check::use_routes_of;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdUdpSocket},
};
use tokio::net::UdpSocket;

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;
/// Longest datagram that is received, with its headers; longer ones are cut.
const MAX_PACKET: usize = 128;

/// A raw socket beside a server's UDP socket.
#[derive(Debug)]
pub struct ServerPort {
    socket: UdpSocket,
    port: u16,
}

impl ServerPort {
    /// Opens a socket for the server on this port, whose packets take the routes of packets of `uid`. It needs CAP_NET_RAW,
    /// CAP_CHOWN and a running tokio reactor.
    ///
    /// # Errors
    /// A capability is missing, or too many files are open.
    pub fn open(port: u16, uid: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
        socket.attach_filter(&filter(port))?;
        socket.set_nonblocking(true)?;
        use_routes_of(&socket, uid)?;
        let socket = UdpSocket::from_std(StdUdpSocket::from(socket))?;
        Ok(Self { socket, port })
    }

    /// Sends one datagram from the server's port.
    ///
    /// # Errors
    /// There is no route to the address, or the socket failed.
    pub async fn send(&self, to: SocketAddrV4, payload: &[u8]) -> io::Result<()> {
        let length = u16::try_from(UDP_HEADER + payload.len()).map_err(io::Error::other)?;
        // A checksum of zero means none (RFC 768).
        let header = [self.port, to.port(), length, 0].map(u16::to_be_bytes);
        let packet = [header.as_flattened(), payload].concat();
        let to = SocketAddr::from((*to.ip(), 0));
        self.socket.send_to(&packet, to).await.map(|_| ())
    }

    /// Waits for the next datagram that arrives for the server; returns from where it came, and its payload.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn receive(&self) -> io::Result<(SocketAddrV4, Vec<u8>)> {
        let mut packet = [0; MAX_PACKET];
        loop {
            let (length, _) = self.socket.recv_from(&mut packet).await?;
            if let Some(datagram) = parse(packet.get(..length).unwrap_or_default()) {
                return Ok(datagram);
            }
        }
    }
}

/// Opens a UDP socket on a free port, whose packets take the routes of packets of `uid`. It needs CAP_CHOWN and a running tokio reactor.
///
/// # Errors
/// The capability is missing, or too many files or ports are in use.
pub fn open_free_port(uid: u32) -> io::Result<(UdpSocket, u16)> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    use_routes_of(&socket, uid)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    let socket = UdpSocket::from_std(StdUdpSocket::from(socket))?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// Returns the source and the payload of an IPv4 packet that contains a UDP datagram (RFC 791, RFC 768).
fn parse(packet: &[u8]) -> Option<(SocketAddrV4, Vec<u8>)> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let port: [u8; 2] = packet.get(header..header + 2)?.try_into().ok()?;
    let payload = packet.get(header + UDP_HEADER..)?;
    let from = SocketAddrV4::new(source.into(), u16::from_be_bytes(port));
    Some((from, payload.to_vec()))
}

/// Builds a classic BPF filter that accepts only UDP datagrams to this port. The packet begins at the IPv4 header.
fn filter(port: u16) -> [SockFilter; 5] {
    const LOAD_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
    const LOAD_HALF_AFTER_HEADER: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = SockFilter::new;
    [
        step(LOAD_HEADER_LENGTH, 0, 0, 0),
        step(LOAD_HALF_AFTER_HEADER, 0, 0, 2),
        step(JUMP_IF_EQUAL, 0, 1, u32::from(port)),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with a header of this many words, from 192.0.2.7:258.
    fn packet(words: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; usize::from(words) * 4];
        packet[0] = 0x40 | words;
        packet[12..16].copy_from_slice(&[192, 0, 2, 7]);
        packet.extend([1, 2, 4, 0xaa, 0, 0, 0, 0]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn the_source_and_payload_of_a_packet_are_found_behind_any_header_and_cut_ones_are_skipped() {
        let expected = Some(("192.0.2.7:258".parse().unwrap(), b"payload".to_vec()));
        for words in [5, 15] {
            assert_eq!(parse(&packet(words, b"payload")), expected);
        }
        let whole = packet(5, b"");
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
    }

    #[tokio::test]
    async fn a_datagram_leaves_from_the_port_of_a_server_and_is_seen_beside_another_one() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let [at, to] = [&server, &other].map(|socket| socket.local_addr().unwrap());
        let Ok(raw) = ServerPort::open(at.port(), 0) else {
            // Only root may open raw sockets.
            assert!(!nix::unistd::geteuid().is_root());
            return;
        };
        let SocketAddr::V4(target) = to else {
            unreachable!("an IPv4 address was bound")
        };
        raw.send(target, b"opening").await.unwrap();
        let mut received = [0; 16];
        let (length, from) = other.recv_from(&mut received).await.unwrap();
        assert_eq!((&received[..length], from), (&b"opening"[..], at));
        other.send_to(b"answer", at).await.unwrap();
        let (from, payload) = raw.receive().await.unwrap();
        assert_eq!((SocketAddr::V4(from), payload), (to, b"answer".to_vec()));
        let (length, _) = server.recv_from(&mut received).await.unwrap();
        assert_eq!(&received[..length], b"answer");
    }
}
