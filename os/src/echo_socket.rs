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
/// Size of a message that fills a packet of a slot's MTU, after the IPv6 header of 40 bytes.
const FULL_SIZE_BYTES: usize = 1360;

/// The kinds of probes, which differ in size only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Header and cookie; the whole frame has 70 bytes. It shows whether the peer is alive.
    Liveness,
    /// A few bytes more. It asks whether the peer is still reached; nothing follows if one is not answered.
    Question,
    /// A few bytes more again. It is sent with a full-size probe, and shows that small packets pass.
    Small,
    /// As large as the slot's MTU allows. It shows whether large packets pass.
    FullSize,
}

impl ProbeKind {
    /// The size of the ICMPv6 message in bytes.
    const fn message_bytes(self) -> usize {
        match self {
            Self::Liveness => 16,
            Self::Question => 20,
            Self::Small => 24,
            Self::FullSize => FULL_SIZE_BYTES,
        }
    }

    /// Returns the kind of probes that have this size in bytes.
    fn of_size(message_bytes: usize) -> Option<Self> {
        [Self::Liveness, Self::Question, Self::Small, Self::FullSize]
            .into_iter()
            .find(|kind| kind.message_bytes() == message_bytes)
    }
}

/// One byte more than the longest valid reply, so that a longer one is not taken for a valid one.
type Buffer = [u8; FULL_SIZE_BYTES + 1];
/// An empty buffer for one reply.
const EMPTY: Buffer = [0; FULL_SIZE_BYTES + 1];

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
    /// The kind of the request that it answers.
    pub kind: ProbeKind,
    /// The sequence number of that request; each kind has a sequence of its own.
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
    pub fn send(&self, to: Ipv6Addr, link: u32, kind: ProbeKind, sequence: u16) -> io::Result<()> {
        let to = SocketAddr::V6(SocketAddrV6::new(to, 0, 0, link));
        let message = encode(REQUEST, kind, self.identifier, sequence, self.cookie);
        self.socket.try_send_to(&message, to).map(|_| ())
    }

    /// Waits for the next reply to a request of this socket.
    pub async fn receive(&self) -> io::Result<EchoReply> {
        let mut bytes = EMPTY;
        loop {
            let (length, from) = self.socket.recv_from(&mut bytes).await?;
            if let Some(reply) = self.reply(bytes.get(..length).unwrap_or_default(), from) {
                return Ok(reply);
            }
        }
    }

    /// Returns a reply that has already arrived, without waiting.
    pub fn try_receive(&self) -> Option<EchoReply> {
        let mut bytes = EMPTY;
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
        let (kind, sequence) = decode(message, self.identifier, self.cookie)?;
        Some(EchoReply {
            from: *from.ip(),
            link: from.scope_id(),
            kind,
            sequence,
        })
    }
}

/// Encodes a message: type, code, checksum (which the kernel fills in), identifier, sequence number, and the cookie as
/// often as it fits.
fn encode(
    icmp_type: u8,
    kind: ProbeKind,
    identifier: u16,
    sequence: u16,
    cookie: [u8; 8],
) -> Vec<u8> {
    let [i, j] = identifier.to_be_bytes();
    let [s, t] = sequence.to_be_bytes();
    let header = [icmp_type, 0, 0, 0, i, j, s, t];
    let message = header.into_iter().chain(cookie.into_iter().cycle());
    message.take(kind.message_bytes()).collect()
}

/// Returns kind and sequence number of a reply to this socket; `None` for any other message.
fn decode(message: &[u8], identifier: u16, cookie: [u8; 8]) -> Option<(ProbeKind, u16)> {
    let [icmp_type, code, _, _, i, j, s, t, payload @ ..] = message else {
        return None;
    };
    let kind = ProbeKind::of_size(message.len())?;
    let is_ours = u16::from_be_bytes([*i, *j]) == identifier
        && payload.chunks(cookie.len()).all(|chunk| chunk == cookie);
    (*icmp_type == REPLY && *code == 0 && is_ours).then(|| (kind, u16::from_be_bytes([*s, *t])))
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
    fn check(message: &[u8], expected: Option<(ProbeKind, u16)>) {
        assert_eq!(decode(message, 7, COOKIE), expected);
    }

    #[test]
    fn the_size_of_a_reply_shows_the_kind_of_probe_that_it_answers() {
        for (kind, bytes) in [
            (ProbeKind::Liveness, 16),
            (ProbeKind::Small, 24),
            (ProbeKind::FullSize, 1360),
        ] {
            let message = encode(REPLY, kind, 7, 1, COOKIE);
            assert_eq!(message.len(), bytes);
            check(&message, Some((kind, 1)));
            check(&message[..bytes - 1], None);
        }
        assert_eq!(u32::try_from(FULL_SIZE_BYTES + 40), Ok(crate::kernel::MTU));
    }

    #[test]
    fn only_a_complete_reply_with_our_identifier_and_cookie_is_accepted() {
        let kind = ProbeKind::Liveness;
        let good = encode(REPLY, kind, 7, 0x1234, COOKIE);
        check(&good, Some((kind, 0x1234)));
        check(&encode(REQUEST, kind, 7, 1, COOKIE), None);
        check(&encode(REPLY, kind, 8, 1, COOKIE), None);
        check(&encode(REPLY, kind, 7, 1, *b"x1234567"), None);
        for length in 0..good.len() {
            check(&good[..length], None);
        }
        check(&[good.as_slice(), &[0]].concat(), None);
        let mut other_code = good;
        other_code[1] = 1;
        check(&other_code, None);
    }
}
