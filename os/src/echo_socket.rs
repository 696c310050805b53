//! Sends ICMPv6 echo requests through chosen links, and receives the replies to them.
//!
//! One raw socket serves all links. It knows nothing of tunnels or timers, or of what a missing reply means.
//! The kernel computes the checksum (RFC 3542, section 3.1). A BPF filter on the socket drops all packets but
//! replies with this socket's identifier, so that other ICMPv6 packets do not wake the daemon.

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket as StdUdpSocket},
};
use tokio::net::UdpSocket;

/// ICMPv6 type of an echo request (RFC 4443, section 4.1).
const REQUEST: u8 = 128;
/// ICMPv6 type of an echo reply (RFC 4443, section 4.2).
const REPLY: u8 = 129;
/// Traffic class CS6 (network control), as babeld sets it on its packets.
pub(crate) const NETWORK_CONTROL: u32 = 0xc0;
/// Size of the ICMPv6 message: header and cookie. The whole frame has 70 bytes.
pub const MESSAGE_BYTES: usize = 16;

/// A raw socket for ICMPv6 echo.
pub struct Echo {
    socket: UdpSocket,
    identifier: u16,
    cookie: [u8; 8],
}

/// An ICMPv6 echo reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoReply {
    /// The link-local address of the sender.
    pub from: Ipv6Addr,
    /// The index of the link on which it arrived; 0 if the address is not link-local.
    pub link: u32,
    /// The sequence number of the request that it answers.
    pub sequence: u16,
}

impl Echo {
    /// Opens the socket; needs CAP_NET_RAW and a running tokio reactor.
    pub fn open() -> io::Result<Self> {
        let identifier = fastrand::u16(..);
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.attach_filter(&filter(identifier))?;
        socket.set_tclass_v6(NETWORK_CONTROL)?;
        socket.set_nonblocking(true)?;
        // A raw socket sends and receives like a UDP socket, except that ports are ignored.
        let socket = UdpSocket::from_std(StdUdpSocket::from(socket))?;
        Ok(Self {
            socket,
            identifier,
            cookie: fastrand::u64(..).to_be_bytes(),
        })
    }

    /// Sends one request through the link with index `link`; fails instead of waiting.
    pub fn send(&self, to: Ipv6Addr, link: u32, sequence: u16) -> io::Result<()> {
        let to = SocketAddr::V6(SocketAddrV6::new(to, 0, 0, link));
        let message = encode(REQUEST, self.identifier, sequence, self.cookie);
        self.socket.try_send_to(&message, to).map(|_| ())
    }

    /// Waits for the next reply to a request of this socket.
    pub async fn receive(&self) -> io::Result<EchoReply> {
        // One byte more than a valid reply, so that a longer one is not taken for a valid one.
        let mut bytes = [0; MESSAGE_BYTES + 1];
        loop {
            let (length, from) = self.socket.recv_from(&mut bytes).await?;
            if let Some(reply) = self.reply(bytes.get(..length).unwrap_or_default(), from) {
                return Ok(reply);
            }
        }
    }

    /// Returns a reply that has already arrived, without waiting.
    pub fn try_receive(&self) -> Option<EchoReply> {
        let mut bytes = [0; MESSAGE_BYTES + 1];
        loop {
            let (length, from) = self.socket.try_recv_from(&mut bytes).ok()?;
            if let Some(reply) = self.reply(bytes.get(..length).unwrap_or_default(), from) {
                return Some(reply);
            }
        }
    }

    fn reply(&self, message: &[u8], from: SocketAddr) -> Option<EchoReply> {
        let SocketAddr::V6(from) = from else {
            return None;
        };
        let sequence = decode(message, self.identifier, self.cookie)?;
        Some(EchoReply {
            from: *from.ip(),
            link: from.scope_id(),
            sequence,
        })
    }
}

/// Encodes a message: type, code, checksum (which the kernel fills in), identifier, sequence number, cookie.
fn encode(kind: u8, identifier: u16, sequence: u16, cookie: [u8; 8]) -> [u8; MESSAGE_BYTES] {
    let [i, j] = identifier.to_be_bytes();
    let [s, t] = sequence.to_be_bytes();
    let [a, b, c, d, e, f, g, h] = cookie;
    [kind, 0, 0, 0, i, j, s, t, a, b, c, d, e, f, g, h]
}

/// Returns the sequence number of a reply to this socket; `None` for any other message.
fn decode(message: &[u8], identifier: u16, cookie: [u8; 8]) -> Option<u16> {
    let [kind, code, _, _, i, j, s, t, payload @ ..] = message else {
        return None;
    };
    let is_ours = u16::from_be_bytes([*i, *j]) == identifier && payload == cookie;
    (*kind == REPLY && *code == 0 && is_ours).then(|| u16::from_be_bytes([*s, *t]))
}

/// Builds a classic BPF filter that accepts only replies with this identifier. The packet begins at the ICMPv6 header.
fn filter(identifier: u16) -> [SockFilter; 6] {
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = SockFilter::new;
    [
        step(LOAD_BYTE, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 3, u32::from(REPLY)),
        step(LOAD_HALF, 0, 0, 4),
        step(JUMP_IF_EQUAL, 0, 1, u32::from(identifier)),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: [u8; 8] = *b"01234567";

    #[track_caller]
    fn check(message: &[u8], sequence: Option<u16>) {
        assert_eq!(decode(message, 7, COOKIE), sequence);
    }

    #[test]
    fn only_a_complete_reply_with_our_identifier_and_cookie_is_accepted() {
        let good = encode(REPLY, 7, 0x1234, COOKIE);
        check(&good, Some(0x1234));
        check(&encode(REQUEST, 7, 1, COOKIE), None);
        check(&encode(REPLY, 8, 1, COOKIE), None);
        check(&encode(REPLY, 7, 1, *b"x1234567"), None);
        for length in 0..good.len() {
            check(&good[..length], None);
        }
        check(&[good.as_slice(), &[0]].concat(), None);
        let mut other_code = good;
        other_code[1] = 1;
        check(&other_code, None);
    }
}
