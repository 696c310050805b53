//! Measures the round trip to a peer's UDP server, by the first packet of a dial.

use super::reset::{ResetKey, is_answer};
use ipnet::Ipv6Net;
use os::{clock::Clock, randomness::Randomness};
use policies::{names::Endpoint, units::Uptime};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{net::UdpSocket, time::timeout};

/// Maximum wait for an answer. It is longer than any round trip that still changes babeld's cost.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Packets in a probe of one peer. The first one is often delayed by neighbour discovery on its path.
const PACKETS_PER_PROBE: u32 = 2;

/// Measures the shortest round trip of a few packets with the first key that the peer answers; `None` if it answers none.
pub(super) async fn measure_rtt(
    keys: &[ResetKey],
    range: Ipv6Net,
    endpoint: Endpoint,
    (clock, random): (&Clock, &Randomness),
) -> Option<Duration> {
    for key in keys {
        let mut shortest = None;
        for _ in 0..PACKETS_PER_PROBE {
            let rtt = probe_once(key, range, endpoint, (clock, random)).await;
            shortest = shortest.into_iter().chain(rtt).min();
        }
        if shortest.is_some() {
            return shortest;
        }
    }
    None
}

/// Measures the round trip of one packet. Each packet has a socket of its own, so that a late answer is never taken for the
/// answer to a later packet.
async fn probe_once(
    key: &ResetKey,
    range: Ipv6Net,
    endpoint: Endpoint,
    (clock, random): (&Clock, &Randomness),
) -> Option<Duration> {
    let local = match endpoint.address.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(local).await.ok()?;
    socket.connect(endpoint.address).await.ok()?;
    // The route to the peer leads through the network itself.
    if matches!(socket.local_addr().ok()?.ip(), IpAddr::V6(own) if range.contains(&own)) {
        return None;
    }
    let sent_at = clock.now();
    let session = random.bits().to_be_bytes();
    let seconds = u32::try_from(sent_at.since(Uptime::default()).as_secs()).unwrap_or(u32::MAX);
    socket.send(&key.packet(session, seconds)?).await.ok()?;
    let mut answer = [0; 256];
    let length = timeout(PROBE_TIMEOUT, socket.recv(&mut answer))
        .await
        .ok()?
        .ok()?;
    is_answer(answer.get(..length)?).then(|| clock.now().since(sent_at))
}
