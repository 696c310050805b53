//! Measures a long run: what is lost while all is quiet, what each kind of fault costs, and whether anything grows.
//!
//! All pairs are pinged each second. After the quiet minutes a child process of a random node is killed every 20 s, and
//! the registry is frozen (SIGSTOP) during the second quarter of the run. Every ten seconds each daemon's memory,
//! descriptors and threads are read.

use crate::{
    Lab, Node, Options,
    pinger::{PingSchedule, all_pairs},
    proc_files::{descriptors, resident_kib, threads},
    progress::{progress, round, seconds},
    wait::pause,
};
use anyhow::{Context, Result};
use fastrand::Rng;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument};

/// Interval between two pings of a pair.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between two kills, and the span after a kill whose losses count as its effect.
const KILL_INTERVAL: Duration = Duration::from_secs(20);
/// Interval between two readings of the daemons' resources.
const READING_INTERVAL: Duration = Duration::from_secs(10);
/// Age of a daemon at which its memory counts as warmed up.
const WARM_UP: Duration = Duration::from_secs(300);
/// The slope of memory is that of the last hour, or of the last half of a shorter run.
const SLOPE_SPAN: Duration = Duration::from_secs(3600);

/// The effect of one kind of fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FaultEffects {
    /// The number of faults.
    pub kills: usize,
    /// Faults after which at least one pair lost a ping.
    pub kills_with_loss: usize,
    /// Median over the faults of the longest gap of any pair, with a ping each second.
    pub seconds_median: f64,
    /// The longest gap of any pair after any of the faults.
    pub seconds_max: f64,
    /// The most pairs that lost a ping after one fault.
    pub affected_pairs_max: usize,
}

/// What one daemon used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct DaemonResources {
    /// Resident memory at the start, in KiB.
    pub rss_kib_start: u64,
    /// Resident memory after five minutes, in KiB.
    pub rss_kib_warm: u64,
    /// Resident memory at the end, in KiB.
    pub rss_kib_end: u64,
    /// Growth of the resident memory in KiB an hour, by least squares over the last hour.
    pub rss_kib_per_hour: f64,
    /// Open file descriptors at the start.
    pub descriptors_start: usize,
    /// Open file descriptors at the end.
    pub descriptors_end: usize,
    /// Threads at the start.
    pub threads_start: usize,
    /// Threads at the end.
    pub threads_end: usize,
    /// Bytes that the daemon logged.
    pub logged_bytes: u64,
}

/// The output of `measure soak`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Soak {
    /// Nodes of the lab.
    pub nodes: usize,
    /// Length of the run in minutes.
    pub minutes: u64,
    /// Length of the part without faults in minutes.
    pub quiet_minutes: u64,
    /// Seed of the choice of victims.
    pub seed: u64,
    /// Pings sent while all was quiet.
    pub quiet_pings: u64,
    /// Pings lost while all was quiet.
    pub quiet_lost: u64,
    /// Pings sent in the whole run.
    pub pings: u64,
    /// Pings lost in the whole run.
    pub lost: u64,
    /// Effects by the kind of the killed process.
    pub faults: BTreeMap<String, FaultEffects>,
    /// Resources by node, in order.
    pub daemons: Vec<DaemonResources>,
    /// The steepest growth of any daemon's memory, in KiB an hour.
    pub rss_kib_per_hour_max: f64,
    /// Nodes that did not report ready at the end.
    pub not_ready_at_end: usize,
}

/// One reading of a daemon: the time since the start, and its memory in KiB.
type MemoryReading = (Duration, u64);

/// A child that was killed, with the moment of the pinger's clock.
struct Kill {
    kind: String,
    at: Duration,
}

