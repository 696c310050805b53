//! Sends requests to the running daemon over its control socket.
//!
//! Each call is one HTTP request without a body. This file knows the error document of `wire::control`, and not what the other documents mean.

use config::MetricsAddress;
use local_http::{Answer, Endpoint, Limits, RequestError};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use wire::control::Problem;

/// The daemon answers from a snapshot in memory, so a slower answer means that it hangs; 256 decisions are
/// about 100 kB.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(5),
    bytes: 16 << 20,
};

/// The daemon gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// Nothing listens on the socket.
    #[error("no daemon answers at {}: is warren running? (systemctl status warren)", socket.display())]
    NotRunning {
        /// The path of the control socket.
        socket: PathBuf,
    },
    /// The socket or the daemon does not admit this user.
    #[error("permission denied at {}: run this as root or as a member of the group warren", socket.display())]
    PermissionDenied {
        /// The path of the control socket.
        socket: PathBuf,
    },
    /// The daemon was too slow.
    #[error("the daemon did not answer within {} s", LIMITS.time.as_secs())]
    TimedOut,
    /// The answer is incomplete or too long, or is not HTTP.
    #[error("cannot read the answer of the daemon at {}", socket.display())]
    Failed {
        /// The path of the control socket.
        socket: PathBuf,
        /// The underlying error.
        #[source]
        source: RequestError,
    },
    /// The daemon answered with an error.
    #[error("the daemon answered with HTTP status {status}: {title}")]
    Rejected {
        /// The HTTP status, 100 to 599.
        status: u16,
        /// The daemon's explanation; empty if it sent none.
        title: String,
    },
    /// The answer is not the document that was asked for.
    #[error("the daemon's answer cannot be read: daemon and command may be of different versions")]
    InvalidDocument(#[source] serde_json::Error),
}

impl ControlError {
    /// Returns the exit code of the command.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotRunning { .. } => 3,
            Self::PermissionDenied { .. } => 4,
            Self::TimedOut => 5,
            Self::Failed { .. } | Self::Rejected { .. } | Self::InvalidDocument(_) => 1,
        }
    }

    fn from_request(source: RequestError, socket: &Path) -> Self {
        let socket = socket.to_owned();
        match source {
            RequestError::NotListening => Self::NotRunning { socket },
            RequestError::PermissionDenied => Self::PermissionDenied { socket },
            RequestError::TimedOut => Self::TimedOut,
            RequestError::TooLong(_)
            | RequestError::NotText
            | RequestError::Failed(_)
            | RequestError::Unprepared(_) => Self::Failed { socket, source },
        }
    }
}

/// Returns the body of the document at `path`.
///
/// # Errors
/// The daemon does not run, does not admit this user, or gives no complete answer.
pub(crate) fn get(socket: &Path, path: &str) -> Result<String, ControlError> {
    call(socket, "GET", path, LIMITS)
}

/// As [`get`], for an answer that the daemon may hold back for a while.
///
/// # Errors
/// As [`get`].
pub(crate) fn get_within(
    socket: &Path,
    path: &str,
    time: Duration,
) -> Result<String, ControlError> {
    call(socket, "GET", path, Limits { time, ..LIMITS })
}

/// Has the daemon do what `path` stands for, and returns the body of its answer.
///
/// # Errors
/// As [`get`], or the daemon rejects the request.
pub(crate) fn post(socket: &Path, path: &str) -> Result<String, ControlError> {
    call(socket, "POST", path, LIMITS)
}

/// As [`post`], for an answer that takes the daemon a while.
///
/// # Errors
/// As [`post`].
pub(crate) fn post_within(
    socket: &Path,
    path: &str,
    time: Duration,
) -> Result<String, ControlError> {
    call(socket, "POST", path, Limits { time, ..LIMITS })
}

fn call(socket: &Path, method: &str, path: &str, limits: Limits) -> Result<String, ControlError> {
    let answer = local_http::send(Endpoint::Unix(socket), method, path, None, limits)
        .map_err(|error| ControlError::from_request(error, socket))?;
    body_of_answer(answer, socket)
}

/// Returns the daemon's metrics, as a scrape gets them, or a sentence that says why there are none.
pub(crate) fn scrape(addresses: &[MetricsAddress]) -> String {
    let on_host = |address| match address {
        &MetricsAddress::Tcp(address) => Some(Endpoint::Tcp(address)),
        MetricsAddress::Unix(socket) => Some(Endpoint::Unix(socket)),
        MetricsAddress::Overlay(_) => None,
    };
    let Some(endpoint) = addresses.iter().find_map(on_host) else {
        return "metrics are off, or served in the network only".to_owned();
    };
    match local_http::send(endpoint, "GET", "/metrics", None, LIMITS) {
        Ok(answer) if answer.status == 200 => answer.body,
        Ok(answer) => format!("status {}: {}", answer.status, answer.body),
        Err(error) => error.to_string(),
    }
}

/// Returns the body if the status is 200, and otherwise what the status means.
fn body_of_answer(answer: Answer, socket: &Path) -> Result<String, ControlError> {
    let Answer { status, body } = answer;
    match status {
        200 => Ok(body),
        403 => Err(ControlError::PermissionDenied {
            socket: socket.to_owned(),
        }),
        _ => Err(ControlError::Rejected {
            status,
            title: serde_json::from_str(&body)
                .map(|problem: Problem| problem.title)
                .unwrap_or_default(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::control::STATUS_PATH;

    #[test]
    fn status_403_has_the_exit_code_of_permission_denied_and_another_error_the_general_one() {
        for (status, body, expected) in [
            (200, "{}", Ok("{}")),
            (403, "{\"status\":403,\"title\":\"no\"}", Err(4)),
            (404, "not json", Err(1)),
        ] {
            let answer = Answer {
                status,
                body: body.to_owned(),
            };
            let body = body_of_answer(answer, Path::new("/run/warren/control.sock"))
                .map_err(|error| error.exit_code());
            assert_eq!(body.as_deref().map_err(|code| *code), expected);
        }
    }

    #[test]
    fn a_missing_socket_means_that_the_daemon_does_not_run() {
        let error = get(Path::new("/nonexistent/control.sock"), STATUS_PATH).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("is warren running?"));
    }

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        for (error, code) in [
            (RequestError::NotListening, 3),
            (RequestError::PermissionDenied, 4),
            (RequestError::TimedOut, 5),
            (RequestError::TooLong(1), 1),
            (RequestError::NotText, 1),
        ] {
            let text = error.to_string();
            let error = ControlError::from_request(error, Path::new("/x"));
            assert_eq!(error.exit_code(), code, "{text}");
        }
    }
}
