//! Stops the node in order: traffic first, then babeld, then OpenVPN, then what the host was given.

use crate::wiring::Graph;
use actors::effects::tunnels::{DrainAll, StopAll};
use actors::sources::babeld::StopBabeld;
use config::paths::Paths;
use os::{clock::Clock, kernel::Kernel};
use policies::parameters::DRAIN_DEADLINE;
use std::{fs, time::Duration};
use wire::errors::{Chain, ignore_not_found};

/// How often it is looked whether a step is done.
const LOOK: Duration = Duration::from_millis(100);

/// Transit has moved away once no more than this many packets were forwarded in [`QUIET_SPAN`].
const QUIET_PACKETS: u64 = 2;

/// The span over which [`QUIET_PACKETS`] are counted.
const QUIET_SPAN: Duration = Duration::from_secs(1);

/// The deadline of the children's exit. babeld retracts its routes and exits in 10 ms (measured),
/// OpenVPN, which notifies its peers, in 1.1 s. Both are killed after 2 s; the rest is for reaping
/// them.
const CHILDREN: Duration = Duration::from_secs(4);

/// The gateway gets this long to remove our mappings; after that they expire by themselves.
const LEASE_RELEASE_TIMEOUT: Duration = Duration::from_secs(4);

impl Graph {
    /// Opens nothing new from now on, and takes Babel off all tunnels.
    fn drain_all(&self) {
        self.drain_all.do_send(DrainAll);
    }

    /// Returns whether any tunnel exists.
    fn has_tunnels(&self) -> bool {
        !self.store.tunnels.borrow().tunnels.is_empty()
    }

    /// Stops babeld, which retracts its routes.
    fn stop_babeld(&self) {
        self.stop_babeld.do_send(StopBabeld);
    }

    fn has_babeld_exited(&self) -> bool {
        self.routing
            .reading()
            .is_none_or(|babeld| babeld.pid.is_none())
    }

    /// Stops all OpenVPN processes.
    fn stop_tunnels(&self) {
        self.end_all.do_send(StopAll);
    }

    fn have_tunnels_exited(&self) -> bool {
        self.connections.have_all_exited()
    }

    /// Removes our port mappings from the gateway, within [`LEASE_RELEASE_TIMEOUT`].
    async fn release_leases(&self) {
        let Some(keeper) = &self.leases else { return };
        match tokio::time::timeout(LEASE_RELEASE_TIMEOUT, keeper.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %Chain(&error), "port mappings not removed; they expire by themselves");
            }
            Err(_) => {
                tracing::warn!(
                    "the gateway did not answer; its port mappings expire by themselves"
                );
            }
        }
    }
}

/// Drains all tunnels until nobody's traffic passes through us, at most [`DRAIN_DEADLINE`].
pub async fn drain(graph: &Graph, clock: &Clock) {
    graph.drain_all();
    let started = clock.now();
    let mut quiet_since = started;
    let mut last = forwarded();
    while clock.now().since(started) < DRAIN_DEADLINE && graph.has_tunnels() {
        tokio::time::sleep(LOOK).await;
        let now = forwarded();
        if now.saturating_sub(last) > QUIET_PACKETS {
            (quiet_since, last) = (clock.now(), now);
        }
        if clock.now().since(quiet_since) >= QUIET_SPAN {
            tracing::info!(
                seconds = clock.now().since(started).as_secs_f32(),
                "no transit left"
            );
            return;
        }
    }
}

/// Packets that this host forwarded since it booted (`Ip6OutForwDatagrams`, RFC 4293).
fn forwarded() -> u64 {
    let text = fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
    let mut lines = text
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    let found = lines.find(|(name, _)| *name == "Ip6OutForwDatagrams");
    found
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Ends all children, and takes back what the host was given.
pub async fn end(graph: &Graph, clock: &Clock, kernel: &Kernel, paths: &Paths) {
    graph.stop_babeld();
    wait(clock, || graph.has_babeld_exited()).await;
    graph.stop_tunnels();
    tokio::join!(
        wait(clock, || graph.have_tunnels_exited()),
        graph.release_leases()
    );
    match kernel.sweep(&paths.sysctls()).await {
        Ok(swept) => tracing::info!(?swept, "host restored"),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "host not restored; the next start will")
        }
    }
    for path in [paths.run().join("child"), paths.tun_node()] {
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        if let Err(error) = ignore_not_found(removed) {
            tracing::warn!(path = %path.display(), %error, "cannot remove");
        }
    }
    for path in [paths.control(), paths.pid_file()] {
        let _ = fs::remove_file(path);
    }
}

async fn wait(clock: &Clock, done: impl Fn() -> bool) {
    let started = clock.now();
    while !done() && clock.now().since(started) < CHILDREN {
        tokio::time::sleep(LOOK).await;
    }
}
