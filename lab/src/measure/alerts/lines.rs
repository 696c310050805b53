//! Failed uplinks, lossy and slow lines, and a node with one neighbour.

use super::Watch;
use crate::{
    Lab, Options, PingSchedule, bulk_transfer::measure_rate, node::Node, prometheus::Prometheus,
    wait::pause,
};
use anyhow::{Context, Result};
use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};
use wire::control::{TUNNELS_PATH, TunnelsDocument};

/// Nodes of the network; each fault has a node of its own.
const NODES: usize = 6;
const FAILING: Range<usize> = 1..2;
const LOSSY: usize = 3;
const LONELY: usize = 4;
const SLOW: usize = 5;
/// Interval of the pings between all pairs, which make the nodes probe their tunnels often.
const PING_INTERVAL: Duration = Duration::from_millis(100);
/// How often an uplink fails, and for how long; and the time until the tunnels are back.
const FAILURES: usize = 3;
const FAILURE: Duration = Duration::from_secs(6);
const RETURN: Duration = Duration::from_secs(9);
/// Share of packets that a lossy line loses, in percent.
const LOSS_PERCENT: u8 = 30;
/// Rate of a slow line that is full.
const SLOW_RATE: &str = "512kbit";
/// Length of one transfer over the slow line.
const TRANSFER: Duration = Duration::from_secs(2);

pub(super) fn measure() -> Result<Watch> {
    let lab = Lab::build_joined(Options::with_nodes(NODES))?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let _load = lab.start_pings(PingSchedule::Every(PING_INTERVAL))?;
    let mut watch = Watch::start_quiet(&lab)?;
    fill_line(&lab, &mut watch)?;
    let lossy = lab.node(LOSSY)?;
    watch.fire(
        "a line loses 30 % of its packets",
        &["WarrenTunnelLossy"],
        || lossy.lose_packets(LOSS_PERCENT),
    )?;
    watch.fire(
        "a node can dial one other only",
        &["WarrenOneTunnel"],
        || lab.leave_one_neighbour(LONELY, neighbour(&lab, LONELY)?),
    )?;
    watch.fire(
        "an uplink fails three times",
        &["WarrenTunnelsLost"],
        || {
            for _ in 0..FAILURES {
                lab.split(FAILING)?;
                pause(FAILURE);
                lab.join_parts(FAILING)?;
                pause(RETURN);
            }
            Ok(())
        },
    )?;
    watch.end(|| {
        lossy.lose_packets(0)?;
        lab.join_parts(LONELY..LONELY + 1)
    })?;
    Ok(watch)
}

/// Fills a narrow uplink, and stops that.
fn fill_line(lab: &Lab, watch: &mut Watch) -> Result<()> {
    let is_over = AtomicBool::new(false);
    let slow = lab.node(SLOW)?;
    let alerts = ["WarrenTunnelSlow"];
    thread::scope(|scope| {
        let fired = watch.fire("an uplink is narrow and full", &alerts, || {
            slow.slow_uplink(Some(SLOW_RATE))?;
            scope.spawn(|| fill_uplink(lab, &is_over));
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        fired
    })?;
    watch.end(|| slow.slow_uplink(None))
}

/// Sends as much as the slow line carries to one node after the other.
fn fill_uplink(lab: &Lab, is_over: &AtomicBool) {
    let Ok(hosts) = lab.ping_hosts(0..NODES) else {
        return;
    };
    let Some(from) = hosts.get(SLOW) else { return };
    for to in hosts.iter().filter(|to| to.address != from.address).cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        // A transfer that gets stuck on the full line has filled it.
        measure_rate(
            (&from.namespace, from.address),
            (&to.namespace, to.address),
            TRANSFER,
        )
        .ok();
    }
}

/// The number of a node to which this one has a tunnel.
fn neighbour(lab: &Lab, index: usize) -> Result<usize> {
    let document: TunnelsDocument = lab.node(index)?.control_document(TUNNELS_PATH)?;
    let peers: Vec<_> = document
        .tunnels
        .iter()
        .filter(|tunnel| tunnel.phase == "up")
        .collect();
    let is_peer = |node: &&Node| {
        let prefix = node.prefix().unwrap_or_default();
        peers.iter().any(|tunnel| tunnel.peer == prefix)
    };
    let found = lab.nodes().iter().find(is_peer);
    found
        .map(Node::index)
        .with_context(|| format!("node {index} has no tunnel"))
}
