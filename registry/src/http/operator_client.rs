//! Makes the operator's calls over the Unix socket, for the command `warren registry`.

use serde::Serialize;
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};
use wire::registry::Problem;

/// The reason why the operator's call failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No registry listens at the socket.
    #[error("the registry does not run: no process listens at {}; start it with `warren registry run`", path.display())]
    NotRunning {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The user may not use the socket.
    #[error("no permission to use {}: become root or the registry's user", path.display())]
    NoPermission {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The connection to the registry failed during the call.
    #[error("the connection to the registry at {} failed", path.display())]
    Io {
        /// The path of the socket.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
    /// The registry rejected the call.
    #[error("the registry rejected the request: {title}: {detail}")]
    Rejected {
        /// The kind of problem, in words that do not vary.
        title: String,
        /// The explanation of this occurrence, in words.
        detail: String,
    },
    /// The answer is not HTTP, or not the expected document.
    #[error("the registry at {} sent an answer that cannot be read: is it of another version?", path.display())]
    Unreadable {
        /// The path of the socket.
        path: PathBuf,
    },
}

/// Largest number of bytes of an answer that are read.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;

/// Makes one of the operator's calls.
///
/// # Errors
/// The registry does not run, rejects the call, or sends an answer that cannot be read.
pub fn ask<T: serde::de::DeserializeOwned>(
    socket: &Path,
    method: &str,
    call: &str,
    document: Option<&impl Serialize>,
) -> Result<T, AdminError> {
    let path = || socket.to_owned();
    let failed = |source: io::Error| socket_error(path(), source);
    let unreadable = || AdminError::Unreadable { path: path() };
    let sent = match document {
        Some(document) => serde_json::to_string(document).map_err(|_| unreadable())?,
        None => String::new(),
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .map_err(failed)?;
    let length = sent.len();
    let head = format!("{method} {call} HTTP/1.1\r\nhost: registry\r\nconnection: close\r\n");
    stream
        .write_all(format!("{head}content-length: {length}\r\n\r\n{sent}").as_bytes())
        .map_err(failed)?;
    let mut answer = String::new();
    stream
        .take(ANSWER_LIMIT)
        .read_to_string(&mut answer)
        .map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unreadable)?;
    let status = head.split(' ').nth(1).ok_or_else(unreadable)?;
    if status == "200" {
        return serde_json::from_str(body).map_err(|_| unreadable());
    }
    let Problem { title, detail, .. } = serde_json::from_str(body).map_err(|_| unreadable())?;
    Err(AdminError::Rejected { title, detail })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "io::ErrorKind is not exhaustive"
)]
fn socket_error(path: PathBuf, source: io::Error) -> AdminError {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AdminError::NotRunning { path }
        }
        io::ErrorKind::PermissionDenied => AdminError::NoPermission { path },
        _ => AdminError::Io { path, source },
    }
}
