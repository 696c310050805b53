//! Serves the peer API: tells other nodes over the overlay where this node and others can be
//! dialled.
//!
//! Also passes on the network's signed documents. It listens on TCP on the node address only, with
//! TLS certificates on both sides. Handlers read published snapshots, or pass on what was posted;
//! nothing is decided here.

mod handlers;

use crate::store::Store;
use crate::{
    messages::DocumentOffered,
    restart_lock::SharedRestartLock,
    store::{SharedCandidates, SharedRouteView},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Extensions, Server, ServerHandle},
    http::StatusCode,
    rt::net::TcpStream,
    web,
};
use handlers::*;
use membership::peer_api::SharedNodeDocument;
use membership::{
    credentials::{self, Named, SharedServerTls},
    documents::DocumentStore,
};
use os::randomness::Randomness;
use policies::names::Prefix;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    any::Any,
    io,
    net::{SocketAddr, SocketAddrV6, TcpListener},
    sync::Arc,
    time::Duration,
};
use wire::errors::Chain;
use wire::{
    chain,
    peer::{
        DOCUMENT_LIMIT, Distance, MAX_NODES, PeersDocument, RESTART_LOCK_PATH, RouteViewDocument,
        VERSION, document_path,
    },
    registry::{DocumentKind, Node},
};

/// The node address may appear a moment after us.
const RETRY: Duration = Duration::from_millis(250);
/// See [`RETRY`]; doubled up to this.
const SLOWEST_RETRY: Duration = Duration::from_secs(10);
/// How often it is looked whether the certificate is another.
const LOOK: Duration = Duration::from_secs(1);
/// Most connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// For a handshake, and for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// An idle connection is kept this long.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The reason why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is not there yet, or in use.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address and port of the server.
        address: SocketAddr,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
}

/// The dependencies of the peer API.
#[derive(Clone)]
pub struct PeerApiDeps {
    /// Our node address and [`wire::peer::PORT`].
    pub address: SocketAddrV6,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The TLS configuration of the server, with the node's certificate.
    pub server_tls: SharedServerTls,
    /// The receiver of documents that other nodes post.
    pub offered: Recipient<DocumentOffered>,
}

/// The actor that keeps the server running.
#[derive(Clone)]
pub struct PeerApi {
    address: SocketAddrV6,
    tls: SharedServerTls,
    served: Option<Arc<ServerConfig>>,
    handle: Option<ServerHandle>,
    state: State,
    retry: Duration,
}

#[derive(Clone)]
struct State {
    random: Randomness,
    node: SharedNodeDocument,
    peers: SharedCandidates,
    documents: DocumentStore,
    offered: Recipient<DocumentOffered>,
    route_view: SharedRouteView,
    restart_lock: SharedRestartLock,
}

/// The other end of a connection, by its certificate: one that bears the address it came from.
#[derive(Clone)]
struct Caller {
    prefix: Prefix,
    /// The serial number of its certificate, in lower-case hex.
    serial: String,
    /// SHA-256 of its key's SPKI.
    key: String,
    /// Serial numbers of the CAs that it showed along.
    cas: Vec<String>,
}

impl PeerApi {
    /// Builds the actor; its server restarts whenever `server_tls` is replaced.
    pub fn new(deps: PeerApiDeps) -> Self {
        let PeerApiDeps {
            address,
            store,
            server_tls: tls,
            offered,
        } = deps;
        let Store {
            random,
            node_document: node,
            candidates: peers,
            documents,
            route_view,
            restart_lock,
            ..
        } = store;

        let state = State {
            random,
            node,
            peers,
            documents,
            offered,
            route_view,
            restart_lock,
        };
        Self {
            address,
            tls,
            served: None,
            handle: None,
            state,
            retry: RETRY,
        }
    }

    fn serve(&mut self, ctx: &mut Context<Self>) {
        let tls = self.tls.load_full();
        match server(self.address, (*tls).clone(), self.state.clone()) {
            Ok(server) => {
                (self.served, self.handle) = (Some(tls), Some(server.handle()));
                tracing::debug!(address = %self.address, "peer API answers");
                self.retry = RETRY;
                ctx.spawn(server.into_actor(self).map(|result, api, ctx| {
                    tracing::debug!(?result, "peer API server exited");
                    api.handle = None;
                    api.again(ctx);
                }));
            }
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "peer API waits");
                self.again(ctx);
            }
        }
    }

    /// Stops the server if its certificate is not the present one; it then starts again.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let present = self.tls.load_full();
        if self
            .served
            .as_ref()
            .is_some_and(|served| !Arc::ptr_eq(served, &present))
            && let Some(handle) = self.handle.take()
        {
            ctx.spawn(handle.stop(true).into_actor(self));
        }
    }

    fn again(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(self.retry, Self::serve);
        self.retry = (self.retry * 2).min(SLOWEST_RETRY);
    }
}

impl Actor for PeerApi {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.serve(ctx);
        ctx.run_interval(LOOK, Self::look);
    }
}

fn server(address: SocketAddrV6, tls: ServerConfig, state: State) -> Result<Server, ApiError> {
    let failed = |source| ApiError::Listen {
        address: address.into(),
        source,
    };
    let listener = listener(address).map_err(failed)?;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(state.clone()))
            .app_data(web::PayloadConfig::new(DOCUMENT_LIMIT))
            .route("/v1/node", web::get().to(node))
            .route("/v1/peers", web::get().to(peers))
            .route("/v1/route-view", web::get().to(view))
            .route(document_path(DocumentKind::Network), web::get().to(network))
            .route(document_path(DocumentKind::Network), web::post().to(offer))
            .route(
                document_path(DocumentKind::Revocations),
                web::get().to(revocations),
            )
            .route(
                document_path(DocumentKind::Revocations),
                web::post().to(offer),
            )
            .route(RESTART_LOCK_PATH, web::post().to(acquire_lock))
            .route(RESTART_LOCK_PATH, web::delete().to(release_lock))
            .default_service(web::to(|| async {
                problem(StatusCode::NOT_FOUND, "no such call")
            }))
    })
    .workers(1)
    .worker_max_blocking_threads(1)
    .max_connections(CONNECTIONS)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(HEAD_TIMEOUT)
    .tls_handshake_timeout(HEAD_TIMEOUT)
    .disable_signals()
    .shutdown_timeout(1)
    .on_connect(verify)
    .listen_rustls_0_23(listener, tls)
    .map_err(failed)?;
    Ok(server.run())
}

fn listener(address: SocketAddrV6) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V6(address).into())?;
    socket.listen(64)?;
    Ok(socket.into())
}

/// Notes who calls, if the certificate is the one of the address that the connection comes from.
fn verify(connection: &dyn Any, data: &mut Extensions) {
    let caller = connection
        .downcast_ref::<TlsStream<TcpStream>>()
        .and_then(|stream| {
            let (tcp, tls) = stream.get_ref();
            let from = tcp.peer_addr().ok()?;
            let (certificate, cas) = tls.peer_certificates()?.split_first()?;
            if !credentials::bears_address(certificate, from.ip()) {
                return None;
            }
            let Named {
                prefix,
                serial,
                key,
            } = credentials::named(certificate)?;
            let cas = cas
                .iter()
                .map(|ca| chain::number_of(ca).map(|ca| ca.serial));
            Some(Caller {
                prefix,
                serial,
                key,
                cas: cas.collect::<Result<_, _>>().ok()?,
            })
        });
    if let Some(caller) = caller {
        data.insert(caller);
    }
}
