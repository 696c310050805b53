//! Sends one ICMPv6 echo request with a chosen hop limit, and waits for what comes back: for `warren ping` and `warren trace`.
//!
//! Each request has a raw socket of its own with an identifier of its own, so that requests do not receive each other's answers.

use crate::clock::runtime_now;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::{
    io::{self, ErrorKind},
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket as StdUdpSocket},
    time::Duration,
};
use tokio::{net::UdpSocket, time::timeout};

/// ICMPv6 type of a message that the destination cannot be reached (RFC 4443, section 3.1).
const UNREACHABLE: u8 = 1;
/// ICMPv6 type of a message that the hop limit was exceeded (RFC 4443, section 3.3).
const TIME_EXCEEDED: u8 = 3;
/// ICMPv6 type of an echo request (RFC 4443, section 4.1).
const REQUEST: u8 = 128;
/// ICMPv6 type of an echo reply (RFC 4443, section 4.2).
const REPLY: u8 = 129;
/// Size of an IPv6 header in bytes (RFC 8200, section 3).
const IPV6_HEADER_BYTES: usize = 40;
/// Size of the header of an ICMPv6 message in bytes.
const HEADER_BYTES: usize = 8;
/// The next header value of ICMPv6 (RFC 8200, section 3).
const ICMPV6: u8 = 58;

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopAnswer {
    /// The destination answered.
    Reply,
    /// A node on the path dropped the request, since its hop limit was exceeded there.
    TimeExceeded,
    /// A node on the path, or this one, has no route to the destination.
    Unreachable,
}

/// An answer, who sent it, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// What came back.
    pub answer: HopAnswer,
    /// The sender of the answer; the source of the request if this node has no route.
    pub from: Ipv6Addr,
    /// Time between request and answer.
    pub rtt: Duration,
}

/// Sends one request from one address of this host to another node, and waits for an answer. Returns `None` if none came within `wait`.
///
/// # Errors
/// The socket cannot be opened, which needs CAP_NET_RAW, or the request cannot be sent.
pub async fn echo(
    (source, to): (Ipv6Addr, Ipv6Addr),
    hop_limit: u8,
    wait: Duration,
) -> io::Result<Option<Hop>> {
    let identifier = fastrand::u16(..);
    let socket = open(source, hop_limit)?;
    let started_at = runtime_now();
    let [i, j] = identifier.to_be_bytes();
    let request = [REQUEST, 0, 0, 0, i, j, 0, 1];
    let hop = |answer, from| Hop {
        answer,
        from,
        rtt: runtime_now().duration_since(started_at),
    };
    match socket
        .send_to(&request, SocketAddrV6::new(to, 0, 0, 0))
        .await
    {
        Ok(_) => {}
        Err(error) if is_unreachable(&error) => {
            return Ok(Some(hop(HopAnswer::Unreachable, source)));
        }
        Err(error) => return Err(error),
    }
    let answer = async {
        let mut bytes = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).await?;
            let message = bytes.get(..length).unwrap_or_default();
            if let (Some(answer), SocketAddr::V6(from)) = (parse(message, identifier), from) {
                return Ok(hop(answer, *from.ip()));
            }
        }
    };
    timeout(wait, answer).await.ok().transpose()
}

fn open(source: Ipv6Addr, hop_limit: u8) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.attach_filter(&filter())?;
    socket.set_unicast_hops_v6(u32::from(hop_limit))?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.set_nonblocking(true)?;
    // A raw socket sends and receives like a UDP socket, except that ports are ignored.
    UdpSocket::from_std(StdUdpSocket::from(socket))
}

/// Returns whether the kernel has no route to the destination.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable
    )
}

/// Builds a classic BPF filter that accepts replies and the errors that [`parse`] knows. The packet begins at the ICMPv6 header.
fn filter() -> [SockFilter; 6] {
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = SockFilter::new;
    [
        step(LOAD_BYTE, 0, 0, 0),
        step(JUMP_IF_EQUAL, 2, 0, u32::from(REPLY)),
        step(JUMP_IF_EQUAL, 1, 0, u32::from(TIME_EXCEEDED)),
        step(JUMP_IF_EQUAL, 0, 1, u32::from(UNREACHABLE)),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}

/// Returns what a message says about the request with this identifier; `None` if it is about another packet.
fn parse(message: &[u8], identifier: u16) -> Option<HopAnswer> {
    let is_ours = |echo: &[u8], expected_type: u8| {
        let [icmp_type, _, _, _, i, j, ..] = echo else {
            return false;
        };
        *icmp_type == expected_type && u16::from_be_bytes([*i, *j]) == identifier
    };
    let answer = match *message.first()? {
        REPLY => return is_ours(message, REPLY).then_some(HopAnswer::Reply),
        TIME_EXCEEDED => HopAnswer::TimeExceeded,
        UNREACHABLE => HopAnswer::Unreachable,
        _ => return None,
    };
    // An error contains the packet that caused it (RFC 4443, section 2.4).
    let packet = message.get(HEADER_BYTES..)?;
    let echo = packet.get(IPV6_HEADER_BYTES..)?;
    (packet.get(6) == Some(&ICMPV6) && is_ours(echo, REQUEST)).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error of this type about an echo request with identifier 7.
    fn error(icmp_type: u8) -> Vec<u8> {
        let mut message = vec![icmp_type, 0, 0, 0, 0, 0, 0, 0];
        message.extend([0x60, 0, 0, 0, 0, 8, ICMPV6, 1]);
        message.extend([0; 32]);
        message.extend([REQUEST, 0, 0, 0, 0, 7, 0, 1]);
        message
    }

    #[track_caller]
    fn check(message: &[u8], expected: Option<HopAnswer>) {
        assert_eq!(parse(message, 7), expected, "{message:?}");
    }

    #[test]
    fn replies_and_errors_about_the_own_request_are_recognised() {
        check(&[REPLY, 0, 0, 0, 0, 7, 0, 1], Some(HopAnswer::Reply));
        check(&error(TIME_EXCEEDED), Some(HopAnswer::TimeExceeded));
        check(&error(UNREACHABLE), Some(HopAnswer::Unreachable));
    }

    #[test]
    fn messages_about_other_packets_and_truncated_ones_are_ignored() {
        check(&[REPLY, 0, 0, 0, 0, 8, 0, 1], None);
        check(&[REQUEST, 0, 0, 0, 0, 7, 0, 1], None);
        let whole = error(TIME_EXCEEDED);
        for length in 0..whole.len() - 2 {
            check(&whole[..length], None);
        }
        let mut of_udp = whole;
        of_udp[8 + 6] = 17;
        check(&of_udp, None);
    }

    #[tokio::test]
    async fn a_request_to_this_host_is_answered_and_one_without_a_route_is_not() {
        let localhost = Ipv6Addr::LOCALHOST;
        let wait = Duration::from_secs(5);
        match echo((localhost, localhost), 1, wait).await {
            Ok(hop) => {
                let hop = hop.unwrap();
                assert_eq!((hop.answer, hop.from), (HopAnswer::Reply, localhost));
            }
            // Without root there is no raw socket.
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
        }
    }
}
