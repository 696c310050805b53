//! Accepts connections from reverse proxies, which report their clients' addresses by the PROXY protocol.
//!
//! The header comes before TLS. So the registry accepts connections itself, reads the header, and passes all later bytes
//! on to its own TLS server on the loopback, which asks [`Clients`] where a connection comes from.

use super::proxy_header::{self, MAX_HEADER_BYTES, ProxyHeader};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Largest number of connections that are passed on at the same time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Time within which a proxy must send the header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
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
    listener: TcpListener,
    server: SocketAddr,
    proxies: Arc<[IpNet]>,
    clients: Clients,
}

impl Relay {
    /// Puts a relay before the TLS server; returns it, and the listener that the server uses instead.
    ///
    /// # Errors
    /// The loopback cannot be used.
    pub(crate) fn new(listener: TcpListener, proxies: &[IpNet]) -> io::Result<(Self, TcpListener)> {
        let inner = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let relay = Self {
            listener,
            server: inner.local_addr()?,
            proxies: proxies.into(),
            clients: Clients::default(),
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

    async fn run(self) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
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
            let (server, clients) = (self.server, self.clients.clone());
            let from = from.ip().to_canonical();
            let is_proxy = self.proxies.iter().any(|range| range.contains(&from));
            actix_rt::spawn(async move {
                if let Err(error) = pass_on(stream, (from, is_proxy), server, &clients).await {
                    tracing::debug!(%from, %error, "connection closed");
                }
                drop(place);
            });
        }
    }
}

/// Reads the header if the connection comes from a proxy, and copies all other bytes in both directions.
async fn pass_on(
    mut stream: TcpStream,
    (from, is_proxy): (IpAddr, bool),
    server: SocketAddr,
    clients: &Clients,
) -> io::Result<()> {
    let (client, rest) = if is_proxy {
        let header = timeout(HEADER_TIMEOUT, read_header(&mut stream)).await;
        let (client, rest) = header.map_err(|_| io::ErrorKind::TimedOut)??;
        (client.unwrap_or(from), rest)
    } else {
        (from, Vec::new())
    };
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    // The entry must exist before the server accepts the connection.
    let _entry = clients.add(socket.local_addr()?, client.to_canonical());
    let mut inner = socket.connect(server).await?;
    inner.write_all(&rest).await?;
    copy_bidirectional(&mut stream, &mut inner).await?;
    Ok(())
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
