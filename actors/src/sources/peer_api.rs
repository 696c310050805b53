//! Serves the peer API, from which other nodes learn over the overlay where this node and others can be dialled.
//!
//! Nodes also exchange signed documents, route views and restart locks through it. It listens on TCP on the node address
//! only, and both sides present a TLS certificate. The handlers read published snapshots or forward what was posted; other
//! actors decide.

mod call_times;
mod endpoint_checks;
mod handlers;
mod hole_punching;

use crate::store::Store;
use crate::{
    hole_punches::SharedHolePunches,
    http_connections::{ConnectionLimits, Connections, limited},
    messages::DocumentOffered,
    restart_lock::SharedRestartLock,
    sources::hole_punching::{PunchSettings, exchange::Exchange},
    store::{SharedCandidates, SharedRouteView},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};
use actix_http::{HttpService, TlsAcceptorConfig};
use actix_service::{ServiceFactory, map_config};
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{
    App, HttpRequest, HttpResponse,
    dev::{AppConfig, Extensions, Server, ServerHandle, ServiceRequest, ServiceResponse},
    http::StatusCode,
    rt::net::TcpStream,
    web,
};
use call_times::CallTimes;
use endpoint_checks::{CALL_INTERVAL, MAX_CALLS, check_endpoints};
use handlers::*;
use hole_punching::{HolePunchState, get_observers, observe, punch_hole};
use membership::peer_api::{PeerApiClient, SharedNodeDocument};
use membership::{
    credentials::{self, CertificateIdentity, SharedServerTls},
    documents::DocumentStore,
    node_names::NodeNames,
};
use os::{clock::Clock, randomness::Randomness};
use policies::{names::Prefix, node_name::NodeName};
use rustls::ServerConfig;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{SocketAddr, SocketAddrV6, TcpListener},
    sync::Arc,
    time::Duration,
};
use wire::errors::Chain;
use wire::{
    chain,
    peer::{
        DOCUMENT_LIMIT, Distance, ENDPOINT_CHECKS_PATH, HOLE_PUNCHES_PATH, MAX_NODES,
        NEXT_HOP_PATH, NextHopDocument, OBSERVATIONS_PATH, PeersDocument, RESTART_LOCK_PATH,
        RouteViewDocument, VERSION, document_path,
    },
    registry::{DocumentKind, Node},
};

/// Delay before a failed start of the server is first retried, since the node address may appear a moment later. It doubles
/// with each failure.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(250);
/// Maximum delay between two attempts to start the server.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);
/// Interval between checks whether the certificate was replaced.
const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The limits of connections. A call takes a few round trips, and 2 s at most at the side of the client.
const LIMITS: ConnectionLimits = ConnectionLimits {
    total: 64,
    per_address: 4,
    lifetime: Duration::from_secs(10),
};
/// Maximum duration of a TLS handshake, and of the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Time after which an idle connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address does not exist yet, or the port is in use.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address and port of the server.
        address: SocketAddr,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
}

/// Finds the tunnel by which packets to a node leave this one; `None` if there is no route.
pub type FindNextHop = Arc<dyn Fn(Prefix) -> Option<NextHopDocument> + Send + Sync>;

/// The dependencies of the peer API.
#[derive(Clone)]
pub struct PeerApiDeps {
    /// The node address, and [`wire::peer::PORT`].
    pub address: SocketAddrV6,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The TLS configuration of the server, with the node's certificate.
    pub server_tls: SharedServerTls,
    /// The receiver of documents that other nodes post.
    pub offered: Recipient<DocumentOffered>,
    /// The settings of hole punching.
    pub punch_settings: PunchSettings,
    /// The client of other nodes' peer API.
    pub peers: PeerApiClient,
    /// Looks up the tunnel to a node for those that ask.
    pub find_next_hop: FindNextHop,
}

/// The actor that keeps the server running.
#[derive(Clone)]
pub struct PeerApi {
    address: SocketAddrV6,
    server_tls: SharedServerTls,
    /// The TLS configuration with which the server was started.
    served_tls: Option<Arc<ServerConfig>>,
    handle: Option<ServerHandle>,
    state: State,
    retry_delay: Duration,
}

#[derive(Clone)]
struct State {
    clock: Clock,
    random: Randomness,
    node_document: SharedNodeDocument,
    peers: SharedCandidates,
    documents: DocumentStore,
    offered: Recipient<DocumentOffered>,
    find_next_hop: FindNextHop,
    route_view: SharedRouteView,
    restart_lock: SharedRestartLock,
    names: NodeNames,
    /// When other nodes last asked for checks of their endpoints.
    check_times: CallTimes,
    punches: SharedHolePunches,
    hole_punching: HolePunchState,
}

/// The identity of a client whose certificate contains the address that it connects from.
#[derive(Clone)]
struct Caller {
    prefix: Prefix,
    /// The name that its certificate states.
    name: Option<NodeName>,
    /// notBefore of its certificate, in seconds since 1970.
    issued_s: i64,
    /// The serial number of its certificate, in lower-case hex without leading zeros.
    serial: String,
    /// SHA-256 of its key's SPKI, in lower-case hex.
    key: String,
    /// The serial numbers of the CAs that it presented with its certificate.
    cas: Vec<String>,
}

