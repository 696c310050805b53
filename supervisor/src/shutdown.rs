//! Stops the node in order: drains all tunnels, stops babeld, stops OpenVPN, and restores the host.

use crate::{graph::Graph, host::remove_runtime_files};
use actors::{
    effects::tunnels::{DrainAll, StopAll},
    sources::{
        babeld::StopBabeld,
        pinholes::keeper::PinholeKeeper,
        port_mapping::{
            default_gateway::DefaultGateway,
            keeper::{Keeper, LeaseError},
        },
    },
};
use config::paths::Paths;
use os::{clock::Clock, kernel::Kernel};
use policies::parameters::DRAIN_DEADLINE;
use std::{fs, time::Duration};
use wire::errors::Chain;

/// Interval at which it is checked whether a step is complete.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Number of packets that may still be forwarded within [`QUIET_TIME`] when all transit traffic has moved away.
const MAX_QUIET_PACKETS: u64 = 2;

/// The time within which at most [`MAX_QUIET_PACKETS`] must be forwarded.
const QUIET_TIME: Duration = Duration::from_secs(1);

/// Time within which all children must exit. babeld retracts its routes and exits within 10 ms (measured);
/// OpenVPN, which notifies its peers, exits within 1.1 s. A child that still runs after 2 s is killed, and the
/// other 2 s are for reaping it.
const EXIT_TIMEOUT: Duration = Duration::from_secs(4);

/// Time within which the gateway must remove the port mappings; after that they expire by themselves.
const LEASE_RELEASE_TIMEOUT: Duration = Duration::from_secs(4);

impl Graph {
    /// Drains all tunnels; from now on no tunnel is opened or accepted.
    fn drain_all(&self) {
        self.drain_all.do_send(DrainAll);
    }

    /// Returns whether any tunnel exists.
    fn has_tunnels(&self) -> bool {
        !self.store.tunnels.borrow().tunnels.is_empty()
    }

    /// Stops babeld, which retracts its routes before it exits.
    fn stop_babeld(&self) {
        self.stop_babeld.do_send(StopBabeld);
    }

    fn has_babeld_exited(&self) -> bool {
        self.babeld_process
            .reading()
            .is_none_or(|babeld| babeld.pid.is_none())
    }

    /// Stops all OpenVPN processes.
    fn stop_tunnels(&self) {
        self.stop_all.do_send(StopAll);
    }

    fn have_tunnels_exited(&self) -> bool {
        self.connections.have_all_exited()
    }

    /// Removes this node's port mappings from the gateway, if it has any.
    async fn release_leases(&self) {
        let Some(keeper) = &self.leases else { return };
        if let Err(error) = release_leases(keeper).await {
            tracing::warn!(error = %Chain(&error), "port mappings not removed; they expire by themselves");
        }
    }
}

/// Ends the pinholes of a node, within [`LEASE_RELEASE_TIMEOUT`].
pub(crate) async fn release_pinholes(keeper: &PinholeKeeper) {
    let released = tokio::time::timeout(LEASE_RELEASE_TIMEOUT, keeper.release()).await;
    match released {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = %Chain(&error), "the router's firewall was not closed; that expires by itself");
        }
        Err(_) => {
            tracing::warn!(
                "the router did not answer, so its firewall stays open until that expires"
            );
        }
    }
}

/// The reason why port mappings were not removed from the gateway.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    /// The gateway was not found or rejected a request, or the ledger could not be read.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The gateway did not answer within [`LEASE_RELEASE_TIMEOUT`].
    #[error("the gateway did not answer in time")]
    TimedOut,
}

/// Removes the port mappings of a node from the gateway, within [`LEASE_RELEASE_TIMEOUT`].
pub(crate) async fn release_leases(keeper: &Keeper<DefaultGateway>) -> Result<(), ReleaseError> {
    let released = tokio::time::timeout(LEASE_RELEASE_TIMEOUT, keeper.release()).await;
    Ok(released.map_err(|_| ReleaseError::TimedOut)??)
}

/// Drains all tunnels until this node forwards no more transit traffic, for at most [`DRAIN_DEADLINE`].
pub async fn drain(graph: &Graph, clock: &Clock) {
    graph.drain_all();
    let started = clock.now();
    let mut quiet_since = started;
    let mut last_count = forwarded_packets();
    while clock.now().since(started) < DRAIN_DEADLINE && graph.has_tunnels() {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let count = forwarded_packets();
        if count.saturating_sub(last_count) > MAX_QUIET_PACKETS {
            (quiet_since, last_count) = (clock.now(), count);
        }
        if clock.now().since(quiet_since) >= QUIET_TIME {
            tracing::info!(
                seconds = clock.now().since(started).as_secs_f32(),
                "all tunnels drained: no transit traffic is left"
            );
            return;
        }
    }
}

/// Returns how many IPv6 packets this host has forwarded since it booted (`Ip6OutForwDatagrams`, RFC 4293).
fn forwarded_packets() -> u64 {
    let text = fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
    let mut lines = text
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    let found = lines.find(|(name, _)| *name == "Ip6OutForwDatagrams");
    found
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Stops all children, and restores the host.
pub async fn stop_children_and_restore_host(
    graph: &Graph,
    clock: &Clock,
    kernel: &Kernel,
    paths: &Paths,
) {
    graph.stop_babeld();
    wait_until(clock, || graph.has_babeld_exited()).await;
    graph.stop_tunnels();
    tokio::join!(
        wait_until(clock, || graph.have_tunnels_exited()),
        graph.release_leases(),
        async {
            if let Some(keeper) = &graph.pinholes {
                release_pinholes(keeper).await;
            }
        }
    );
    match kernel.sweep(&paths.sysctls()).await {
        Ok(swept) => tracing::info!(?swept, "host restored"),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "host not restored; run warren cleanup, or start warren again")
        }
    }
    remove_runtime_files(paths);
}

/// Waits until all children in question have exited, at most [`EXIT_TIMEOUT`].
async fn wait_until(clock: &Clock, have_exited: impl Fn() -> bool) {
    let started = clock.now();
    while !have_exited() && clock.now().since(started) < EXIT_TIMEOUT {
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}
