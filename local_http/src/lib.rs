//! Sends one HTTP request to a process of this machine, over a Unix socket or TCP, and reads the answer up to
//! a stated size and within a stated time.
//!
//! The control socket, the registry's socket for its operator and the metrics are all read by [`send`]. It
//! blocks the calling thread and stays in it, so that a request is made in the network namespace of its caller.

use reqwest::{Client, ClientBuilder, Method, redirect};
use std::{
    error::Error,
    io::{self, ErrorKind},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// The place where the process listens.
#[derive(Clone, Copy, Debug)]
pub enum Endpoint<'a> {
    /// A Unix socket, by its path.
    Unix(&'a Path),
    /// A TCP port of an address.
    Tcp(SocketAddr),
}

/// How long a caller waits, and how much it reads.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time from the connect to the last byte of the answer.
    pub time: Duration,
    /// Largest number of bytes of the answer's body.
    pub bytes: usize,
}

/// The answer to a request, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status, 100 to 599.
    pub status: u16,
    /// The body; it is as long as the header announced.
    pub body: String,
}

/// The reason why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The socket does not exist, or nobody accepts connections.
    #[error("no process listens")]
    NotListening,
    /// The socket does not admit this user.
    #[error("permission denied")]
    PermissionDenied,
    /// The answer was not complete in time.
    #[error("no complete answer in time")]
    TimedOut,
    /// The answer is longer than the limit.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer is not UTF-8.
    #[error("the answer is not UTF-8")]
    NotText,
    /// The answer is incomplete or not HTTP, or the connection failed.
    #[error("the connection failed, or the answer is incomplete")]
    Failed(#[source] reqwest::Error),
    /// The method is not one of HTTP, or the kernel refused what a request needs, for example a descriptor.
    #[error("cannot prepare the request")]
    Unprepared(#[source] io::Error),
}

/// Sends a request and returns the answer, whatever its status.
///
/// `method` is `GET` or `POST`, and `path` begins with a slash. `document` is the body; the request has none if it is `None`.
///
/// # Errors
/// Nobody listens, this user is not admitted, or no complete answer came within `limits`.
///
/// # Panics
/// Within an asynchronous task: it blocks.
pub fn send(
    endpoint: Endpoint<'_>,
    method: &str,
    path: &str,
    document: Option<String>,
    limits: Limits,
) -> Result<Answer, RequestError> {
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|error| RequestError::Unprepared(io::Error::other(error)))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RequestError::Unprepared)?;
    runtime.block_on(exchange(endpoint, method, path, document, limits))
}

async fn exchange(
    endpoint: Endpoint<'_>,
    method: Method,
    path: &str,
    document: Option<String>,
    limits: Limits,
) -> Result<Answer, RequestError> {
    let url = match endpoint {
        Endpoint::Unix(_) => format!("http://localhost{path}"),
        Endpoint::Tcp(address) => format!("http://{address}{path}"),
    };
    let client = client(endpoint, limits.time).map_err(RequestError::from_library)?;
    let mut request = client.request(method, url);
    if let Some(document) = document {
        request = request.body(document);
    }
    let mut response = request.send().await.map_err(RequestError::from_library)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(RequestError::from_library)? {
        if body.len() + chunk.len() > limits.bytes {
            return Err(RequestError::TooLong(limits.bytes));
        }
        body.extend_from_slice(&chunk);
    }
    let body = String::from_utf8(body).map_err(|_| RequestError::NotText)?;
    Ok(Answer { status, body })
}

/// Makes a client that trusts no TLS authority, since it never uses TLS.
fn client(endpoint: Endpoint<'_>, time: Duration) -> Result<Client, reqwest::Error> {
    let mut builder = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(time);
    if let Some(tls) = tls_without_authorities() {
        builder = builder.tls_backend_preconfigured(tls);
    }
    let at_socket = |builder: ClientBuilder| match endpoint {
        Endpoint::Unix(socket) => builder.unix_socket(socket.to_owned()),
        Endpoint::Tcp(_) => builder,
    };
    at_socket(builder).build()
}

fn tls_without_authorities() -> Option<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Some(config)
}

impl RequestError {
    fn from_library(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let mut kind = None;
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            let of_kernel = error.downcast_ref::<io::Error>();
            kind = of_kernel.map(io::Error::kind).or(kind);
            cause = error.source();
        }
        match kind {
            Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Self::NotListening,
            Some(ErrorKind::PermissionDenied) => Self::PermissionDenied,
            _ => Self::Failed(error.without_url()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
        thread,
    };

    const LIMITS: Limits = Limits {
        time: Duration::from_secs(5),
        bytes: 8,
    };

    /// Answers one connection with `answer`, and returns what `send` made of it and the request that came.
    fn exchange_with(answer: &'static str) -> (Result<Answer, RequestError>, String) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n{}") {
                let mut bytes = [0; 4096];
                let length = stream.read(&mut bytes).unwrap();
                assert_ne!(length, 0, "the request is incomplete");
                request.extend(&bytes[..length]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        let document = Some("{}".to_owned());
        let answered = send(Endpoint::Unix(&socket), "POST", "/v1/x", document, LIMITS);
        (answered, server.join().unwrap())
    }

    #[test]
    fn a_request_carries_path_and_document_and_any_status_is_an_answer() {
        let (answered, request) =
            exchange_with("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
        let expected = Answer {
            status: 403,
            body: "no".to_owned(),
        };
        assert_eq!(answered.unwrap(), expected);
        assert!(request.starts_with("POST /v1/x HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{}"), "{request}");
    }

    #[test]
    fn a_redirect_is_an_answer_and_is_not_followed() {
        let (answered, _) = exchange_with(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        );
        assert_eq!(answered.unwrap().status, 302);
    }

    #[test]
    fn a_truncated_answer_is_an_error() {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            "HTTP/1.1 200",
            "220 smtp\r\n",
            "",
        ] {
            let (answered, _) = exchange_with(answer);
            assert!(matches!(answered, Err(RequestError::Failed(_))), "{answer}");
        }
    }

    #[test]
    fn an_answer_longer_than_the_limit_is_not_read() {
        let (answered, _) = exchange_with("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789");
        assert!(matches!(answered, Err(RequestError::TooLong(8))));
    }

    #[test]
    fn a_missing_socket_and_a_closed_port_have_no_listener() {
        let nowhere = Path::new("/nonexistent/control.sock");
        for endpoint in [
            Endpoint::Unix(nowhere),
            Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], 1))),
        ] {
            let answered = send(endpoint, "GET", "/", None, LIMITS);
            assert!(
                matches!(answered, Err(RequestError::NotListening)),
                "{answered:?}"
            );
        }
    }

    #[test]
    fn a_silent_listener_ends_in_a_timeout() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let limits = Limits {
            time: Duration::from_millis(50),
            ..LIMITS
        };
        let answered = send(Endpoint::Unix(&socket), "GET", "/", None, limits);
        assert!(
            matches!(answered, Err(RequestError::TimedOut)),
            "{answered:?}"
        );
    }
}
