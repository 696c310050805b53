//! Serves the newest snapshot as Prometheus metrics, and reports whether the node is healthy and
//! ready.
//!
//! It answers GET and HEAD of `/metrics` (text format 0.0.4), `/healthz`, `/readyz`, the map at `/map`, and of `/`,
//! which links to them, on TCP or on a Unix socket. A
//! scrape reads the published snapshot, without a message to any actor.

mod event_samples;
mod families;
mod protocol;
mod readers;
mod samples;

pub use families::{FAMILIES, Family, Kind};
pub use readers::Readers;

use crate::http_connections::{ConnectionLimits, Connections, limited};
use crate::sinks::{health, map, telemetry::Published};
use actix_http::HttpService;
use actix_service::{ServiceFactory, map_config};
use actix_web::{
    App, FromRequest, Handler, HttpResponse, HttpServer, Resource, Responder,
    body::MessageBody,
    dev::{AppConfig, Server, ServiceRequest, ServiceResponse},
    http::header::ContentType,
    middleware, web,
};
use families::MAX_HEALTHY_AGE;
use os::{clock::Clock, process_usage::OwnUsage, server_drops::dropped_frames};
use policies::names::Transport;
use prometheus::TextEncoder;
use samples::Source;
use std::{io, net::SocketAddr, path::PathBuf, time::Duration};
use wire::{
    errors::Chain,
    map::{MAP_PAGE_PATH, MAP_UPDATE_PATH},
};

/// The address of the metrics endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// HTTP on TCP.
    Tcp(SocketAddr),
    /// HTTP on TCP at the node's own address in the network, for these nodes.
    Overlay(SocketAddr, Readers),
    /// HTTP on a Unix socket; a socket that already exists at that path is replaced.
    Unix(PathBuf),
}

/// The error if metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The address is taken, or may not be used.
    #[error("cannot serve metrics on {at}")]
    Bind {
        /// The address or path.
        at: String,
        /// The underlying error.
        source: io::Error,
    },
}

/// Time within which a client must send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The limits of TCP connections. Prometheus keeps its connection open between scrapes; when that is closed, it opens another one.
const LIMITS: ConnectionLimits = ConnectionLimits {
    total: 64,
    per_address: 16,
    lifetime: Duration::from_secs(3600),
};

/// Maximum number of clients that are connected to a Unix socket at the same time.
const MAX_CONNECTIONS: usize = 64;

/// Binds the address and returns the server, which the caller must spawn on the actors' thread.
///
/// # Errors
/// [`ExporterError`]; nothing is served then.
pub fn serve(listen: &Listen, clock: Clock, published: Published) -> Result<Server, ExporterError> {
    let readers = match listen {
        Listen::Overlay(_, readers) => readers.clone(),
        Listen::Tcp(_) | Listen::Unix(_) => Readers::default(),
    };
    let build_app = move || build_app((published.clone(), clock.clone()), readers.clone());
    let bound = match listen {
        Listen::Tcp(address) | Listen::Overlay(address, _) => serve_tcp(*address, build_app),
        Listen::Unix(path) => HttpServer::new(build_app)
            .workers(1)
            .worker_max_blocking_threads(1)
            .disable_signals()
            .max_connections(MAX_CONNECTIONS)
            .client_request_timeout(REQUEST_TIMEOUT)
            .shutdown_timeout(1)
            .bind_uds(path)
            .map(HttpServer::run),
    };
    bound.map_err(|source| ExporterError::Bind {
        at: match listen {
            Listen::Tcp(address) | Listen::Overlay(address, _) => address.to_string(),
            Listen::Unix(path) => path.display().to_string(),
        },
        source,
    })
}

fn serve_tcp<F, S, B>(address: SocketAddr, build_app: F) -> io::Result<Server>
where
    F: Fn() -> App<S> + Clone + Send + 'static,
    S: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<B>,
            Error = actix_web::Error,
            InitError = (),
        > + 'static,
    B: MessageBody + 'static,
{
    let connections = Connections::new(LIMITS);
    let build_service = move || {
        let app = map_config(build_app(), |()| AppConfig::default());
        let service = HttpService::build()
            .client_request_timeout(REQUEST_TIMEOUT)
            .finish(app)
            .tcp();
        limited(service, connections.clone())
    };
    let server = actix_server::Server::build()
        .workers(1)
        .worker_max_blocking_threads(1)
        .disable_signals()
        .shutdown_timeout(1)
        .bind("metrics", address, build_service)?;
    Ok(server.run())
}

