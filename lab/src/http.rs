//! Sends one `GET` over HTTP/1.0, on a Unix socket or inside a namespace, and reads the whole response.

use crate::netns;
use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Longest time for one connect, read or write.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that are read of a response; a node's responses are smaller.
const MAX_RESPONSE_BYTES: u64 = 64 << 20;

/// Sends `GET path` on a Unix socket and returns the body.
///
/// # Errors
/// Fails if nothing answers, or if the status is not 200.
pub fn get_unix(socket: &Path, path: &str) -> Result<String> {
    let request = || {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        stream.set_write_timeout(Some(IO_TIMEOUT))?;
        get(stream, path)
    };
    request().with_context(|| format!("GET {path} on {} failed", socket.display()))
}

/// Sends `GET path` to an address inside a namespace and returns the body.
///
/// # Errors
/// Fails if nothing answers, or if the status is not 200.
pub fn get_inside(namespace: &str, address: SocketAddr, path: &str) -> Result<String> {
    let request = || {
        let stream = TcpStream::connect_timeout(&address, IO_TIMEOUT)?;
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        stream.set_write_timeout(Some(IO_TIMEOUT))?;
        get(stream, path)
    };
    netns::run_inside(namespace, request)
        .with_context(|| format!("GET {path} from {address} in {namespace} failed"))
}

fn get(mut stream: impl Read + Write, path: &str) -> Result<String> {
    // In version 1.0 the response ends with the connection and is never sent in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: warren\r\n\r\n")?;
    let mut response = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut response)?;
    let response = String::from_utf8(response).context("the response is not UTF-8")?;
    let Some((head, body)) = response.split_once("\r\n\r\n") else {
        bail!("the response has no body")
    };
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(
        status == "200",
        "the response has status {status}: {}",
        body.trim()
    );
    Ok(body.to_owned())
}
