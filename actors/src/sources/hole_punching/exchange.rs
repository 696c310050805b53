//! Sends the datagrams by which two nodes behind NATs open a path, and learns from observers whence they seem to come.

use crate::hole_punches::SharedHolePunches;
use membership::peer_api::{PeerApiClient, PeerApiError};
use os::{
    randomness::Randomness,
    server_port::{ServerPort, open_free_port},
};
use policies::{
    hole_punching::{NatMapping, OPEN_SPAN, PunchResult},
    names::{Endpoint, Prefix, Transport},
    observation::PunchedPath,
    units::Uptime,
};
use reqwest::StatusCode;
use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    pin::pin,
    time::Duration,
};
use wire::{
    endpoints::{dialable, is_port_of_nodes},
    errors::Chain,
    overlay::Network,
    peer::{HolePunchDocument, OPENING, Observer, Seen, Token, VERSION},
};

/// Interval between two datagrams for an observer.
const OBSERVED_INTERVAL: Duration = Duration::from_millis(200);
/// Interval between two datagrams that open a path. With [`OPEN_SPAN`], it bounds their number.
const OPENING_INTERVAL: Duration = Duration::from_millis(300);

/// The settings of hole punching.
#[derive(Clone, Copy, Debug)]
pub struct PunchSettings {
    /// The prefix of this node.
    pub me: Prefix,
    /// The network; no datagram is sent into it.
    pub network: Network,
    /// The port of this node's UDP server; `None` if it has none.
    pub server_port: Option<u16>,
    /// The user of OpenVPN, whose packets' routes count.
    pub openvpn_uid: u32,
}

/// What both sides of an attempt send and ask with.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) settings: PunchSettings,
    pub(crate) peers: PeerApiClient,
    pub(crate) random: Randomness,
}

/// Returns the address if datagrams may be sent there: a public one, at no port of another service, and not this node's `own`.
pub(crate) fn allowed_target(
    endpoint: Endpoint,
    network: Network,
    own: Option<IpAddr>,
) -> Option<SocketAddrV4> {
    let SocketAddr::V4(address) = endpoint.address else {
        return None;
    };
    let is_allowed = endpoint.transport == Transport::Udp
        && dialable(endpoint, network, false).is_ok()
        && own != Some(IpAddr::V4(*address.ip()))
        && is_port_of_nodes(address.port());
    is_allowed.then_some(address)
}

/// Calls `send` again and again until the answer is there.
async fn send_until<T>(answer: impl Future<Output = T>, send: impl AsyncFn()) -> T {
    let mut ticks = tokio::time::interval(OBSERVED_INTERVAL);
    let mut answer = pin!(answer);
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            _ = ticks.tick() => send().await,
        }
    }
}

/// Returns the source of the datagrams with this token.
fn source_of(seen: &[Seen], token: Token) -> Option<Endpoint> {
    let of_token = seen.iter().find(|seen| seen.token == token);
    of_token.map(|seen| seen.source)
}

impl Exchange {
    fn token(&self) -> Token {
        let halves = [self.random.bits(), self.random.bits()].map(u64::to_be_bytes);
        let mut token = [0; 16];
        token.copy_from_slice(halves.as_flattened());
        Token(token)
    }

    fn target(&self, observer: &Observer) -> Option<SocketAddrV4> {
        allowed_target(observer.endpoint, self.settings.network, None)
    }

    /// Lets one of these nodes, but not `other_than`, see datagrams of `send`; returns their source.
    async fn observe_by_another(
        &self,
        observers: &[Observer],
        other_than: Prefix,
        send: impl AsyncFn(SocketAddrV4, Token),
    ) -> Option<SocketAddr> {
        let mut others = observers.iter().filter(|other| other.node != other_than);
        let (other, target) = others.find_map(|other| Some((other, self.target(other)?)))?;
        let token = self.token();
        let call = self.peers.observe(other.node, std::slice::from_ref(&token));
        let seen = send_until(call, || send(target, token)).await.ok()?;
        Some(source_of(&seen, token)?.address)
    }

