//! Makes the operator's calls over the Unix socket, for the command.

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
    /// The registry does not run.
    #[error("the registry does not run: nobody listens at {}", path.display())]
    NotRunning {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The user may not use the socket.
    #[error("no permission to use {}", path.display())]
    NoPermission {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The call broke off.
    #[error("cannot talk to the registry at {}", path.display())]
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
        /// Always the same for the same problem.
        title: String,
        /// The explanation, in words.
        detail: String,
    },
    /// The answer is not HTTP, or not the expected document.
    #[error("the registry at {} gave an answer that cannot be read", path.display())]
    Unreadable {
        /// The path of the socket.
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
