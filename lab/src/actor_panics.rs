//! Makes actors of a daemon panic, which debug builds do on request, and reads how often each was restarted.

use crate::{Node, wait::wait_until};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

/// The actor that counts the others' restarts, and therefore not its own.
pub const COUNTING_ACTOR: &str = "telemetry";
/// Longest wait until an actor that panicked is restarted.
const RESTART_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Makes each actor of a node panic once, one after the other; returns how many there are, and the longest time until one was restarted.
///
/// # Errors
/// Fails if the daemon does not answer, is no debug build, or does not restart an actor.
pub fn make_each_panic(node: &Node) -> Result<(usize, Duration)> {
    let actors = parse_restarts(&node.scrape()?);
    ensure!(actors.len() > 10, "the metrics have only {actors:?}");
    let mut longest = Duration::ZERO;
    for (actor, _) in &actors {
        let start = Instant::now();
        make_panic(node, actor)?;
        wait_for_restart(node, actor)?;
        longest = longest.max(start.elapsed());
    }
    Ok((actors.len(), longest))
}

/// Waits until the actor's restart is logged and counted.
fn wait_for_restart(node: &Node, actor: &str) -> Result<()> {
    let actor_field = format!("actor=\"{actor}\"");
    let has_restarted = || {
        let log = fs::read_to_string(node.log_file()).ok()?;
        let mut errors = log.lines().filter(|line| line.contains("ERROR"));
        let is_logged = errors.any(|line| line.contains(&actor_field));
        let is_counted = parse_restarts(&node.scrape().ok()?).contains(&(actor.to_owned(), 1));
        (is_logged && (is_counted || actor == COUNTING_ACTOR)).then_some(())
    };
    wait_until(RESTART_TIMEOUT, has_restarted)
        .with_context(|| node.describe(&format!("did not restart {actor}")))
}
