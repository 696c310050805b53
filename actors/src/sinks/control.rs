//! Serves the documents of `wire::control` on a Unix socket, to root and the socket's group.
//!
//! Who may connect the kernel decides by the socket's mode (0660) and group; the users that children
//! run as are refused besides, even where they were put into that group. Answers come from what
//! telemetry published; no actor is asked.

mod documents;

use crate::sinks::telemetry::Published;
use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Extensions, Server},
    http::StatusCode,
    web,
};
use documents::View;
use nix::sys::stat::{Mode, umask};
use os::clock::Clock;
use serde::Serialize;
use std::{
    any::Any,
    fs, io,
    os::unix::{
        fs::{FileTypeExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};
use wire::control::{DECISIONS_PATH, PEERS_PATH, Problem, ROUTES_PATH, STATUS_PATH, TUNNELS_PATH};
use wire::errors::some_if_found;

/// The socket, and the users that may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The socket; a dead one at that path is replaced.
    pub path: PathBuf,
    /// Group of the socket; `None`: the daemon's own.
    pub group: Option<u32>,
    /// Users that children run as: refused.
    pub refused: Vec<u32>,
}

/// The control socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Something else lies at the path.
    #[error("{path} is there and is no socket")]
    NoSocket {
        /// The path of the file.
        path: PathBuf,
    },
    /// A daemon answers at the path.
    #[error("another daemon answers at {path}")]
    UpdateOutcome {
        /// The path of the file.
        path: PathBuf,
    },
    /// The socket cannot be made, or its rights not be set.
    #[error("cannot {what} {path}")]
    Io {
        /// `look at`, `remove`, `bind` ….
        what: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
}

/// A client that has not sent its request by then is sent away.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Clients that may be connected at once.
const CONNECTIONS: usize = 32;

/// Mode of the socket: the owner and the group.
const MODE: u32 = 0o660;

/// Binds and returns the server: spawn it on the actors' thread, and stop it by its handle.
///
/// # Errors
/// [`ControlError`], before anything is served.
pub fn serve(access: Access, clock: Clock, published: Published) -> Result<Server, ControlError> {
    let refused = access.refused.clone();
    let make = move || {
        App::new()
            .app_data(web::Data::new(published.clone()))
            .app_data(web::Data::new(clock.clone()))
            .route(STATUS_PATH, web::get().to(status))
            .route(TUNNELS_PATH, web::get().to(tunnels))
            .route(PEERS_PATH, web::get().to(peers))
            .route(ROUTES_PATH, web::get().to(routes))
            .route(DECISIONS_PATH, web::get().to(decisions))
            .configure(panics)
            .default_service(web::to(nothing_there))
    };
    let listener = listen(&access)?;
    let server = HttpServer::new(make)
        .workers(1)
        .worker_max_blocking_threads(1)
        .disable_signals()
        .max_connections(CONNECTIONS)
        .client_request_timeout(REQUEST_TIMEOUT)
        .shutdown_timeout(1)
        .on_connect(move |connection, data| admit(connection, data, &refused))
        // `bind_uds` would never call `on_connect`.
        .listen_uds(listener)
        .map_err(failed("listen at", &access.path))?;
    Ok(server.run())
}

/// What was tried at the path when it failed.
fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ControlError {
    let path = path.to_owned();
    move |source| ControlError::Io { what, path, source }
}

/// Makes the socket; from its first moment it has its final mode, so that others never could connect.
fn listen(access: &Access) -> Result<UnixListener, ControlError> {
    clear(&access.path)?;
    let before = umask(!Mode::from_bits_truncate(MODE));
    let bound = UnixListener::bind(&access.path);
    umask(before);
    let listener = bound.map_err(failed("bind", &access.path))?;
    chown(&access.path, None, access.group).map_err(failed("set the group of", &access.path))?;
    Ok(listener)
}

/// Removes a socket that nobody listens on.
fn clear(path: &Path) -> Result<(), ControlError> {
    let found = some_if_found(fs::symlink_metadata(path)).map_err(failed("look at", path))?;
    let Some(found) = found else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(ControlError::NoSocket {
            path: path.to_owned(),
        });
    }
    if UnixStream::connect(path).is_ok() {
        return Err(ControlError::UpdateOutcome {
            path: path.to_owned(),
        });
    }
    fs::remove_file(path).map_err(failed("remove", path))
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Admitted,
    Refused,
}

/// Judges a connection by the kernel's word (`SO_PEERCRED`); without it nobody is let in.
fn admit(connection: &dyn Any, data: &mut Extensions, refused: &[u32]) {
    let stream = connection.downcast_ref::<actix_web::rt::net::UnixStream>();
    let uid = stream
        .and_then(|stream| stream.peer_cred().ok())
        .map(|credentials| credentials.uid());
    data.insert(judge(uid, refused));
}

fn judge(uid: Option<u32>, refused: &[u32]) -> Caller {
    match uid {
        Some(0) => Caller::Admitted,
        Some(uid) if !refused.contains(&uid) => Caller::Admitted,
        Some(_) | None => Caller::Refused,
    }
}

fn problem(status: StatusCode, title: &str) -> HttpResponse {
    let document = Problem {
        status: status.as_u16(),
        title: title.to_owned(),
    };
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .body(text(&document))
}

fn text(document: &impl Serialize) -> String {
    // Plain structs with text keys always become JSON.
    serde_json::to_string(document).unwrap_or_default()
}

/// Answers an admitted caller with a document made of the newest snapshot.
fn answer<D: Serialize>(
    request: &HttpRequest,
    published: &Published,
    clock: &Clock,
    make: impl Fn(&View) -> D,
) -> HttpResponse {
    match request.conn_data::<Caller>() {
        Some(Caller::Admitted) => {}
        Some(Caller::Refused) | None => {
            return problem(StatusCode::FORBIDDEN, "this user may not ask the daemon");
        }
    }
    let snapshot = published.load();
    let document = make(&View::new(&snapshot, clock));
    HttpResponse::Ok()
        .content_type("application/json")
        .body(text(&document))
}

/// One handler a document.
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

documents! { status tunnels peers routes decisions }

/// In debug builds, `POST /v1/panics/ACTOR` lets an actor panic.
fn panics(to: &mut web::ServiceConfig) {
    if crate::guardian::panics::AVAILABLE {
        to.route("/v1/panics/{actor}", web::post().to(want_panic));
    }
}

async fn want_panic(request: HttpRequest, actor: web::Path<String>) -> HttpResponse {
    if request.conn_data::<Caller>() != Some(&Caller::Admitted) {
        return problem(StatusCode::FORBIDDEN, "this user may not ask the daemon");
    }
    crate::guardian::panics::want(actor.into_inner());
    HttpResponse::Accepted().finish()
}

async fn nothing_there() -> HttpResponse {
    problem(StatusCode::NOT_FOUND, "there is no such document")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uid: Option<u32>, expected: Caller) {
        assert_eq!(judge(uid, &[64_001, 0]), expected);
    }

    #[test]
    fn children_and_strangers_without_a_name_are_refused_and_root_never() {
        check(Some(64_001), Caller::Refused);
        check(None, Caller::Refused);
        check(Some(1_000), Caller::Admitted);
        check(Some(0), Caller::Admitted);
    }
}
