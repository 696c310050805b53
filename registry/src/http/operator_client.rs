//! Makes the operator's calls over the Unix socket, for the command `warren registry`.

use local_http::{Endpoint, Limits, RequestError};
use serde::Serialize;
use std::{
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
    /// No complete answer came.
    #[error("the call to the registry at {} failed", path.display())]
    Failed {
        /// The path of the socket.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: RequestError,
    },
    /// The registry rejected the call.
    #[error("the registry rejected the request: {title}: {detail}")]
    Rejected {
        /// The kind of problem, in words that do not vary.
        title: String,
        /// The explanation of this occurrence, in words.
        detail: String,
    },
    /// The answer is not the expected document.
    #[error("the registry at {} sent an answer that cannot be read: is it of another version?", path.display())]
    Unreadable {
        /// The path of the socket.
        path: PathBuf,
    },
}

/// A list of 10,000 nodes is about 5 MB.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(10),
    bytes: 64 << 20,
};

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
    let unreadable = || AdminError::Unreadable {
        path: socket.to_owned(),
    };
    let sent = match document {
        Some(document) => Some(serde_json::to_string(document).map_err(|_| unreadable())?),
        None => None,
    };
    let answer = local_http::send(Endpoint::Unix(socket), method, call, sent, LIMITS)
        .map_err(|error| request_error(socket, error))?;
    if answer.status == 200 {
        return serde_json::from_str(&answer.body).map_err(|_| unreadable());
    }
    let Problem { title, detail, .. } =
        serde_json::from_str(&answer.body).map_err(|_| unreadable())?;
    Err(AdminError::Rejected { title, detail })
}

fn request_error(socket: &Path, source: RequestError) -> AdminError {
    let path = socket.to_owned();
    match source {
        RequestError::NotListening => AdminError::NotRunning { path },
        RequestError::PermissionDenied => AdminError::NoPermission { path },
        RequestError::TimedOut
        | RequestError::TooLong(_)
        | RequestError::NotText
        | RequestError::Failed(_)
        | RequestError::Unprepared(_) => AdminError::Failed { path, source },
    }
}