impl PeerApi {
    /// Builds the actor; its server restarts whenever `server_tls` is replaced.
    pub fn new(deps: PeerApiDeps) -> Self {
        let PeerApiDeps {
            address,
            store,
            server_tls,
            offered,
            punch_settings: settings,
            peers: peer_api,
            find_next_hop,
        } = deps;
        let Store {
            clock,
            random,
            node_document,
            candidates: peers,
            documents,
            route_view,
            restart_lock,
            names,
            punches,
            ..
        } = store;
        let exchange = Exchange {
            settings,
            peers: peer_api,
            random: random.clone(),
        };
        let state = State {
            clock,
            random,
            node_document,
            peers,
            documents,
            offered,
            find_next_hop,
            route_view,
            restart_lock,
            names,
            check_times: CallTimes::new(CALL_INTERVAL, MAX_CALLS),
            punches,
            hole_punching: HolePunchState::new(exchange),
        };
        Self {
            address,
            server_tls,
            served_tls: None,
            handle: None,
            state,
            retry_delay: MIN_RETRY_DELAY,
        }
    }

    fn serve(&mut self, ctx: &mut Context<Self>) {
        let tls = self.server_tls.load_full();
        match build_server(self.address, (*tls).clone(), self.state.clone()) {
            Ok(server) => {
                (self.served_tls, self.handle) = (Some(tls), Some(server.handle()));
                tracing::debug!(address = %self.address, "peer API listens");
                self.retry_delay = MIN_RETRY_DELAY;
                ctx.spawn(server.into_actor(self).map(|result, api, ctx| {
                    tracing::debug!(?result, "peer API server exited");
                    api.handle = None;
                    api.retry_later(ctx);
                }));
            }
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot start the peer API; the start is tried again");
                self.retry_later(ctx);
            }
        }
    }

    /// Stops the server if its certificate was replaced; it then starts again with the new one.
    fn restart_if_replaced(&mut self, ctx: &mut Context<Self>) {
        let current = self.server_tls.load_full();
        if self
            .served_tls
            .as_ref()
            .is_some_and(|served| !Arc::ptr_eq(served, &current))
            && let Some(handle) = self.handle.take()
        {
            ctx.spawn(handle.stop(true).into_actor(self));
        }
    }

    fn retry_later(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(self.retry_delay, Self::serve);
        self.retry_delay = (self.retry_delay * 2).min(MAX_RETRY_DELAY);
    }
}

impl Actor for PeerApi {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.serve(ctx);
        ctx.run_interval(CERTIFICATE_CHECK_INTERVAL, Self::restart_if_replaced);
    }
}

fn build_server(
    address: SocketAddrV6,
    tls: ServerConfig,
    state: State,
) -> Result<Server, ApiError> {
    let listen_error = |source| ApiError::Listen {
        address: address.into(),
        source,
    };
    let listener = bind_listener(address).map_err(listen_error)?;
    let connections = Connections::new(LIMITS);
    let build_service = move || {
        let app = map_config(build_app(state.clone()), |()| AppConfig::default());
        let handshakes = TlsAcceptorConfig::default().handshake_timeout(HEAD_TIMEOUT);
        let service = HttpService::build()
            .keep_alive(IDLE_TIMEOUT)
            .client_request_timeout(HEAD_TIMEOUT)
            .on_connect_ext(|connection: &TlsStream<TcpStream>, data| {
                identify_caller(connection, data);
            })
            .finish(app)
            .rustls_0_23_with_config(tls.clone(), handshakes);
        limited(service, connections.clone())
    };
    let server = actix_server::Server::build()
        .workers(1)
        .worker_max_blocking_threads(1)
        .disable_signals()
        .shutdown_timeout(1)
        .listen("peer API", listener, build_service)
        .map_err(listen_error)?;
    Ok(server.run())
}

fn build_app(
    state: State,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    let network = document_path(DocumentKind::Network);
    let revocations = document_path(DocumentKind::Revocations);
    App::new()
        .app_data(web::Data::new(state))
        .app_data(web::PayloadConfig::new(DOCUMENT_LIMIT))
        .route("/v1/node", web::get().to(get_node))
        .route("/v1/peers", web::get().to(get_peers))
        .route("/v1/route-view", web::get().to(get_route_view))
        .route(NEXT_HOP_PATH, web::get().to(get_next_hop))
        .route(network, web::get().to(get_network))
        .route(network, web::post().to(post_document))
        .route(revocations, web::get().to(get_revocations))
        .route(revocations, web::post().to(post_document))
        .route(ENDPOINT_CHECKS_PATH, web::post().to(check_endpoints))
        .route(HOLE_PUNCHES_PATH, web::get().to(get_observers))
        .route(HOLE_PUNCHES_PATH, web::post().to(punch_hole))
        .route(OBSERVATIONS_PATH, web::post().to(observe))
        .route(RESTART_LOCK_PATH, web::post().to(acquire_lock))
        .route(RESTART_LOCK_PATH, web::delete().to(release_lock))
        .default_service(web::to(|| async {
            problem(StatusCode::NOT_FOUND, "unknown path")
        }))
}

fn bind_listener(address: SocketAddrV6) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V6(address).into())?;
    socket.listen(64)?;
    Ok(socket.into())
}

/// Stores the identity of the caller with the connection, if the certificate contains the address that it comes from.
fn identify_caller(connection: &TlsStream<TcpStream>, data: &mut Extensions) {
    if let Some(caller) = caller(connection) {
        data.insert(caller);
    }
}

fn caller(connection: &TlsStream<TcpStream>) -> Option<Caller> {
    let (tcp, tls) = connection.get_ref();
    let from = tcp.peer_addr().ok()?;
    let (certificate, cas) = tls.peer_certificates()?.split_first()?;
    if !credentials::has_address(certificate, from.ip()) {
        return None;
    }
    let CertificateIdentity {
        prefix,
        name,
        issued_s,
        serial,
        key,
    } = credentials::read_identity(certificate)?;
    let cas = cas
        .iter()
        .map(|ca| chain::number_of(ca).map(|ca| ca.serial));
    Some(Caller {
        prefix,
        name,
        issued_s,
        serial,
        key,
        cas: cas.collect::<Result<_, _>>().ok()?,
    })
}
