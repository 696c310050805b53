//! Measures how long a network takes from nothing until every pair of nodes reaches each other, what it costs, and whether it
//! stays so.

use crate::{
    Lab, Options,
    ping_record::LOST_AFTER,
    pinger::{PingSchedule, all_pairs},
    proc_files::{cpu_seconds, peak_kib, sent_packets},
    progress::{progress, round, seconds},
    wait::pause,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{fs, time::Duration};

/// Interval of the pings of one pair while the network is watched.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// A pair without an answer for longer than this has fallen out.
const MAX_GAP: Duration = Duration::from_secs(15);

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct ConvergeOptions {
    /// Nodes of the lab.
    pub nodes: usize,
    /// Time for which the network is watched afterwards.
    pub watch_time: Duration,
    /// Whether all daemons are then restarted at once.
    pub has_restart: bool,
}

/// The output of `measure converge`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Convergence {
    /// Nodes of the lab.
    pub nodes: usize,
    /// Time from starting all daemons at once, with empty caches and a running registry, until the last ordered pair
    /// got its first reply.
    pub seconds: f64,
    /// Time for which the network was watched after that.
    pub watched_seconds: u64,
    /// Ordered pairs that had no answer for 15 s within that time.
    pub fallen_out: usize,
    /// The largest amount of memory that one daemon has had, in KiB.
    pub peak_kib_max: u64,
    /// Mean processor time that a node's daemon and its children used until the network was whole.
    pub cpu_seconds_mean: f64,
    /// Mean number of packets that a node sent on its uplink until the network was whole.
    pub sent_packets_mean: u64,
    /// Load of the machine over the last minute, when the network was whole.
    pub load_average: f64,
    /// Time from the start of all daemons after all were stopped at once, until the last pair got its first reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_seconds: Option<f64>,
}

/// Measures once.
///
/// # Errors
/// Fails if the lab cannot be built or the network does not converge.
pub fn measure(options: ConvergeOptions) -> Result<Convergence> {
    let lab = Lab::build_joined(Options::with_nodes(options.nodes))?;
    let duration = lab.start_and_converge()?;
    progress(format!("whole after {:.1} s", duration.as_secs_f64()));
    let (cpu_seconds_mean, sent_packets_mean) = effort(&lab)?;
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    let load_average = load.split(' ').next().unwrap_or_default().parse()?;
    let fallen_out = match options.watch_time.is_zero() {
        true => 0,
        false => count_fallen_out(&lab, options.watch_time)?,
    };
    let peaks = lab.nodes().iter().map(|node| {
        let pid = node.pid().with_context(|| node.describe("has exited"))?;
        peak_kib(pid)
    });
    let peaks = peaks.collect::<Result<Vec<_>>>()?;
    let restart = options.has_restart.then(|| {
        lab.stop_nodes();
        lab.start_and_converge()
    });
    Ok(Convergence {
        nodes: options.nodes,
        seconds: seconds(duration),
        watched_seconds: options.watch_time.as_secs(),
        fallen_out,
        peak_kib_max: peaks.into_iter().max().unwrap_or_default(),
        cpu_seconds_mean,
        sent_packets_mean,
        load_average,
        restart_seconds: restart.transpose()?.map(seconds),
    })
}

/// The mean processor time of a node so far, and the mean number of packets that it has sent on its uplink.
fn effort(lab: &Lab) -> Result<(f64, u64)> {
    let (mut seconds, mut packets) = (0.0, 0);
    for node in lab.nodes() {
        let pid = node.pid().with_context(|| node.describe("has exited"))?;
        let children: f64 = node.children().into_keys().map(cpu_seconds).sum();
        seconds += cpu_seconds(pid) + children;
        packets += sent_packets(pid, "eth0")?;
    }
    let nodes = u32::try_from(lab.nodes().len())?.max(1);
    Ok((
        round(seconds / f64::from(nodes), 2),
        packets / u64::from(nodes),
    ))
}

/// Pings all pairs for a while, and counts those that had no answer for too long.
fn count_fallen_out(lab: &Lab, watch_time: Duration) -> Result<usize> {
    let pinger = lab.start_pings(PingSchedule::Every(WATCH_INTERVAL))?;
    let start = pinger.now();
    pause(watch_time);
    let end = pinger.now();
    pause(LOST_AFTER);
    let now = pinger.now();
    let gaps = pinger.read_records(all_pairs, |record| {
        record.summarize(start, end, now).longest_gap
    });
    let fallen_out = gaps.iter().filter(|(from, to, gap)| {
        let is_long = *gap > MAX_GAP;
        if is_long {
            progress(format!(
                "{from} -> {to}: no answer for {:.0} s",
                gap.as_secs_f64()
            ));
        }
        is_long
    });
    Ok(fallen_out.count())
}
