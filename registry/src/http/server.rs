//! Runs a registry until it is stopped: a TLS server for nodes, a Unix socket for the operator, and a server for
//! metrics.

use crate::{
    clock::WallClock,
    files,
    http::{
        admin::Database,
        api,
        callers::{Callers, attach_caller, attach_operator},
        connection_limit::ConnectionLimit,
        metrics::{self, Counts, Source},
        trusted_proxies::Relay,
    },
    init::{self, backups, error::RegistryError},
    pki::tls::{ReloadableTls, TlsError},
    service::{RegistryService, error::ServiceError, queue::Queue},
    settings::{self, RegistryPaths},
};
use actix_web::{
    App, HttpServer,
    dev::{ServerHandle, Service},
    web,
};
use ipnet::IpNet;
use nix::errno::Errno;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Largest number of connections at the same time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;

/// Largest number of connections from one /64 of IPv6, or from one IPv4 address, behind which a whole site may be.
pub const MAX_PER_NETWORK: usize = 512;

/// Largest number of concurrent TLS handshakes; each ends within [`CLIENT_TIMEOUT`].
const MAX_HANDSHAKES: usize = 1024;

/// Time within which a client must complete its TLS handshake, and send the head of a request.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why a registry does not start or run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file of the registry cannot be used.
    #[error(transparent)]
    Settings(#[from] RegistryError),
    /// The stored documents or announcements cannot be used.
    #[error("cannot start the registry from its stored state")]
    RegistryService(#[source] ServiceError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The metrics cannot be set up.
    #[error("cannot set up metrics")]
    Metrics(#[source] prometheus::Error),
    /// The thread of the service cannot be started.
    #[error("cannot start the thread of the service")]
    Thread(#[source] io::Error),
    /// The port cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address to listen on.
        address: SocketAddr,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
    /// The operator's socket cannot be used.
    #[error("cannot listen on {}", path.display())]
    Socket {
        /// The path of the socket.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
    /// Another registry listens on the operator's socket.
    #[error("another registry runs here, since a process listens at {}; stop it first", path.display())]
    Running {
        /// The path of the socket.
        path: PathBuf,
    },
    /// A server failed while it ran.
    #[error("a server of the registry failed")]
    Run(#[source] io::Error),
}

/// Listens on `address`; `[::]` accepts IPv4 too, and is replaced by `0.0.0.0` if the host has no IPv6.
fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .or_else(|error| match (address, error.raw_os_error()) {
            (SocketAddr::V6(v6), Some(code))
                if v6.ip().is_unspecified() && Errno::from_raw(code) == Errno::EAFNOSUPPORT =>
            {
                TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, v6.port()))
            }
            _ => Err(error),
        })
        .map_err(|source| ServeError::Listen { address, source })
}

fn listen_admin(path: &Path) -> Result<std::os::unix::net::UnixListener, ServeError> {
    let failed = |source| ServeError::Socket {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        files::private_folder(folder).map_err(RegistryError::from)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ServeError::Running {
            path: path.to_owned(),
        });
    }
    ::files::listen(path, ::files::Access::ours(0o600)).map_err(failed)
}

/// A registry that is ready to run: its sockets are bound.
pub struct Running {
    servers: (actix_web::dev::Server, actix_web::dev::Server),
    metrics: Option<(SocketAddr, actix_web::dev::Server)>,
    relay: Option<Relay>,
    addresses: Vec<SocketAddr>,
    admin: PathBuf,
}

/// The options with which a registry runs.
#[derive(Clone)]
pub struct ServerOptions {
    /// The addresses for nodes.
    pub listen: Vec<SocketAddr>,
    /// The address for metrics, over plain HTTP; `None` stands for no metrics.
    pub metrics: Option<SocketAddr>,
    /// The proxies that report their clients' addresses by the PROXY protocol; from them nothing else is accepted.
    pub trusted_proxies: Vec<IpNet>,
    /// Largest number of connections from one network; tests differ from [`MAX_PER_NETWORK`].
    pub max_per_network: usize,
    /// Whether claims and requests are not limited, for measurements.
    pub no_limits: bool,
    /// The clock by which certificates are judged.
    pub clock: WallClock,
    /// The commit that the program was built from, or `unknown`.
    pub revision: &'static str,
}

/// Opens the registry at `paths` and binds its sockets; [`Running::run`] serves them.
///
/// It must be called within an actix runtime.
///
/// # Errors
/// A file of the registry cannot be used, or a socket cannot be bound.
pub fn start(paths: &RegistryPaths, options: &ServerOptions) -> Result<Running, ServeError> {
    let clock = Arc::clone(&options.clock);
    let opened = init::open(paths)?;
    let authority = &opened.authorities.authority;
    authority.check((clock)()).map_err(RegistryError::from)?;
    let live = ReloadableTls::new(&opened.authorities)?;
    let tls = live.config(&clock)?;
    let database = settings::database(paths);
    let mut service = RegistryService::new(opened, live, Arc::clone(&clock))
        .map_err(ServeError::RegistryService)?;
    if options.no_limits {
        tracing::warn!("claims and requests are not limited: use this for measurements only");
        service.disable_limits();
    }
    service
        .log_old_names()
        .map_err(ServeError::RegistryService)?;
    let queue = Queue::start(service).map_err(ServeError::Thread)?;
    let listeners = options.listen.iter().map(|address| listen(*address));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    let admin_listener = listen_admin(&paths.admin_socket)?;
    let bound = listeners.iter().map(TcpListener::local_addr);
    let bound = bound.collect::<Result<_, _>>().map_err(ServeError::Run)?;

    let counts = Counts::new(options.revision).map_err(ServeError::Metrics)?;
    let limit = ConnectionLimit::new(options.max_per_network);
    let (relay, callers, listeners) = if options.trusted_proxies.is_empty() {
        (None, Callers::Direct(limit), listeners)
    } else {
        let placed = Relay::new(listeners, &options.trusted_proxies, limit);
        let (relay, listener) = placed.map_err(ServeError::Run)?;
        let callers = Callers::Relayed(relay.clients());
        (Some(relay), callers, vec![listener])
    };
    let nodes = serve_nodes(queue.clone(), counts.clone(), callers, (listeners, tls))
        .map_err(ServeError::Run)?;
    let metrics = options
        .metrics
        .map(|address| serve_metrics(address, (queue.clone(), counts, clock, database.clone())))
        .transpose()?;
    backups::start(paths, &database)?;
    let socket = |source| ServeError::Socket {
        path: paths.admin_socket.clone(),
        source,
    };
    let operator = serve_operator(queue, database, admin_listener).map_err(socket)?;
    Ok(Running {
        servers: (nodes, operator),
        metrics,
        relay,
        addresses: bound,
        admin: paths.admin_socket.clone(),
    })
}

/// Serves the calls of nodes over TLS, and limits the connections from each network.
fn serve_nodes(
    queue: Queue,
    counts: Counts,
    callers: Callers,
    (listeners, tls): (Vec<TcpListener>, rustls::ServerConfig),
) -> io::Result<actix_web::dev::Server> {
    let mut server = HttpServer::new(move || {
        let (queue, counts) = (web::Data::new(queue.clone()), counts.clone());
        let clock = os::clock::Clock::boottime();
        let app = App::new().app_data(queue).wrap_fn(move |request, service| {
            let (counts, clock) = (counts.clone(), clock.clone());
            let (answer, asked_at) = (service.call(request), clock.now());
            async move {
                answer.await.inspect(|answer| {
                    counts.count_response(answer, clock.now().since(asked_at));
                })
            }
        });
        app.configure(api::set_default_answer)
            .configure(|config| api::add_calls(config, false))
    })
    .workers(1)
    .disable_signals()
    .max_connections(MAX_CONNECTIONS)
    .max_connection_rate(MAX_HANDSHAKES)
    .client_request_timeout(CLIENT_TIMEOUT)
    .tls_handshake_timeout(CLIENT_TIMEOUT)
    .shutdown_timeout(1)
    .on_connect(move |connection, data| attach_caller(&callers, connection, data));
    for listener in listeners {
        server = server.listen_rustls_0_23(listener, tls.clone())?;
    }
    Ok(server.run())
}

/// Serves the metrics over plain HTTP; returns the address, too, since the port may be chosen by the kernel.
fn serve_metrics(
    address: SocketAddr,
    (queue, counts, clock, database): (Queue, Counts, WallClock, PathBuf),
) -> Result<(SocketAddr, actix_web::dev::Server), ServeError> {
    let source = Source {
        queue,
        counts,
        clock,
        database,
    };
    let failed = |source| ServeError::Listen { address, source };
    let listener = listen(address)?;
    let bound = listener.local_addr().map_err(failed)?;
    let server = metrics::serve(listener, source).map_err(failed)?;
    Ok((bound, server))
}

/// Serves the operator's calls over the Unix socket.
fn serve_operator(
    queue: Queue,
    database: PathBuf,
    listener: std::os::unix::net::UnixListener,
) -> io::Result<actix_web::dev::Server> {
    let server = HttpServer::new(move || {
        let queue = web::Data::new(queue.clone());
        let database = web::Data::new(Database(database.clone()));
        let app = App::new().app_data(queue).app_data(database);
        app.configure(api::set_default_answer)
            .configure(|config| api::add_calls(config, true))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .on_connect(attach_operator)
    .listen_uds(listener)?;
    Ok(server.run())
}

impl Running {
    /// Returns the addresses for nodes.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the address for metrics, if they are served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(address, _)| *address)
    }

    /// Serves until `stop` completes, then stops within a second and removes the operator's socket.
    ///
    /// # Errors
    /// A server failed while it ran.
    pub async fn run(self, stop: impl Future<Output = ()> + 'static) -> Result<(), ServeError> {
        let (nodes, operator) = self.servers;
        let mut handles: Vec<ServerHandle> = vec![nodes.handle(), operator.handle()];
        if let Some((_, metrics)) = self.metrics {
            handles.push(metrics.handle());
            actix_rt::spawn(metrics);
        }
        let relay = self.relay.map(Relay::spawn);
        actix_rt::spawn(async move {
            stop.await;
            if let Some(relay) = relay {
                relay.abort();
            }
            for handle in handles {
                handle.stop(true).await;
            }
        });
        let (nodes, operator) = futures_util::future::join(nodes, operator).await;
        // If this fails, the next start removes the socket.
        let _ = ::files::remove(&self.admin);
        nodes.and(operator).map_err(ServeError::Run)
    }
}

/// Returns a future that completes on SIGTERM or SIGINT.
///
/// # Errors
/// The handlers cannot be set.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use actix_rt::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        let (term, int) = (std::pin::pin!(term.recv()), std::pin::pin!(int.recv()));
        futures_util::future::select(term, int).await;
    })
}
