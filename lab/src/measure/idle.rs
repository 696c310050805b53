//! Measures what a node costs that has nothing to do: memory, CPU, and bytes on its tunnels.

use super::{dial, pause, prepare, start_whole, tell};
use crate::{Lab, Node, Options, lab_run::stat_field};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{collections::BTreeMap, fs, time::Duration};
use wire::control::{TUNNELS_PATH, TunnelsDocument};

/// Clock ticks a second in `/proc`: USER_HZ, 100 on every architecture Linux runs on today but alpha.
const TICKS: f64 = 100.0;
/// Between convergence and the first reading, so that start-up work is over.
const SETTLE: Duration = Duration::from_secs(10);

/// What `measure idle` prints: the worst of all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Idle {
    /// Nodes of the lab.
    pub nodes: usize,
    /// How long was measured.
    pub seconds: u64,
    /// Resident memory of the daemon at the end.
    pub daemon_rss_kib_max: u64,
    /// Of it, what no other process shares.
    pub daemon_private_kib_max: u64,
    /// CPU of the daemon, user and system.
    pub daemon_cpu_seconds_max: f64,
    /// CPU of its children together.
    pub children_cpu_seconds_max: f64,
    /// Bytes of both directions on a dialled tunnel's link, mean over all that stood from begin to end.
    pub overhead_bytes_per_tunnel_second: f64,
}

/// Builds a lab, lets it come to rest, and reads twice.
///
/// # Errors
/// Where the lab cannot be built, or a daemon does not answer.
pub fn measure(nodes: usize, seconds: u64) -> Result<Idle> {
    let lab = prepare(Options {
        nodes,
        dial: Some(dial(nodes)),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    pause(SETTLE);
    let cpu_before = cpu(&lab)?;
    let bytes_before = bytes(&lab)?;
    tell(format!("measuring for {seconds} s"));
    pause(Duration::from_secs(seconds));
    let bytes_after = bytes(&lab)?;
    let cpu_after = cpu(&lab)?;

    let mut idle = Idle {
        nodes,
        seconds,
        ..Idle::default()
    };
    for ((daemon, children), (daemon_before, children_before)) in cpu_after.iter().zip(&cpu_before)
    {
        idle.daemon_cpu_seconds_max = idle.daemon_cpu_seconds_max.max(daemon - daemon_before);
        idle.children_cpu_seconds_max = idle
            .children_cpu_seconds_max
            .max(children - children_before);
    }
    for node in lab.nodes() {
        let pid = node.pid().context("a daemon has ended")?;
        idle.daemon_rss_kib_max = idle
            .daemon_rss_kib_max
            .max(kib(pid, "status", &["VmRSS:"])?);
        let private = kib(pid, "smaps_rollup", &["Private_Clean:", "Private_Dirty:"])?;
        idle.daemon_private_kib_max = idle.daemon_private_kib_max.max(private);
    }
    let both = bytes_after
        .iter()
        .filter_map(|(tunnel, after)| after.checked_sub(*bytes_before.get(tunnel)?));
    let spent: Vec<u64> = both.collect();
    tell(format!("{} tunnels stood from begin to end", spent.len()));
    let tunnels = u32::try_from(spent.len()).unwrap_or(u32::MAX).max(1);
    let total = u32::try_from(spent.iter().sum::<u64>()).unwrap_or(u32::MAX);
    let span = f64::from(u32::try_from(seconds).unwrap_or(u32::MAX));
    idle.overhead_bytes_per_tunnel_second =
        round(f64::from(total) / f64::from(tunnels) / span, 10.0);
    idle.daemon_cpu_seconds_max = round(idle.daemon_cpu_seconds_max, 100.0);
    idle.children_cpu_seconds_max = round(idle.children_cpu_seconds_max, 100.0);
    Ok(idle)
}

fn round(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

/// CPU seconds of each daemon, and of its children.
fn cpu(lab: &Lab) -> Result<Vec<(f64, f64)>> {
    let of = |node: &Node| {
        let daemon = node.pid().context("a daemon has ended")?;
        Ok((spent(daemon), node.children().into_keys().map(spent).sum()))
    };
    lab.nodes().iter().map(of).collect()
}

fn spent(pid: u32) -> f64 {
    // User and system time: fields 14 and 15 of proc(5).
    let ticks = [14, 15]
        .into_iter()
        .filter_map(|field| stat_field(pid, field)?.parse::<u32>().ok());
    f64::from(ticks.sum::<u32>()) / TICKS
}

/// The sum of these lines of `/proc/PID/FILE`, in KiB.
fn kib(pid: u32, file: &str, names: &[&str]) -> Result<u64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let wanted = text
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)));
    Ok(wanted
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum())
}

/// Bytes of both directions of every dialled tunnel that is up, by node, slot and peer.
fn bytes(lab: &Lab) -> Result<BTreeMap<(usize, String, String), u64>> {
    let mut all = BTreeMap::new();
    for node in lab.nodes() {
        let document: TunnelsDocument = node.ask(TUNNELS_PATH)?;
        for tunnel in document
            .tunnels
            .into_iter()
            .filter(|tunnel| tunnel.role == "dialled" && tunnel.phase == "up")
        {
            all.insert(
                (node.index(), tunnel.slot, tunnel.peer),
                tunnel.rx_bytes + tunnel.tx_bytes,
            );
        }
    }
    Ok(all)
}
