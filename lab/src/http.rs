//! Sends one `GET` on a Unix socket or inside a namespace.

use crate::netns;
use anyhow::{Context, Result, ensure};
use local_http::{Endpoint, Limits};
use std::{net::SocketAddr, path::Path, sync::Once, time::Duration};

/// Whether tokio has been used outside the namespaces.
static FIRST_RUNTIME: Once = Once::new();

/// A node's responses are smaller, and it answers from memory.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(5),
    bytes: 64 << 20,
};

/// Sends `GET path` on a Unix socket and returns the body.
///
/// # Errors
/// Fails if nothing answers, or if the status is not 200.
pub fn get_unix(socket: &Path, path: &str) -> Result<String> {
    get(Endpoint::Unix(socket), path)
        .with_context(|| format!("GET {path} on {} failed", socket.display()))
}

/// Sends `GET path` to an address inside a namespace and returns the body.
///
/// # Errors
/// Fails if nothing answers, or if the status is not 200.
pub fn get_inside(namespace: &str, address: SocketAddr, path: &str) -> Result<String> {
    // With the first runtime of a process, tokio creates a pair of sockets that stays, and that must belong to no node.
    FIRST_RUNTIME.call_once(|| drop(get(Endpoint::Unix(Path::new("/dev/null")), "/")));
    netns::run_inside(namespace, || get(Endpoint::Tcp(address), path))
        .with_context(|| format!("GET {path} from {address} in {namespace} failed"))
}

fn get(endpoint: Endpoint<'_>, path: &str) -> Result<String> {
    let answer = local_http::send(endpoint, "GET", path, None, LIMITS)?;
    ensure!(
        answer.status == 200,
        "the response has status {}: {}",
        answer.status,
        answer.body.trim()
    );
    Ok(answer.body)
}
