//! The operator's calls over a Unix socket: serves them to root and to the registry's own user, and
//! makes them for the command.

use crate::{
    api::{No, SharedDesk, body, lock, no},
    desk::Refusal,
};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};
use wire::registry::{Problem, VERSION};

/// `POST /v1/invitations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// How long it is good, in seconds.
    pub ttl_s: i64,
}

/// The answer to [`Invite`]; also what `--json` prints.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// 1.
    pub version: u32,
    /// `warren://…`, good for one node.
    pub invitation: String,
    /// RFC 3339 UTC.
    pub expires: String,
}

/// A certificate in the answer to `GET /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Whose.
    pub prefix: String,
    /// Lower-case hex.
    pub serial: String,
    /// RFC 3339 UTC.
    pub expires: String,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// The answer to `GET /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// 1.
    pub version: u32,
    /// By prefix.
    pub nodes: Vec<Listed>,
}

/// `POST /v1/revocations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Whose certificates.
    pub prefix: String,
}

/// The answer to [`Revoke`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedNode {
    /// 1.
    pub version: u32,
    /// How many certificates were live.
    pub certificates: usize,
}

/// The other end of the Unix socket may administer: put there when it connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operator;

fn check(request: &HttpRequest) -> Result<(), No> {
    let stranger =
        || no(StatusCode::FORBIDDEN, "not an operator", "root or the registry's user".into(), None);
    request.conn_data::<Operator>().map(|_| ()).ok_or_else(stranger)
}

/// The longest an invitation may be good: ten years.
const LONGEST_TTL_S: i64 = 10 * 365 * 86_400;

async fn invite(
    request: HttpRequest,
    bytes: web::Bytes,
    desk: web::Data<SharedDesk>,
) -> Result<HttpResponse, No> {
    check(&request)?;
    let Invite { ttl_s } = body(&bytes)?;
    if !(1..=LONGEST_TTL_S).contains(&ttl_s) {
        let detail = format!("{ttl_s} is not in 1 to {LONGEST_TTL_S}");
        return Err(no(StatusCode::UNPROCESSABLE_ENTITY, "out of range", detail, Some("ttl_s")));
    }
    let (invitation, expires) = lock(&desk).invite(ttl_s)?;
    Ok(HttpResponse::Ok().json(Invited { version: VERSION, invitation: invitation.to_string(), expires }))
}

async fn list(request: HttpRequest, desk: web::Data<SharedDesk>) -> Result<HttpResponse, No> {
    check(&request)?;
    let members = lock(&desk).members()?.into_iter();
    let nodes = members.map(|(member, expires)| Listed {
        prefix: member.prefix.to_string(),
        serial: member.serial,
        expires,
        revoked: member.revoked_s.is_some(),
    });
    Ok(HttpResponse::Ok().json(Listing { version: VERSION, nodes: nodes.collect() }))
}

async fn revoke(
    request: HttpRequest,
    bytes: web::Bytes,
    desk: web::Data<SharedDesk>,
) -> Result<HttpResponse, No> {
    check(&request)?;
    let Revoke { prefix } = body(&bytes)?;
    let prefix = prefix.parse().map_err(|error: policies::names::BadName| {
        no(StatusCode::UNPROCESSABLE_ENTITY, "no prefix", error.to_string(), Some("prefix"))
    })?;
    let certificates = lock(&desk).revoke(prefix).map_err(|refusal: Refusal| No::from(refusal))?;
    Ok(HttpResponse::Ok().json(RevokedNode { version: VERSION, certificates }))
}

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/v1/invitations").route(web::post().to(invite)))
        .service(web::resource("/v1/nodes").route(web::get().to(list)))
        .service(web::resource("/v1/revocations").route(web::post().to(revoke)));
}

/// Why the operator's call failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens.
    #[error("the registry does not run: nobody listens at {}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// Not for us.
    #[error("no permission to use {}", path.display())]
    NoPermission {
        /// The socket.
        path: PathBuf,
    },
    /// The call broke off.
    #[error("cannot talk to the registry at {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error("the registry says: {title}: {detail}")]
    No {
        /// Always the same for the same problem.
        title: String,
        /// In words.
        detail: String,
    },
    /// Not HTTP, or not the document expected.
    #[error("the registry at {} gave an answer that cannot be read", path.display())]
    Unreadable {
        /// The socket.
        path: PathBuf,
    },
}

/// Longest answer that is read.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;

/// Makes one of the operator's calls.
///
/// # Errors
/// Nobody listens, the answer is no, or it cannot be read.
pub fn ask<T: serde::de::DeserializeOwned>(
    socket: &Path,
    method: &str,
    call: &str,
    document: Option<&impl Serialize>,
) -> Result<T, AdminError> {
    let path = || socket.to_owned();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AdminError::NotRunning { path: path() },
        io::ErrorKind::PermissionDenied => AdminError::NoPermission { path: path() },
        _ => AdminError::Io { path: path(), source },
    };
    let unreadable = || AdminError::Unreadable { path: path() };
    let sent = match document {
        Some(document) => serde_json::to_string(document).map_err(|_| unreadable())?,
        None => String::new(),
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    let length = sent.len();
    let head = format!("{method} {call} HTTP/1.1\r\nhost: registry\r\nconnection: close\r\n");
    stream.write_all(format!("{head}content-length: {length}\r\n\r\n{sent}").as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.take(ANSWER_LIMIT).read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unreadable)?;
    let status = head.split(' ').nth(1).ok_or_else(unreadable)?;
    if status == "200" {
        return serde_json::from_str(body).map_err(|_| unreadable());
    }
    let Problem { title, detail, .. } = serde_json::from_str(body).map_err(|_| unreadable())?;
    Err(AdminError::No { title, detail })
}
