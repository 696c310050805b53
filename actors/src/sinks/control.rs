//! Serves the documents of `wire::control` on a Unix socket, to root and the socket's group.
//!
//! The kernel decides by the socket's mode (0660) and group which users can connect. Requests of the users that
//! children run as are rejected even if these belong to the group. The answers are made from the published
//! snapshot, without a message to any actor. Only root can have the configuration reloaded or the daemon restarted, and
//! give orders.

mod echo;
mod events;
mod hop;
mod operator;

pub use hop::AskNextHop;
pub use operator::OperatorOrders;

use crate::sinks::{documents::View, map, telemetry::Published};
use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Extensions, Server},
    http::StatusCode,
    web,
};
use events::WaitingRequests;
use os::clock::Clock;
use serde::Serialize;
use std::{
    any::Any,
    fs, io,
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use wire::control::{
    DECISIONS_PATH, ECHO_PATH, EVENTS_PATH, EventQuery, HOP_PATH, NAMES_PATH, PEERS_PATH, Problem,
    RELOAD_PATH, RESTART_PATH, ROUTES_PATH, ReloadDocument, STATUS_PATH, TUNNELS_PATH,
};
use wire::errors::some_if_found;
use wire::map::{MAP_DOCUMENT_PATH, MAP_PAGE_PATH, MAP_UPDATE_PATH};

/// The path of the socket, and the users that may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The path of the socket. A socket that an earlier daemon left there is replaced.
    pub path: PathBuf,
    /// The group of the socket; `None` for the daemon's own group.
    pub group: Option<u32>,
    /// The uids that children run as; their requests are rejected.
    pub rejected_uids: Vec<u32>,
}

