//! Tries whether a server of this network answers at an endpoint, by the first packet of a dial.

use super::reset::{ResetKey, is_answer};
use ipnet::Ipv6Net;
use os::{clock::Clock, randomness::Randomness};
use policies::{
    endpoint_checks::CheckOutcome,
    names::{Endpoint, Transport},
    units::Uptime,
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// Maximum wait for an answer to one attempt. All attempts together end before the call that asked for them does.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(600);
/// Number of attempts by UDP, which may lose a packet.
const UDP_ATTEMPTS: u32 = 2;
/// Maximum length of an answer, in bytes.
const MAX_ANSWER: usize = 256;

/// What the packets of a probe are made with.
pub(crate) struct Prober<'a> {
    /// The network's keys.
    pub(crate) keys: &'a [ResetKey],
    /// The network's range: an endpoint to which the route leads through the network itself is not tried.
    pub(crate) range: Ipv6Net,
    /// The clock, for the times in packets.
    pub(crate) clock: &'a Clock,
    /// The source of session ids.
    pub(crate) random: &'a Randomness,
}

impl Prober<'_> {
    /// Tries one endpoint, within 1.2 s.
    pub(crate) async fn probe(&self, endpoint: Endpoint) -> CheckOutcome {
        match self.try_endpoint(endpoint).await {
            Ok(true) => CheckOutcome::Answered,
            Err(error) if has_no_route(&error) => CheckOutcome::NotTried,
            Ok(false) | Err(_) => CheckOutcome::Silent,
        }
    }

    async fn try_endpoint(&self, endpoint: Endpoint) -> io::Result<bool> {
        let socket = self.connect_udp(endpoint.address).await?;
        match endpoint.transport {
            Transport::Udp => self.probe_udp(&socket).await,
            Transport::Tcp => self.probe_tcp(endpoint.address).await,
        }
    }

    /// Opens a socket to the endpoint, which sends nothing yet.
    ///
    /// # Errors
    /// There is no route to the endpoint, the route leads through the network itself, or the endpoint is on this host.
    async fn connect_udp(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let local = match to.ip() {
            IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(local).await?;
        socket.connect(to).await?;
        let own = socket.local_addr()?.ip();
        let is_inside = matches!(own, IpAddr::V6(own) if self.range.contains(&own));
        if is_inside || own == to.ip() {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        Ok(socket)
    }

    async fn probe_udp(&self, socket: &UdpSocket) -> io::Result<bool> {
        let mut answer = [0; MAX_ANSWER];
        for _ in 0..UDP_ATTEMPTS {
            for packet in self.packets() {
                socket.send(&packet).await?;
            }
            if let Ok(received) = timeout(ANSWER_TIMEOUT, socket.recv(&mut answer)).await {
                let length = received?;
                return Ok(is_answer(answer.get(..length).unwrap_or_default()));
            }
        }
        Ok(false)
    }

    async fn probe_tcp(&self, to: SocketAddr) -> io::Result<bool> {
        for packet in self.packets() {
            match timeout(ANSWER_TIMEOUT, self.probe_tcp_with(to, &packet)).await {
                Ok(Ok(true)) => return Ok(true),
                Ok(Err(error)) if has_no_route(&error) => return Err(error),
                // A server with another key closes the connection.
                Ok(Ok(false) | Err(_)) | Err(_) => {}
            }
        }
        Ok(false)
    }

    /// Sends one packet, which a server with another key answers by closing the connection.
    async fn probe_tcp_with(&self, to: SocketAddr, packet: &[u8]) -> io::Result<bool> {
        let mut stream = TcpStream::connect(to).await?;
        // OpenVPN writes the length before each packet (openvpn-rfc, section 4).
        let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(packet).await?;
        let length = usize::from(stream.read_u16().await?);
        let mut answer = vec![0; length.min(MAX_ANSWER)];
        stream.read_exact(&mut answer).await?;
        Ok(is_answer(&answer))
    }

    /// The first packet of a dial with each key.
    fn packets(&self) -> Vec<Vec<u8>> {
        let seconds = self.clock.now().since(Uptime::default()).as_secs();
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        let keys = self.keys.iter();
        keys.filter_map(|key| key.packet(self.random.bits().to_be_bytes(), seconds))
            .collect()
    }
}

fn has_no_route(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::AddrNotAvailable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes an endpoint on this host or without a route, where nothing may be sent.
    async fn check(endpoint: &str) {
        let prober = Prober {
            keys: &[],
            range: "fdb3::/16".parse().unwrap(),
            clock: &Clock::boottime(),
            random: &Randomness::from_seed(1),
        };
        let outcome = prober.probe(endpoint.parse().unwrap()).await;
        assert_eq!(outcome, CheckOutcome::NotTried, "{endpoint}");
    }

    #[actix::test]
    async fn endpoints_on_this_host_are_not_tried() {
        for endpoint in ["tcp:127.0.0.1:9", "udp:127.0.0.1:9"] {
            check(endpoint).await;
        }
    }

    #[test]
    fn only_errors_of_the_route_count_as_not_tried() {
        let kinds = [
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::ConnectionRefused,
        ];
        let seen = kinds.map(|kind| has_no_route(&kind.into()));
        assert_eq!(seen, [true, true, false]);
    }
}
