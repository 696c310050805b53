//! The prober's two sockets: ICMPv6 echo, and datagrams from other daemons. Neither ever blocks or waits.

use futures_util::stream::{Stream, unfold};
use os::echo_socket::{Echo, EchoReply};
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
    suspicion::{PORT, SIZE, Suspicion},
};

/// After an error of a socket it is left alone for so long, so that no error can spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The reason why the sockets cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketsError {
    /// CAP_NET_RAW is missing, or file descriptors.
    #[error("cannot open the ICMPv6 socket")]
    Echo(#[source] io::Error),
    /// The port is taken, or file descriptors are missing.
    #[error("cannot listen on UDP port {PORT}")]
    Suspicion(#[source] io::Error),
}

/// A suspicion and its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rumour {
    pub(super) from: Ipv6Addr,
    /// The index of the link it came in by where `from` is link-local, else 0.
    pub(super) link: u32,
    pub(super) suspicion: Suspicion,
}

/// A datagram on the port of suspicions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datagram {
    /// Somebody is suspect.
    Rumour(Rumour),
    /// The node at that address, on the link of that index, drains the tunnel between us.
    DrainNotice { from: Ipv6Addr, link: u32 },
}

impl Datagram {
    fn read(datagram: &[u8], from: SocketAddrV6) -> Option<Self> {
        let (from, link) = (*from.ip(), from.scope_id());
        if datagram == DRAIN_NOTICE {
            return Some(Self::DrainNotice { from, link });
        }
        Suspicion::decode(datagram).map(|suspicion| {
            Self::Rumour(Rumour {
                from,
                link,
                suspicion,
            })
        })
    }
}

/// The echo socket and the socket of suspicions.
pub(super) struct Sockets {
    echo: Rc<Echo>,
    suspicion: Rc<UdpSocket>,
}

impl Sockets {
    pub(super) fn open() -> Result<Self, SocketsError> {
        let echo = Rc::new(Echo::open().map_err(SocketsError::Echo)?);
        let suspicion = Rc::new(listen().map_err(SocketsError::Suspicion)?);
        Ok(Self { echo, suspicion })
    }

    /// Sends an echo request through the link with that index.
    pub(super) fn probe(&self, to: Ipv6Addr, link: u32, sequence: u16) -> io::Result<()> {
        self.echo.send(to, link, sequence)
    }

    /// A reply that waits unread.
    pub(super) fn reply_at_hand(&self) -> Option<EchoReply> {
        self.echo.at_hand()
    }

    /// Sends one copy; a lost one is repeated by the sender of them.
    pub(super) fn send_suspicion(&self, suspicion: Suspicion, to: Ipv6Addr, link: u32) {
        let to = SocketAddr::V6(SocketAddrV6::new(to, PORT, 0, link));
        if let Err(error) = self.suspicion.try_send_to(&suspicion.encode(), to) {
            tracing::debug!(%to, %error, "suspicion not sent");
        }
    }

    /// All replies from now on.
    pub(super) fn replies(&self) -> impl Stream<Item = EchoReply> + use<> {
        unfold(Rc::clone(&self.echo), |echo| async move {
            loop {
                match echo.receive().await {
                    Ok(reply) => return Some((reply, echo)),
                    Err(error) => pause("ICMPv6", &error).await,
                }
            }
        })
    }

    /// All well-formed suspicions and notices from now on.
    pub(super) fn datagrams(&self) -> impl Stream<Item = Datagram> + use<> {
        unfold(Rc::clone(&self.suspicion), |socket| async move {
            // One byte more than a good one, so that a longer one shows.
            let mut bytes = [0; SIZE + 1];
            loop {
                let received = socket.recv_from(&mut bytes).await;
                match received {
                    Ok((length, SocketAddr::V6(from))) => {
                        if let Some(datagram) =
                            Datagram::read(bytes.get(..length).unwrap_or_default(), from)
                        {
                            return Some((datagram, socket));
                        }
                    }
                    Ok((_, SocketAddr::V4(_))) => {}
                    Err(error) => pause("suspicion", &error).await,
                }
            }
        })
    }
}

fn listen() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
    UdpSocket::from_std(socket.into())
}

async fn pause(socket: &'static str, error: &io::Error) {
    tracing::debug!(socket, %error, "cannot receive");
    tokio::time::sleep(PAUSE).await;
}
