//! Asks one question over HTTP/1.0, on a Unix socket or inside a namespace, and reads the whole answer.

use crate::ip;
use anyhow::{Context, Result, bail};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// How long one read or write may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer of a node.
const LONGEST: u64 = 64 << 20;

/// `GET path` on a Unix socket.
///
/// # Errors
/// Where nobody answers, or not with status 200.
pub fn get_unix(socket: &Path, path: &str) -> Result<String> {
    let context = || format!("cannot ask {} for {path}", socket.display());
    let stream = UnixStream::connect(socket).with_context(context)?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .with_context(context)?;
    stream
        .set_write_timeout(Some(PATIENCE))
        .with_context(context)?;
    exchange(stream, path).with_context(context)
}

/// `GET path` at an address inside a namespace.
///
/// # Errors
/// Where nobody answers, or not with status 200.
pub fn get_inside(namespace: &str, address: SocketAddr, path: &str) -> Result<String> {
    let context = || format!("cannot ask {address} in {namespace} for {path}");
    ip::inside(namespace, || {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(context)?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .with_context(context)?;
        stream
            .set_write_timeout(Some(PATIENCE))
            .with_context(context)?;
        exchange(stream, path).with_context(context)
    })
}

fn exchange(mut stream: impl Read + Write, path: &str) -> Result<String> {
    // In version 1.0 the answer ends with the connection and is never sent in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: warren\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).context("the answer is not UTF-8")?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("the answer has no body")
    };
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("the answer has status {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}