/// Runs the network for so many minutes.
///
/// # Errors
/// Fails if the lab cannot be built, or if a daemon exits.
pub fn measure(nodes: usize, minutes: u64, quiet_minutes: u64, seed: u64) -> Result<Soak> {
    let lab = Lab::build_converged(Options::with_nodes(nodes))?;
    let pinger = lab.start_pings(PingSchedule::Every(PING_INTERVAL))?;
    let length = Duration::from_secs(minutes * 60);
    let quiet = Duration::from_secs(quiet_minutes * 60).min(length);
    let mut rng = Rng::with_seed(seed);
    let (mut kills, mut memory) = (Vec::new(), vec![Vec::new(); nodes]);
    let mut daemons = lab
        .nodes()
        .iter()
        .map(first_reading)
        .collect::<Result<Vec<_>>>()?;
    let (start, pings_start) = (Instant::now(), pinger.now());
    let (mut next_kill, mut next_reading) = (quiet, Duration::ZERO);
    let mut frozen = false;
    while start.elapsed() < length {
        let now = start.elapsed();
        let should_freeze = now >= length / 4 && now < length / 2;
        if should_freeze != frozen {
            lab.freeze_registry(should_freeze);
            frozen = should_freeze;
        }
        if now >= next_kill && now + KILL_INTERVAL <= length {
            next_kill = now + KILL_INTERVAL;
            let kind = kill_random_child(&lab, &mut rng)?;
            kills.push(Kill {
                kind,
                at: pinger.now(),
            });
        }
        if now >= next_reading {
            next_reading = now + READING_INTERVAL;
            for (node, readings) in lab.nodes().iter().zip(&mut memory) {
                readings.push((now, resident_kib(daemon_pid(node)?)?));
            }
        }
        pause(Duration::from_millis(100));
    }
    let pings_end = pinger.now();
    for ((node, daemon), readings) in lab.nodes().iter().zip(&mut daemons).zip(&memory) {
        last_reading(node, daemon, readings, length)?;
    }
    let quiet_end = pings_start + quiet;
    let calm = pinger.summarize(pings_start, quiet_end, all_pairs);
    let total = pinger.summarize(pings_start, pings_end, all_pairs);
    let effects = |kill: &Kill| {
        let now = pinger.now();
        pinger
            .read_records(all_pairs, |record| {
                record.summarize(kill.at, kill.at + KILL_INTERVAL, now)
            })
            .into_iter()
            .filter(|(.., summary)| summary.lost > 0)
            .map(|(.., summary)| summary.longest_gap)
            .collect::<Vec<_>>()
    };
    let steepest = daemons.iter().map(|daemon| daemon.rss_kib_per_hour);
    Ok(Soak {
        nodes,
        minutes,
        quiet_minutes,
        seed,
        quiet_pings: calm.sent,
        quiet_lost: calm.lost,
        pings: total.sent,
        lost: total.lost,
        faults: sum_up(kills.iter().map(|kill| (kill.kind.clone(), effects(kill)))),
        rss_kib_per_hour_max: steepest.fold(f64::MIN, f64::max),
        not_ready_at_end: lab.nodes().iter().filter(|node| !is_ready(node)).count(),
        daemons,
    })
}

fn daemon_pid(node: &Node) -> Result<u32> {
    node.pid()
        .with_context(|| node.describe("has no running daemon"))
}

fn is_ready(node: &Node) -> bool {
    node.control_document::<StatusDocument>(STATUS_PATH)
        .is_ok_and(|status| status.ready)
}

fn first_reading(node: &Node) -> Result<DaemonResources> {
    let pid = daemon_pid(node)?;
    Ok(DaemonResources {
        rss_kib_start: resident_kib(pid)?,
        descriptors_start: descriptors(pid)?,
        threads_start: threads(pid)?,
        ..DaemonResources::default()
    })
}

fn last_reading(
    node: &Node,
    daemon: &mut DaemonResources,
    readings: &[MemoryReading],
    length: Duration,
) -> Result<()> {
    let pid = daemon_pid(node)?;
    let warm = readings.iter().find(|(at, _)| *at >= WARM_UP);
    let since = length.saturating_sub(SLOPE_SPAN.min(length / 2));
    let last: Vec<_> = readings
        .iter()
        .filter(|(at, _)| *at >= since)
        .copied()
        .collect();
    *daemon = DaemonResources {
        rss_kib_warm: warm.map_or(0, |(_, kib)| *kib),
        rss_kib_end: resident_kib(pid)?,
        rss_kib_per_hour: round(slope_per_hour(&last), 1),
        descriptors_end: descriptors(pid)?,
        threads_end: threads(pid)?,
        logged_bytes: fs::metadata(node.log_file()).map_or(0, |file| file.len()),
        ..*daemon
    };
    Ok(())
}

