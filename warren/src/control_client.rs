//! Sends requests to the running daemon over its control socket.
//!
//! Each call is one HTTP request without a body. This file knows the error document of `wire::control`, and not what the other documents mean.

use config::Metrics;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};
use wire::control::Problem;

/// Longest answer that is read; 256 decisions are about 100 kB.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// The daemon answers from a snapshot in memory, so a slower answer means that it hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

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
    #[error("the daemon did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    /// Another error of the socket.
    #[error("cannot ask the daemon at {}", socket.display())]
    Socket {
        /// The path of the control socket.
        socket: PathBuf,
        /// The error that the kernel returned.
        #[source]
        source: io::Error,
    },
    /// The answer is incomplete, or is not HTTP.
    #[error("the daemon's answer is incomplete")]
    Incomplete,
    /// The daemon answered with an error.
    #[error("the daemon answered with HTTP status {status}: {title}")]
    Rejected {
        /// The HTTP status as text.
        status: String,
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
            Self::Socket { .. }
            | Self::Incomplete
            | Self::Rejected { .. }
            | Self::InvalidDocument(_) => 1,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "io::ErrorKind is not exhaustive"
    )]
    fn from_io(source: io::Error, socket: &Path) -> Self {
        let socket = socket.to_owned();
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Self::NotRunning { socket },
            ErrorKind::PermissionDenied => Self::PermissionDenied { socket },
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Socket { socket, source },
        }
    }
}

/// Returns the body of the document at `path`.
///
/// # Errors
/// The daemon does not run, does not admit this user, or gives no complete answer.
pub(crate) fn get(socket: &Path, path: &str) -> Result<String, ControlError> {
    call(socket, "GET", path)
}

/// Has the daemon do what `path` stands for, and returns the body of its answer.
///
/// # Errors
/// As [`get`], or the daemon rejects the request.
pub(crate) fn post(socket: &Path, path: &str) -> Result<String, ControlError> {
    call(socket, "POST", path)
}

fn call(socket: &Path, method: &str, path: &str) -> Result<String, ControlError> {
    let io_error = |error: io::Error| ControlError::from_io(error, socket);
    let stream = UnixStream::connect(socket).map_err(io_error)?;
    stream
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .map_err(io_error)?;
    stream
        .set_write_timeout(Some(ANSWER_TIMEOUT))
        .map_err(io_error)?;
    let answer = exchange(stream, method, path).map_err(io_error)?;
    body_of_answer(&answer, socket)
}

/// Sends one HTTP request without a body, and returns the whole answer.
fn exchange(mut stream: impl Read + Write, method: &str, path: &str) -> io::Result<String> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: warren\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Returns the daemon's metrics, as a scrape gets them.
///
/// # Errors
/// They are not served, or not at this address.
pub(crate) fn scrape(metrics: &Metrics) -> io::Result<String> {
    let path = "/metrics";
    let answer = match metrics {
        Metrics::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, ANSWER_TIMEOUT)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            exchange(stream, "GET", path)?
        }
        Metrics::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            exchange(stream, "GET", path)?
        }
        Metrics::Off => return Err(io::Error::other("metrics are off")),
    };
    Ok(answer)
}

/// Returns the body, if it has the length that the header announces and the status is 200.
fn body_of_answer(answer: &str, socket: &Path) -> Result<String, ControlError> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(ControlError::Incomplete)?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .ok_or(ControlError::Incomplete)?;
    let content_length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    if content_length.is_some_and(|length| length != body.len()) {
        return Err(ControlError::Incomplete);
    }
    match status {
        "200" => Ok(body.to_owned()),
        "403" => Err(ControlError::PermissionDenied {
            socket: socket.to_owned(),
        }),
        _ => Err(ControlError::Rejected {
            status: status.to_owned(),
            title: serde_json::from_str(body)
                .map(|problem: Problem| problem.title)
                .unwrap_or_default(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::control::STATUS_PATH;

    #[track_caller]
    fn check(answer: &str, expected: Result<&str, u8>) {
        let body = body_of_answer(answer, Path::new("/run/warren/control.sock"))
            .map_err(|error| error.exit_code());
        assert_eq!(body.as_deref().map_err(|code| *code), expected);
    }

    #[test]
    fn a_complete_answer_gives_its_body_and_an_incomplete_one_an_error() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Ok("{}"));
        check("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", Err(1));
        check("HTTP/1.1 200", Err(1));
        check("", Err(1));
    }

    #[test]
    fn status_403_has_the_exit_code_of_permission_denied_and_another_error_the_general_one() {
        check(
            "HTTP/1.1 403 Forbidden\r\n\r\n{\"status\":403,\"title\":\"no\"}",
            Err(4),
        );
        check("HTTP/1.1 404 Not Found\r\n\r\nnot json", Err(1));
    }

    #[test]
    fn a_missing_socket_means_that_the_daemon_does_not_run() {
        let error = get(Path::new("/nonexistent/control.sock"), STATUS_PATH).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("is warren running?"));
    }

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        for (kind, code) in [
            (ErrorKind::ConnectionRefused, 3),
            (ErrorKind::PermissionDenied, 4),
            (ErrorKind::WouldBlock, 5),
            (ErrorKind::TimedOut, 5),
            (ErrorKind::BrokenPipe, 1),
        ] {
            let error = ControlError::from_io(io::Error::from(kind), Path::new("/x"));
            assert_eq!(error.exit_code(), code, "{kind}");
        }
    }
}