/// The error if the control socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The file at the path is not a socket.
    #[error("{path} exists and is not a socket")]
    NotASocket {
        /// The path of the file.
        path: PathBuf,
    },
    /// A daemon answers at the path.
    #[error("another daemon answers at {path}")]
    InUse {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The socket cannot be created, or its group cannot be set.
    #[error("cannot {what} {path}")]
    Io {
        /// The action that failed, such as `bind`.
        what: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
}

/// Time within which a client must send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of clients that are connected at the same time.
const MAX_CONNECTIONS: usize = 32;

/// The mode of the socket: only the owner and the group can connect.
const SOCKET_MODE: u32 = 0o660;

/// A request to reload the configuration: where the outcome is sent, or the reason in one line why nothing was changed.
pub type ReloadRequest = oneshot::Sender<Result<ReloadDocument, String>>;

/// A request to restart the daemon in place: where the reason is sent, in one line, why it was not restarted.
pub type RestartRequest = oneshot::Sender<String>;

/// A request of root.
#[derive(Debug)]
pub enum DaemonRequest {
    /// Reload the configuration.
    Reload(ReloadRequest),
    /// Restart the daemon in place.
    Restart(RestartRequest),
}

/// Binds the socket and returns the server, which the caller must spawn on the actors' thread. Requests of root are sent to
/// `requests`, orders of an operator to `orders`, and questions of `warren trace` to other nodes by `ask`.
///
/// # Errors
/// [`ControlError`]; nothing is served then.
pub fn serve(
    access: Access,
    clock: Clock,
    published: Published,
    (requests, orders, ask): (mpsc::Sender<DaemonRequest>, OperatorOrders, AskNextHop),
) -> Result<Server, ControlError> {
    let rejected_uids = access.rejected_uids.clone();
    let waiting = WaitingRequests::default();
    let make = move || {
        App::new()
            .app_data(web::Data::new(published.clone()))
            .app_data(web::Data::new(clock.clone()))
            .app_data(web::Data::new(requests.clone()))
            .app_data(web::Data::new(orders.clone()))
            .app_data(web::Data::new(waiting.clone()))
            .app_data(web::Data::new(ask.clone()))
            .route(STATUS_PATH, web::get().to(status))
            .route(TUNNELS_PATH, web::get().to(tunnels))
            .route(PEERS_PATH, web::get().to(peers))
            .route(NAMES_PATH, web::get().to(names))
            .route(ROUTES_PATH, web::get().to(routes))
            .route(DECISIONS_PATH, web::get().to(decisions))
            .route(EVENTS_PATH, web::get().to(events::events))
            .route(MAP_DOCUMENT_PATH, web::get().to(map))
            .route(MAP_PAGE_PATH, web::get().to(map::page))
            .route(MAP_UPDATE_PATH, web::get().to(map_update))
            .route(ECHO_PATH, web::post().to(echo::echo))
            .route(HOP_PATH, web::get().to(hop::hop))
            .route(RELOAD_PATH, web::post().to(reload))
            .route(RESTART_PATH, web::post().to(restart))
            .configure(operator::add_routes)
            .configure(add_panic_route)
            .default_service(web::to(not_found))
    };
    let listener = listen(&access)?;
    let server = HttpServer::new(make)
        .workers(1)
        .worker_max_blocking_threads(1)
        .disable_signals()
        .max_connections(MAX_CONNECTIONS)
        .client_request_timeout(REQUEST_TIMEOUT)
        .shutdown_timeout(1)
        .on_connect(move |connection, data| identify(connection, data, &rejected_uids))
        // With `bind_uds`, `on_connect` would never be called.
        .listen_uds(listener)
        .map_err(failed("listen at", &access.path))?;
    Ok(server.run())
}

/// Builds the error of an action on the socket's path.
fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ControlError {
    let path = path.to_owned();
    move |source| ControlError::Io { what, path, source }
}

/// Creates the socket; at no time can others connect.
fn listen(access: &Access) -> Result<UnixListener, ControlError> {
    check_unused(&access.path)?;
    let owner = (
        nix::unistd::geteuid().as_raw(),
        access.group.unwrap_or(nix::unistd::getegid().as_raw()),
    );
    files::listen(&access.path, files::Access::of(SOCKET_MODE, owner))
        .map_err(failed("bind", &access.path))
}

/// Checks that nothing is at the path but a socket on which no process listens.
fn check_unused(path: &Path) -> Result<(), ControlError> {
    let found = some_if_found(fs::symlink_metadata(path)).map_err(failed("inspect", path))?;
    let Some(found) = found else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(ControlError::NotASocket {
            path: path.to_owned(),
        });
    }
    if UnixStream::connect(path).is_ok() {
        return Err(ControlError::InUse {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// What the process at the other end of a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Root can also reload the configuration and restart the daemon.
    Root,
    /// Other users can read documents.
    Reader,
    Rejected,
}

impl Caller {
    /// Returns whether the process that sent a request may read documents.
    fn can_read(request: &HttpRequest) -> bool {
        matches!(request.conn_data::<Self>(), Some(Self::Root | Self::Reader))
    }
}

/// Determines the user at the other end of a connection by `SO_PEERCRED`, and stores whether it is allowed.
fn identify(connection: &dyn Any, data: &mut Extensions, rejected_uids: &[u32]) {
    let stream = connection.downcast_ref::<actix_web::rt::net::UnixStream>();
    let uid = stream
        .and_then(|stream| stream.peer_cred().ok())
        .map(|credentials| credentials.uid());
    data.insert(check_uid(uid, rejected_uids));
}

fn check_uid(uid: Option<u32>, rejected_uids: &[u32]) -> Caller {
    match uid {
        Some(0) => Caller::Root,
        Some(uid) if !rejected_uids.contains(&uid) => Caller::Reader,
        Some(_) | None => Caller::Rejected,
    }
}

fn problem(status: StatusCode, title: &str) -> HttpResponse {
    let document = Problem {
        status: status.as_u16(),
        title: title.to_owned(),
    };
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .body(json(&document))
}

fn json(document: &impl Serialize) -> String {
    // Serialisation cannot fail: the documents are plain structs with text keys.
    serde_json::to_string(document).unwrap_or_default()
}

/// Answers a request with a document from the newest snapshot, if the caller is allowed.
fn answer<D: Serialize>(
    request: &HttpRequest,
    published: &Published,
    clock: &Clock,
    build: impl Fn(&View) -> D,
) -> HttpResponse {
    if !Caller::can_read(request) {
        return problem(StatusCode::FORBIDDEN, "this user may not query the daemon");
    }
    let snapshot = published.load();
    let document = build(&View::new(&snapshot, clock));
    HttpResponse::Ok()
        .content_type("application/json")
        .body(json(&document))
}

/// Defines one request handler for each document.
macro_rules! documents {
    ($($name:ident)*) => {$(
        async fn $name(
            request: HttpRequest,
            published: web::Data<Published>,
            clock: web::Data<Clock>,
        ) -> HttpResponse {
            answer(&request, &published, &clock, |view| view.$name())
        }
    )*};
}

documents! { status tunnels peers names routes decisions map }

async fn map_update(
    request: HttpRequest,
    query: web::Query<EventQuery>,
    published: web::Data<Published>,
    clock: web::Data<Clock>,
) -> HttpResponse {
    answer(&request, &published, &clock, |view| {
        map::update_after(view, query.after)
    })
}

/// Waits until the daemon has reloaded its configuration.
async fn reload(
    request: HttpRequest,
    requests: web::Data<mpsc::Sender<DaemonRequest>>,
) -> HttpResponse {
    if request.conn_data::<Caller>() != Some(&Caller::Root) {
        return problem(StatusCode::FORBIDDEN, "only root may reload the daemon");
    }
    let (answer, outcome) = oneshot::channel();
    let request = DaemonRequest::Reload(answer);
    if requests.send(request).await.is_err() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
    }
    match outcome.await {
        Ok(Ok(document)) => HttpResponse::Ok()
            .content_type("application/json")
            .body(json(&document)),
        Ok(Err(reason)) => problem(StatusCode::UNPROCESSABLE_ENTITY, &reason),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping"),
    }
}

/// Waits until the daemon is replaced, which closes the connection, or could not be.
async fn restart(
    request: HttpRequest,
    requests: web::Data<mpsc::Sender<DaemonRequest>>,
) -> HttpResponse {
    if request.conn_data::<Caller>() != Some(&Caller::Root) {
        return problem(StatusCode::FORBIDDEN, "only root may restart the daemon");
    }
    let (answer, outcome) = oneshot::channel();
    let request = DaemonRequest::Restart(answer);
    if requests.send(request).await.is_err() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
    }
    match outcome.await {
        Ok(reason) => problem(StatusCode::CONFLICT, &reason),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping"),
    }
}

/// Adds the route `POST /v1/panics/ACTOR`, which makes an actor panic, to debug builds.
fn add_panic_route(service: &mut web::ServiceConfig) {
    if crate::guardian::panics::AVAILABLE {
        service.route("/v1/panics/{actor}", web::post().to(request_panic));
    }
}

async fn request_panic(request: HttpRequest, actor: web::Path<String>) -> HttpResponse {
    if !Caller::can_read(&request) {
        return problem(StatusCode::FORBIDDEN, "this user may not query the daemon");
    }
    crate::guardian::panics::request_panic(actor.into_inner());
    HttpResponse::Accepted().finish()
}

async fn not_found() -> HttpResponse {
    problem(StatusCode::NOT_FOUND, "there is no such document")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uid: Option<u32>, expected: Caller) {
        assert_eq!(check_uid(uid, &[64_001, 0]), expected);
    }

    #[test]
    fn children_and_unknown_users_are_rejected_and_root_never_is() {
        check(Some(64_001), Caller::Rejected);
        check(None, Caller::Rejected);
        check(Some(1_000), Caller::Reader);
        check(Some(0), Caller::Root);
    }
}