    /// Asks a peer to open a path with this node; `observers` are those of this node, and `is_known` says whether this node knows an observer
    /// of the peer at its endpoint. Returns the path, and how the two NATs map ports.
    ///
    /// # Errors
    /// The result, if there is no path.
    pub(crate) async fn open_path(
        &self,
        peer: Prefix,
        observers: &[Observer],
        is_known: impl Fn(&Observer) -> bool,
        now: impl Fn() -> Uptime,
    ) -> Result<(PunchedPath, [NatMapping; 2]), PunchResult> {
        let declined = |error: PeerApiError| {
            tracing::info!(%peer, error = %Chain(&error), "the peer opens no path through both NATs");
            match error.status() {
                Some(StatusCode::GATEWAY_TIMEOUT) => PunchResult::NotObserved,
                Some(_) | None => PunchResult::Declined,
            }
        };
        let offered = self.peers.fetch_observers(peer).await.map_err(declined)?;
        let mut known = offered.iter().filter(|observer| is_known(observer));
        let observer = known.find_map(|observer| Some((observer, self.target(observer)?)));
        let (observer, target) = observer.ok_or(PunchResult::NotObserved)?;
        let opened = open_free_port(self.settings.openvpn_uid);
        let (socket, local_port) = opened.map_err(|error| {
            tracing::warn!(%error, "cannot open a UDP socket for hole punching");
            PunchResult::NotObserved
        })?;
        let send = async |to: SocketAddrV4, token: Token| {
            // A datagram that is lost, or that a full queue drops, is sent again.
            let _ = socket.send_to(&token.datagram(), to).await;
        };
        let token = self.token();
        let call = self.peers.punch_hole(peer, observer.node, token);
        let call = send_until(call, || send(target, token));
        let second = self.observe_by_another(observers, observer.node, &send);
        let (document, second) = futures_util::join!(call, second);
        let document = document.map_err(declined)?;
        let HolePunchDocument {
            endpoint, caller, ..
        } = document;
        allowed_target(endpoint, self.settings.network, Some(caller.address.ip()))
            .ok_or(PunchResult::NotObserved)?;
        let seen: Vec<_> = second.into_iter().chain([caller.address]).collect();
        let path = PunchedPath {
            peer,
            endpoint,
            local_port,
            until: now() + OPEN_SPAN,
        };
        Ok((path, [NatMapping::of(&seen), document.mapping.into()]))
    }

    /// Opens the path to a caller whose datagrams with `token` the observer sees: has the server's own address seen, too, and begins to
    /// send to the caller's. Returns the answer for the caller.
    ///
    /// # Errors
    /// What is missing, for the caller.
    pub(crate) async fn open_path_for(
        &self,
        (caller, token): (Prefix, Token),
        observer: &Observer,
        punches: &SharedHolePunches,
        until: Uptime,
    ) -> Result<HolePunchDocument, &'static str> {
        let port = self
            .settings
            .server_port
            .ok_or("this node has no UDP server")?;
        let server = ServerPort::open(port, self.settings.openvpn_uid).map_err(|error| {
            tracing::warn!(%error, "cannot open a raw socket for hole punching, which needs CAP_NET_RAW");
            "this node cannot send from the port of its server"
        })?;
        let target = self
            .target(observer)
            .ok_or("the observer has no public address")?;
        let send = async |to: SocketAddrV4, token: Token| {
            // A datagram that is lost, or that a full queue drops, is sent again.
            let _ = server.send(to, &token.datagram()).await;
        };
        let own = self.token();
        let tokens = [token, own];
        let call = send_until(self.peers.observe(observer.node, &tokens), || {
            send(target, own)
        });
        let observers = punches.observers();
        let second = self.observe_by_another(&observers, observer.node, &send);
        let (seen, second) = futures_util::join!(call, second);
        let seen = seen.map_err(|error| {
            tracing::debug!(%caller, observer = %observer.node, error = %Chain(&error), "observer saw nothing");
            "the observer does not answer"
        })?;
        let not_seen = "the observer has not seen the datagrams of both nodes";
        let endpoint = source_of(&seen, own).ok_or(not_seen)?;
        let source = source_of(&seen, token).ok_or(not_seen)?;
        let to = allowed_target(source, self.settings.network, Some(endpoint.address.ip()))
            .ok_or("the caller's address is not public, or that of this node")?;
        punches.expect(caller, IpAddr::V4(*to.ip()), until);
        actix_web::rt::spawn(send_openings(server, (caller, to), punches.clone()));
        let seen: Vec<_> = second.into_iter().chain([endpoint.address]).collect();
        Ok(HolePunchDocument {
            version: VERSION,
            endpoint,
            caller: source,
            mapping: NatMapping::of(&seen).into(),
        })
    }
}

/// Sends datagrams to a node until its client has come, or is expected no more.
async fn send_openings(
    server: ServerPort,
    (peer, to): (Prefix, SocketAddrV4),
    punches: SharedHolePunches,
) {
    let mut ticks = tokio::time::interval(OPENING_INTERVAL);
    while punches.is_expected(peer) {
        ticks.tick().await;
        if let Err(error) = server.send(to, &OPENING).await
            && error.kind() != io::ErrorKind::WouldBlock
        {
            return tracing::debug!(%peer, %to, %error, "cannot open the path to a peer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(endpoint: &str, is_allowed: bool) {
        let network = Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        let own = Some("45.67.0.1".parse().unwrap());
        let target = allowed_target(endpoint.parse().unwrap(), network, own);
        assert_eq!(target.is_some(), is_allowed, "{endpoint}");
    }

    #[test]
    fn datagrams_go_to_public_addresses_of_other_hosts_only_and_to_no_port_of_another_service() {
        check("udp:45.67.0.2:1194", true);
        check("udp:45.67.0.2:443", true);
        for other in [
            "tcp:45.67.0.2:1194",
            "udp:45.67.0.2:53",
            "udp:45.67.0.1:1194",
            "udp:127.0.0.1:1194",
            "udp:192.168.1.2:1194",
            "udp:169.254.1.2:1194",
            "udp:255.255.255.255:1194",
            "udp:224.0.0.1:1194",
            "udp:[2a00:1450::1]:1194",
            "udp:[2001:db8:42:7::1]:1194",
        ] {
            check(other, false);
        }
    }
}
