//! Measures what an idle node costs: memory, processor time, and bytes on its tunnels and on the underlay.

mod traffic;

use crate::{
    Lab, Node, Options,
    frame_counter::FrameCounter,
    proc_files::{cpu_seconds, private_kib, resident_kib},
    progress::{progress, round},
    wait::pause,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use traffic::IdleTraffic;
use wire::control::{TUNNELS_PATH, TunnelsDocument};

/// Pause between convergence and the first reading, so that the work of the start is done.
const SETTLING_TIME: Duration = Duration::from_secs(60);

/// The output of `measure idle`: the worst values of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IdleCost {
    /// Nodes of the lab.
    pub nodes: usize,
    /// Length of the measurement.
    pub seconds: u64,
    /// Resident memory of the daemon at the end.
    pub daemon_rss_kib_max: u64,
    /// The part of the daemon's memory that it shares with no other process.
    pub daemon_private_kib_max: u64,
    /// Processor time of the daemon, in user and system mode.
    pub daemon_cpu_seconds_max: f64,
    /// Processor time of the daemon's children together.
    pub children_cpu_seconds_max: f64,
    /// Bytes per second of both directions on a dialled tunnel's link: the mean over all tunnels that were up at both
    /// readings.
    pub overhead_bytes_per_tunnel_second: f64,
    /// Bytes per second by what they are for.
    #[serde(flatten)]
    pub traffic: IdleTraffic,
}

/// Identifies a dialled tunnel: the node's number, the slot and the peer.
type TunnelId = (usize, String, String);

/// Processor time of one node so far, in seconds.
struct NodeCpu {
    daemon: f64,
    children: f64,
}

/// Measures once: builds a lab, whose last node may be metered, lets it settle, and takes two readings.
///
/// # Errors
/// Fails if the lab cannot be built, or if a daemon does not answer.
pub fn measure(nodes: usize, seconds: u64, has_metered_node: bool) -> Result<IdleCost> {
    let lab = Lab::build_converged(Options::with_metered_node(nodes, has_metered_node))?;
    pause(SETTLING_TIME);
    let cpu_before = read_cpu(&lab)?;
    let bytes_before = read_tunnel_bytes(&lab)?;
    let counter = FrameCounter::start(&lab)?;
    progress(format!("measuring for {seconds} s"));
    pause(Duration::from_secs(seconds));
    let frames = counter.finish()?;
    let bytes_after = read_tunnel_bytes(&lab)?;
    let cpu_after = read_cpu(&lab)?;

    let mut cost = IdleCost {
        nodes,
        seconds,
        ..IdleCost::default()
    };
    for (after, before) in cpu_after.iter().zip(&cpu_before) {
        let daemon = round(after.daemon - before.daemon, 2);
        let children = round(after.children - before.children, 2);
        cost.daemon_cpu_seconds_max = cost.daemon_cpu_seconds_max.max(daemon);
        cost.children_cpu_seconds_max = cost.children_cpu_seconds_max.max(children);
    }
    for node in lab.nodes() {
        let pid = daemon_pid(node)?;
        cost.daemon_rss_kib_max = cost.daemon_rss_kib_max.max(resident_kib(pid)?);
        cost.daemon_private_kib_max = cost.daemon_private_kib_max.max(private_kib(pid)?);
    }
    cost.overhead_bytes_per_tunnel_second =
        bytes_per_tunnel_second(&bytes_before, &bytes_after, seconds);
    cost.traffic = IdleTraffic::new(&frames, seconds);
    Ok(cost)
}

fn bytes_per_tunnel_second(
    before: &BTreeMap<TunnelId, u64>,
    after: &BTreeMap<TunnelId, u64>,
    seconds: u64,
) -> f64 {
    let increases: Vec<u64> = after
        .iter()
        .filter_map(|(tunnel, bytes)| bytes.checked_sub(*before.get(tunnel)?))
        .collect();
    progress(format!(
        "{} tunnels were up at both readings",
        increases.len()
    ));
    let tunnels = u32::try_from(increases.len()).unwrap_or(u32::MAX).max(1);
    let bytes = u32::try_from(increases.iter().sum::<u64>()).unwrap_or(u32::MAX);
    let span = u32::try_from(seconds).unwrap_or(u32::MAX);
    round(f64::from(bytes) / f64::from(tunnels) / f64::from(span), 1)
}

fn daemon_pid(node: &Node) -> Result<u32> {
    node.pid()
        .with_context(|| format!("the daemon of node {} has exited", node.index()))
}

fn read_cpu(lab: &Lab) -> Result<Vec<NodeCpu>> {
    let read = |node: &Node| {
        Ok(NodeCpu {
            daemon: cpu_seconds(daemon_pid(node)?),
            children: node.children().into_keys().map(cpu_seconds).sum(),
        })
    };
    lab.nodes().iter().map(read).collect()
}

/// Bytes of both directions of every dialled tunnel that is up.
fn read_tunnel_bytes(lab: &Lab) -> Result<BTreeMap<TunnelId, u64>> {
    let mut bytes = BTreeMap::new();
    for node in lab.nodes() {
        let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
        for tunnel in document.tunnels {
            if tunnel.role == "dialled" && tunnel.phase == "up" {
                bytes.insert(
                    (node.index(), tunnel.slot, tunnel.peer),
                    tunnel.rx_bytes + tunnel.tx_bytes,
                );
            }
        }
    }
    Ok(bytes)
}