/// The slope of the line with the least squares of errors, in KiB an hour; 0 with fewer than two readings.
fn slope_per_hour(readings: &[MemoryReading]) -> f64 {
    let count = f64::from(u32::try_from(readings.len()).unwrap_or(u32::MAX));
    let points: Vec<(f64, f64)> = readings
        .iter()
        .map(|(at, kib)| {
            let kib = u32::try_from(*kib).unwrap_or(u32::MAX);
            (at.as_secs_f64() / 3600.0, f64::from(kib))
        })
        .collect();
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let covariance: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if variance > 0.0 {
        covariance / variance
    } else {
        0.0
    }
}

/// The kind of a child: all dialled tunnels are `client`.
fn kind(name: &str) -> &str {
    if name == "babeld" || name.starts_with("server-") {
        name
    } else {
        "client"
    }
}

/// Kills a random child of a random node with SIGKILL, and returns its kind.
fn kill_random_child(lab: &Lab, rng: &mut Rng) -> Result<String> {
    let node = lab.node(rng.usize(..lab.nodes().len()))?;
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    let running: Vec<_> = status
        .processes
        .into_iter()
        .filter_map(|process| Some((process.name, process.pid?)))
        .collect();
    let (name, pid) = running
        .get(rng.usize(..running.len().max(1)))
        .with_context(|| node.describe("has no child"))?;
    progress(format!("killing {name} of node {}", node.index()));
    // A child that has exited meanwhile needs no signal.
    kill(Pid::from_raw(i32::try_from(*pid)?), Signal::SIGKILL).ok();
    Ok(kind(name).to_owned())
}

/// Sums up, by kind, the gaps of the pairs that each fault hit.
fn sum_up(
    effects: impl Iterator<Item = (String, Vec<Duration>)>,
) -> BTreeMap<String, FaultEffects> {
    let mut by_kind: BTreeMap<String, Vec<Vec<Duration>>> = BTreeMap::new();
    for (kind, gaps) in effects {
        by_kind.entry(kind).or_default().push(gaps);
    }
    let sum_up_kind = |faults: Vec<Vec<Duration>>| {
        let mut longest: Vec<_> = faults
            .iter()
            .map(|gaps| gaps.iter().max().copied().unwrap_or_default())
            .collect();
        longest.sort_unstable();
        FaultEffects {
            kills: faults.len(),
            kills_with_loss: faults.iter().filter(|gaps| !gaps.is_empty()).count(),
            seconds_median: longest.get(longest.len() / 2).copied().map_or(0.0, seconds),
            seconds_max: longest.last().copied().map_or(0.0, seconds),
            affected_pairs_max: faults.iter().map(Vec::len).max().unwrap_or(0),
        }
    };
    by_kind
        .into_iter()
        .map(|(kind, faults)| (kind, sum_up_kind(faults)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_is_its_growth_in_an_hour() {
        let line = |minute: u64| (Duration::from_secs(60 * minute), 15_000 + 2 * minute);
        let readings: Vec<_> = (0..30).map(line).collect();
        assert!((slope_per_hour(&readings) - 120.0).abs() < 1e-6);
        assert_eq!(slope_per_hour(&readings[..1]), 0.0);
        assert_eq!(slope_per_hour(&[]), 0.0);
    }

    #[test]
    fn effects_are_summed_up_by_kind() {
        let gap = Duration::from_secs;
        let effects = [
            ("client".to_owned(), vec![gap(2), gap(4)]),
            ("client".to_owned(), vec![]),
            ("client".to_owned(), vec![gap(1)]),
            ("babeld".to_owned(), vec![]),
        ];
        let summed = sum_up(effects.into_iter());
        let expected = FaultEffects {
            kills: 3,
            kills_with_loss: 2,
            seconds_median: 1.0,
            seconds_max: 4.0,
            affected_pairs_max: 2,
        };
        assert_eq!(summed["client"], expected);
        assert_eq!(summed["babeld"].kills, 1);
    }

    #[test]
    fn dialled_tunnels_are_one_kind() {
        assert_eq!(
            ["wrn3", "babeld", "server-udp"].map(kind),
            ["client", "babeld", "server-udp"]
        );
    }
}
