//! Three nodes on a path that drops UDP reach each other by TCP, soon; once UDP passes, they leave TCP for it.

use anyhow::{Context, Result, ensure};
use lab::{Lab, Options, is_skipped_without_root, wait::wait_until};
use std::time::Duration;
use wire::control::{TUNNELS_PATH, TunnelsDocument};

/// Longest time from the start until all nodes reach each other, two seconds of which pass at the first endpoints. With a first
/// endpoint that is waited for until OpenVPN gives up, it would be ten more.
const MAX_TIME: Duration = Duration::from_secs(9);
/// Longest wait until the nodes report such tunnels.
const DIAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest wait until no tunnel is by TCP any more: one at a time is drained at each node.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(240);

/// Returns the transports of all dialled tunnels that are up.
fn transports(lab: &Lab) -> Result<Vec<String>> {
    let mut transports = Vec::new();
    for node in lab.nodes() {
        let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
        let tunnels = document.tunnels.into_iter();
        let dialled = tunnels.filter(|tunnel| tunnel.role == "dialled" && tunnel.phase == "up");
        transports.extend(dialled.filter_map(|tunnel| tunnel.transport));
    }
    Ok(transports)
}

#[test]
fn a_network_without_udp_uses_tcp_within_seconds_and_udp_again_once_it_passes() -> Result<()> {
    if is_skipped_without_root("udp_blocked") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options::with_nodes(3))?;
    for node in lab.nodes() {
        let rules = "add table inet test; \
             add chain inet test out { type filter hook output priority 0; }; \
             add rule inet test out oifname eth0 udp sport 1194 drop; \
             add rule inet test out oifname eth0 udp dport 1194 drop";
        node.command("nft", &[rules])?;
    }
    let elapsed = lab.start_and_converge()?;
    lab::progress::progress(format!("whole by TCP after {:.2} s", elapsed.as_secs_f64()));
    ensure!(elapsed < MAX_TIME, "{elapsed:?}");
    let dialled = || transports(&lab).ok().filter(|used| !used.is_empty());
    let used = wait_until(DIAL_TIMEOUT, dialled).context("no node has dialled another one")?;
    ensure!(used.iter().all(|transport| transport == "tcp"), "{used:?}");

    for node in lab.nodes() {
        node.command("nft", &["delete table inet test"])?;
    }
    let by_udp = || {
        let used = transports(&lab).ok()?;
        let is_by_udp = !used.is_empty() && used.iter().all(|transport| transport == "udp");
        is_by_udp.then_some(())
    };
    let result = wait_until(LEAVE_TIMEOUT, by_udp);
    let mut events = String::new();
    for node in lab.nodes() {
        events += &node.warren_command(&["events"])?;
    }
    result.with_context(|| format!("TCP is not left for UDP:\n{events}"))?;
    ensure!(
        events.contains("this tunnel is by TCP, and the peer answers by UDP"),
        "{events}"
    );
    Ok(())
}
