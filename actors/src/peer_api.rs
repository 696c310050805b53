//! Answers other members over the overlay: where we can be dialled, and whom else we know.
//!
//! TCP on our node address only, TLS with certificates on both sides. Handlers read published
//! snapshots and nothing else; what to publish is decided elsewhere.

use crate::{
    errors::Chain,
    member::{self, Member, MemberError},
    peer_cache::SharedPeers,
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Extensions, Server},
    http::StatusCode,
    rt::net::TcpStream,
    web,
};
use arc_swap::ArcSwap;
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
use wire::{
    peer::{MOST_NODES, NodeDocument, PeersDocument, VERSION},
    registry::Node,
};

/// Our own document; whoever learns of new endpoints publishes a new one.
pub type SharedNode = Arc<ArcSwap<NodeDocument>>;

/// The node address may appear a moment after us.
const RETRY: Duration = Duration::from_millis(250);
/// See [`RETRY`]; doubled up to this.
const SLOWEST_RETRY: Duration = Duration::from_secs(10);
/// Most connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// For a handshake, and for a request's head.
const PATIENCE: Duration = Duration::from_secs(3);
/// An idle connection is kept this long.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Why the API does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Not there yet, or taken.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The actor that keeps the server running.
#[derive(Clone)]
pub struct PeerApi {
    address: SocketAddrV6,
    tls: ServerConfig,
    state: State,
    retry: Duration,
}

#[derive(Clone)]
struct State {
    node: SharedNode,
    peers: SharedPeers,
}

/// Whether the client's certificate bears the address it came from.
#[derive(Clone, Copy)]
struct Verified(bool);

impl PeerApi {
    /// Will answer at `address`: our node address, and [`wire::peer::PORT`].
    ///
    /// # Errors
    /// No TLS can be made of the certificate and key.
    pub fn new(
        address: SocketAddrV6,
        member: &Member,
        node: SharedNode,
        peers: SharedPeers,
    ) -> Result<Self, MemberError> {
        Ok(Self { address, tls: member.server()?, state: State { node, peers }, retry: RETRY })
    }

    fn serve(&mut self, ctx: &mut Context<Self>) {
        match server(self.address, self.tls.clone(), self.state.clone()) {
            Ok(server) => {
                tracing::debug!(address = %self.address, "peer API answers");
                self.retry = RETRY;
                ctx.spawn(server.into_actor(self).map(|ended, api, ctx| {
                    tracing::warn!(?ended, "peer API ended");
                    api.again(ctx);
                }));
            }
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "peer API waits");
                self.again(ctx);
            }
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
    }
}

fn server(address: SocketAddrV6, tls: ServerConfig, state: State) -> Result<Server, ApiError> {
    let failed = |source| ApiError::Listen { address: address.into(), source };
    let listener = listener(address).map_err(failed)?;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(state.clone()))
            .route("/v1/node", web::get().to(node))
            .route("/v1/peers", web::get().to(peers))
            .default_service(web::to(|| async { problem(StatusCode::NOT_FOUND, "no such call") }))
    })
    .workers(1)
    .worker_max_blocking_threads(1)
    .max_connections(CONNECTIONS)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(PATIENCE)
    .tls_handshake_timeout(PATIENCE)
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

/// Notes whether the certificate is the one of the address that the connection comes from.
fn verify(connection: &dyn Any, data: &mut Extensions) {
    let verified = connection.downcast_ref::<TlsStream<TcpStream>>().is_some_and(|stream| {
        let (tcp, tls) = stream.get_ref();
        let (Ok(from), Some([certificate, ..])) = (tcp.peer_addr(), tls.peer_certificates()) else {
            return false;
        };
        member::bears_address(certificate, from.ip())
    });
    data.insert(Verified(verified));
}

async fn node(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    answer(&request, || (**state.node.load()).clone())
}

#[derive(Deserialize)]
struct Count {
    count: Option<usize>,
}

async fn peers(request: HttpRequest, count: web::Query<Count>, state: web::Data<State>) -> HttpResponse {
    answer(&request, || {
        let mut candidates: Vec<_> = state.peers.load().iter().cloned().collect();
        fastrand::shuffle(&mut candidates);
        candidates.truncate(count.count.unwrap_or(MOST_NODES).min(MOST_NODES));
        let node = |candidate: policies::world::Candidate| Node {
            prefix: candidate.peer,
            endpoints: candidate.endpoints,
        };
        PeersDocument { version: VERSION, nodes: candidates.into_iter().map(node).collect() }
    })
}

fn answer<T: Serialize>(request: &HttpRequest, document: impl FnOnce() -> T) -> HttpResponse {
    match request.conn_data::<Verified>() {
        Some(Verified(true)) => HttpResponse::Ok().json(document()),
        Some(Verified(false)) | None => {
            problem(StatusCode::FORBIDDEN, "the certificate does not bear the address you come from")
        }
    }
}

/// An error as RFC 9457 wants it.
fn problem(status: StatusCode, title: &str) -> HttpResponse {
    #[derive(Serialize)]
    struct Problem<'a> {
        status: u16,
        title: &'a str,
    }
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .json(Problem { status: status.as_u16(), title })
}
