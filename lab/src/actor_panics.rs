//! Makes actors of a daemon panic, which debug builds do on request, and reads how often each was restarted.

use crate::Node;
use anyhow::{Result, ensure};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

/// The metric that counts restarts of actors, with its first label.
const RESTARTS: &str = "warren_actor_restarts_total{actor=\"";

/// The number of restarts of each actor, as a node's metrics show them.
pub fn parse_restarts(metrics: &str) -> Vec<(String, u64)> {
    let parse_line = |line: &str| {
        let (actor, count) = line.strip_prefix(RESTARTS)?.split_once("\"} ")?;
        Some((actor.to_owned(), count.trim().parse().ok()?))
    };
    metrics.lines().filter_map(parse_line).collect()
}

/// Makes an actor panic.
///
/// # Errors
/// Fails if the daemon does not answer, or is no debug build.
pub fn make_panic(node: &Node, actor: &str) -> Result<()> {
    let mut stream = UnixStream::connect(node.root().join("run/warren/control.sock"))?;
    write!(
        stream,
        "POST /v1/panics/{actor} HTTP/1.0\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    ensure!(response.starts_with("HTTP/1.0 202"), "{actor}: {response}");
    Ok(())
}
