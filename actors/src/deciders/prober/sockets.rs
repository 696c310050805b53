//! The prober's two sockets: one for ICMPv6 echo, one for datagrams from other daemons. Neither blocks.

use futures_util::stream::{Stream, unfold};
use os::echo_socket::{Echo, EchoReply, ProbeKind};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    rc::Rc,
    time::Duration,
};
use tokio::net::UdpSocket;
use wire::{
    drain_notice::DRAIN_NOTICE,
    metered_notice::METERED_NOTICE,
    suspicion::{PORT, SIZE, Suspicion},
};

/// Pause after an error of a socket, so that a persistent error does not cause a busy loop.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The error if the sockets cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketsError {
    /// CAP_NET_RAW is missing, or too many files are open.
    #[error("cannot open the ICMPv6 socket")]
    Echo(#[source] io::Error),
    /// The port is taken, or too many files are open.
    #[error("cannot listen on UDP port {PORT}")]
    Suspicion(#[source] io::Error),
}

/// A suspicion and its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceivedSuspicion {
    pub(super) from: Ipv6Addr,
    /// The index of the link on which it arrived; 0 if `from` is not link-local.
    pub(super) link: u32,
    pub(super) suspicion: Suspicion,
}

/// A datagram from another daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datagram {
    /// The sender suspects that a node is dead.
    Suspicion(ReceivedSuspicion),
    /// The neighbour at this address, on the link with this index, drains the tunnel between us.
    DrainNotice { from: Ipv6Addr, link: u32 },
    /// The neighbour at this address, on the link with this index, is a metered node.
    MeteredNotice { from: Ipv6Addr, link: u32 },
}

impl Datagram {
    /// Decodes a datagram; returns `None` if it is malformed.
    fn decode(datagram: &[u8], from: SocketAddrV6) -> Option<Self> {
        let (from, link) = (*from.ip(), from.scope_id());
        if datagram == DRAIN_NOTICE {
            return Some(Self::DrainNotice { from, link });
        }
        if datagram == METERED_NOTICE {
            return Some(Self::MeteredNotice { from, link });
        }
        Suspicion::decode(datagram).map(|suspicion| {
            Self::Suspicion(ReceivedSuspicion {
                from,
                link,
                suspicion,
            })
        })
    }
}

/// The socket for probes, and the socket for datagrams of other daemons.
pub(super) struct Sockets {
    echo: Rc<Echo>,
    suspicion: Rc<UdpSocket>,
}

impl Sockets {
    pub(super) fn open() -> Result<Self, SocketsError> {
        let echo = Rc::new(Echo::open().map_err(SocketsError::Echo)?);
        let suspicion = Rc::new(bind_udp().map_err(SocketsError::Suspicion)?);
        Ok(Self { echo, suspicion })
    }

    /// Sends an echo request of this kind through the link with this index.
    pub(super) fn send_probe(
        &self,
        to: Ipv6Addr,
        link: u32,
        kind: ProbeKind,
        sequence: u16,
    ) -> io::Result<()> {
        self.echo.send(to, link, kind, sequence)
    }

    /// Returns a reply that has already arrived, without waiting.
    pub(super) fn try_receive_reply(&self) -> Option<EchoReply> {
        self.echo.try_receive()
    }

    /// Sends one datagram, which may get lost.
    pub(super) fn send_suspicion(&self, suspicion: Suspicion, to: Ipv6Addr, link: u32) {
        let to = SocketAddr::V6(SocketAddrV6::new(to, PORT, 0, link));
        if let Err(error) = self.suspicion.try_send_to(&suspicion.encode(), to) {
            tracing::debug!(%to, %error, "suspicion not sent");
        }
    }

    /// Announces to the daemon at this address that this node is metered.
    pub(super) fn notify_metered(&self, to: Ipv6Addr, link: u32) {
        let to = SocketAddr::V6(SocketAddrV6::new(to, PORT, 0, link));
        if let Err(error) = self.suspicion.try_send_to(&METERED_NOTICE, to) {
            tracing::debug!(%to, %error, "notice of a metered node not sent");
        }
    }

    /// Returns the stream of all replies.
    pub(super) fn replies(&self) -> impl Stream<Item = EchoReply> + use<> {
        unfold(Rc::clone(&self.echo), |echo| async move {
            loop {
                match echo.receive().await {
                    Ok(reply) => return Some((reply, echo)),
                    Err(error) => pause_after("ICMPv6", &error).await,
                }
            }
        })
    }

    /// Returns the stream of all well-formed datagrams.
    pub(super) fn datagrams(&self) -> impl Stream<Item = Datagram> + use<> {
        unfold(Rc::clone(&self.suspicion), |socket| async move {
            // One byte more than a valid datagram, so that a longer one is not taken for a valid one.
            let mut bytes = [0; SIZE + 1];
            loop {
                let received = socket.recv_from(&mut bytes).await;
                match received {
                    Ok((length, SocketAddr::V6(from))) => {
                        if let Some(datagram) =
                            Datagram::decode(bytes.get(..length).unwrap_or_default(), from)
                        {
                            return Some((datagram, socket));
                        }
                    }
                    Ok((_, SocketAddr::V4(_))) => {}
                    Err(error) => pause_after("suspicion", &error).await,
                }
            }
        })
    }
}

fn bind_udp() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
    UdpSocket::from_std(socket.into())
}

async fn pause_after(socket: &'static str, error: &io::Error) {
    tracing::debug!(socket, %error, "cannot receive");
    tokio::time::sleep(ERROR_PAUSE).await;
}