fn build_app(
    (published, clock): (Published, Clock),
    readers: Readers,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new()
        .app_data(web::Data::new(published))
        .app_data(web::Data::new(clock))
        .app_data(web::Data::new(readers))
        .wrap(middleware::from_fn(reject_other_readers))
        .wrap(middleware::Compress::default())
        .service(page("/", index))
        .service(page("/metrics", metrics))
        .service(page("/healthz", healthz))
        .service(page("/readyz", readyz))
        .service(page(MAP_PAGE_PATH, map::page))
        .service(page(MAP_UPDATE_PATH, map::update))
}

/// Answers 403 to a node that may not read metrics.
async fn reject_other_readers(
    readers: web::Data<Readers>,
    published: web::Data<Published>,
    request: ServiceRequest,
    next: middleware::Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    // A Unix socket has no address; its folder says who may connect.
    let from = request.peer_addr().map(|from| from.ip().to_canonical());
    if from.is_none_or(|from| readers.admit(from, &published.load())) {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let text = "this node's metrics-from does not list your node\n";
    let response = HttpResponse::Forbidden()
        .content_type(ContentType::plaintext())
        .body(text);
    Ok(request.into_response(response).map_into_right_body())
}

/// Returns a resource that answers GET and HEAD.
fn page<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args> + Copy,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::get().to(handler))
        .route(web::head().to(handler))
}

/// Writes the current snapshot in Prometheus' text format.
///
/// Family by family, so that the samples of one need no memory any more when those of the next are read.
///
/// # Errors
/// A metric has no name.
fn text(published: &Published, clock: &Clock) -> Result<String, prometheus::Error> {
    let node = published.load();
    let process = OwnUsage::read().inspect_err(
        |error| tracing::debug!(error = %Chain(error), "cannot read the daemon's own process figures from /proc"),
    );
    let source = Source {
        node: &node,
        health: health::assess(&node, clock.now()),
        server_drops: server_drops(),
        process: process.ok(),
    };
    let mut text = String::new();
    for family in FAMILIES {
        if let Some(family) = protocol::metric_family(family, &source) {
            TextEncoder::new().encode_utf8(&[family], &mut text)?;
        }
    }
    Ok(text)
}

/// Reads the frames that were dropped on the TAPs of the servers; 0 where there is no server.
fn server_drops() -> Vec<(Transport, u64)> {
    let drops = |transport| (transport, dropped_frames(transport).unwrap_or_default());
    [Transport::Udp, Transport::Tcp].map(drops).to_vec()
}

/// Links to the other pages, and says whose they are.
async fn index(published: web::Data<Published>) -> HttpResponse {
    let node = published.load();
    let prefix = node.identity.prefix;
    let name = node.names.describe(prefix);
    // Names are DNS labels, so nothing in them is markup.
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>warren {name}</title></head>\
         <body><h1>warren {version}, node {name}</h1><ul>\
         <li><a href=\"/map\">map</a>: the network as this node knows it</li>\
         <li><a href=\"/metrics\">metrics</a></li>\
         <li><a href=\"/healthz\">healthz</a>: whether the daemon publishes figures</li>\
         <li><a href=\"/readyz\">readyz</a>: whether the node does its work, or what keeps it from that</li>\
         </ul></body></html>\n",
        version = node.identity.software,
    );
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .body(page)
}

async fn metrics(published: web::Data<Published>, clock: web::Data<Clock>) -> HttpResponse {
    match text(&published, &clock) {
        Ok(text) => HttpResponse::Ok()
            .content_type(prometheus::TEXT_FORMAT)
            .body(text),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "cannot encode the metrics");
            HttpResponse::InternalServerError()
                .content_type(ContentType::plaintext())
                .body("")
        }
    }
}

/// Answers 200 as long as telemetry publishes snapshots.
async fn healthz(published: web::Data<Published>, clock: web::Data<Clock>) -> HttpResponse {
    let is_healthy = clock.now().since(published.load().at) < MAX_HEALTHY_AGE;
    health_response(
        is_healthy,
        "healthy\n",
        "telemetry has published no snapshot lately\n",
    )
}

/// Answers 200 if no finding is an error; the text lists those that are.
async fn readyz(published: web::Data<Published>, clock: web::Data<Clock>) -> HttpResponse {
    let health = health::assess(&published.load(), clock.now());
    let errors: Vec<_> = health.errors().map(|error| error.seen.as_str()).collect();
    health_response(
        health.is_ready(),
        "ready\n",
        format!("{}\n", errors.join("\n")),
    )
}

fn health_response(
    is_ok: bool,
    ok_text: impl Into<String>,
    error_text: impl Into<String>,
) -> HttpResponse {
    let (mut response, text) = if is_ok {
        (HttpResponse::Ok(), ok_text.into())
    } else {
        (HttpResponse::ServiceUnavailable(), error_text.into())
    };
    response.content_type(ContentType::plaintext()).body(text)
}
