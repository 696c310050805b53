//! Accepts connections from reverse proxies, which report their clients' addresses by the PROXY protocol.
//!
//! The header comes before TLS. So the registry accepts connections itself, reads the header, and passes all later bytes
//! on to its own TLS server on the loopback, which finds in [`Clients`] where a connection comes from. The limit of connections
//! from one network is applied here, before the TLS handshake.

use super::{
    connection_limit::ConnectionLimit,
    proxy_header::{self, MAX_HEADER_BYTES, ProxyHeader},
};
use crate::service::limits::SourceNetwork;
use futures_util::future::try_join_all;
use ipnet::IpNet;
use nix::sys::resource::{Resource, getrlimit};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Largest number of connections that are passed on at the same time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Number of file descriptors of one connection: to the client, to the TLS server, and the TLS server's own.
const FILES_PER_CONNECTION: usize = 3;
/// Number of file descriptors for everything else, such as the database and the metrics.
const OTHER_FILES: usize = 128;
/// Time within which a proxy must send the header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which one direction stays open after the other has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, such as without free file descriptors.
const ERROR_PAUSE: Duration = Duration::from_millis(200);

/// The clients of the connections that are passed on, by the address of our end of the connection on the loopback.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients(Arc<Mutex<BTreeMap<SocketAddr, IpAddr>>>);

/// The entry of one connection, which is removed when this is dropped.
struct ClientEntry {
    clients: Clients,
    address: SocketAddr,
}

impl Clients {
    /// Returns the client behind a connection to the TLS server; `None` if the connection does not come from [`Relay`].
    pub(crate) fn client_of(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.lock().get(&peer).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, IpAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, address: SocketAddr, client: IpAddr) -> ClientEntry {
        self.lock().insert(address, client);
        ClientEntry {
            clients: self.clone(),
            address,
        }
    }
}

impl Drop for ClientEntry {
    fn drop(&mut self) {
        self.clients.lock().remove(&self.address);
    }
}

/// Passes connections on to the TLS server.
pub(crate) struct Relay {
    listeners: Vec<TcpListener>,
    server: SocketAddr,
    proxies: Arc<[IpNet]>,
    clients: Clients,
    limit: ConnectionLimit,
}

impl Relay {
    /// Puts a relay before the TLS server, which applies the limit; returns it, and the listener that the server uses instead.
    ///
    /// # Errors
    /// The loopback cannot be used.
    pub(crate) fn new(
        listeners: Vec<TcpListener>,
        proxies: &[IpNet],
        limit: ConnectionLimit,
    ) -> io::Result<(Self, TcpListener)> {
        let inner = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        let relay = Self {
            listeners,
            server: inner.local_addr()?,
            proxies: proxies.into(),
            clients: Clients::default(),
            limit,
        };
        Ok((relay, inner))
    }

    pub(crate) fn clients(&self) -> Clients {
        self.clients.clone()
    }

    /// Starts to accept connections, until the task is aborted. A connection that was accepted before goes on.
    pub(crate) fn spawn(self) -> actix_rt::task::JoinHandle<()> {
        actix_rt::spawn(async move {
            if let Err(error) = self.run().await {
                tracing::error!(%error, "cannot accept connections for nodes");
            }
        })
    }

    async fn run(mut self) -> io::Result<()> {
        let free_slots = Arc::new(Semaphore::new(allowed_connections()));
        let listeners = std::mem::take(&mut self.listeners).into_iter();
        let accepting = listeners.map(|listener| self.accept_from(listener, &free_slots));
        try_join_all(accepting).await.map(drop)
    }

    async fn accept_from(
        &self,
        listener: TcpListener,
        free_slots: &Arc<Semaphore>,
    ) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let Ok(slot) = Arc::clone(free_slots).acquire_owned().await else {
                return Ok(());
            };
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(ERROR_PAUSE).await;
                    continue;
                }
            };
            let (server, clients, limit) = (self.server, self.clients.clone(), self.limit.clone());
            let from = from.ip().to_canonical();
            let is_proxy = self.proxies.iter().any(|range| range.contains(&from));
            actix_rt::spawn(async move {
                if let Err(error) =
                    pass_on(stream, (from, is_proxy), server, (&clients, &limit)).await
                {
                    tracing::debug!(%from, %error, "connection closed");
                }
                drop(slot);
            });
        }
    }
}

/// Returns how many connections the limit of open files allows, at most [`MAX_CONNECTIONS`].
fn allowed_connections() -> usize {
    let needed = MAX_CONNECTIONS * FILES_PER_CONNECTION + OTHER_FILES;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(needed, |(soft, _)| {
        usize::try_from(soft).unwrap_or(needed).min(needed)
    });
    let allowed = limit.saturating_sub(OTHER_FILES) / FILES_PER_CONNECTION;
    if allowed < MAX_CONNECTIONS {
        tracing::warn!(
            limit,
            connections = allowed,
            "the limit of open files allows fewer connections than {MAX_CONNECTIONS}; raise it (LimitNOFILE= of the unit) to {needed}"
        );
    }
    allowed.max(1)
}

/// Reads the header if the connection comes from a proxy, and copies all other bytes in both directions. Closes the connection if
/// the client's network has too many.
async fn pass_on(
    mut stream: TcpStream,
    (from, is_proxy): (IpAddr, bool),
    server: SocketAddr,
    (clients, limit): (&Clients, &ConnectionLimit),
) -> io::Result<()> {
    let (client, rest) = if is_proxy {
        let header = timeout(HEADER_TIMEOUT, read_header(&mut stream)).await;
        let (client, rest) = header.map_err(|_| io::ErrorKind::TimedOut)??;
        (client.unwrap_or(from), rest)
    } else {
        (from, Vec::new())
    };
    let client = client.to_canonical();
    let Some(_permit) = limit.take(SourceNetwork::from(client)) else {
        tracing::debug!(%client, "connection closed: its network has too many");
        return Ok(());
    };
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    // The entry must exist before the server accepts the connection.
    let _entry = clients.add(socket.local_addr()?, client);
    let mut inner = socket.connect(server).await?;
    inner.write_all(&rest).await?;
    copy_both(&mut stream, &mut inner).await
}

/// Copies in both directions. Once one of them has ended, the other one ends within [`CLOSE_TIMEOUT`], since a client that stays
/// silent must not keep a connection that the server has closed.
async fn copy_both(outer: &mut TcpStream, inner: &mut TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = outer.split();
    let (mut from_server, mut to_server) = inner.split();
    let requests = async {
        copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let answers = async {
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::pin!(requests, answers);
    tokio::select! {
        ended = &mut requests => {
            ended?;
            timeout(CLOSE_TIMEOUT, answers).await?
        }
        ended = &mut answers => {
            ended?;
            timeout(CLOSE_TIMEOUT, requests).await?
        }
    }
}

/// Returns the client, and the bytes after the header that were read with it.
async fn read_header(stream: &mut TcpStream) -> io::Result<(Option<IpAddr>, Vec<u8>)> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut bytes = Vec::new();
    loop {
        match proxy_header::read(&bytes) {
            ProxyHeader::Complete { client, length } => {
                return Ok((client, bytes.split_off(length)));
            }
            ProxyHeader::Invalid => {
                return Err(invalid(
                    "a trusted proxy sent no header of the PROXY protocol",
                ));
            }
            ProxyHeader::Incomplete if bytes.len() > MAX_HEADER_BYTES => {
                return Err(invalid("a trusted proxy sent a header that is too long"));
            }
            ProxyHeader::Incomplete => {}
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
