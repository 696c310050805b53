//! Measures a long run: what is lost while all is quiet, what each kind of fault costs, and whether anything grows.
//!
//! All pairs are pinged each second. After the quiet minutes a child process of a random node is killed every 20 s, and
//! the registry is frozen (SIGSTOP) during the second quarter of the run, or from before the nodes start until the end. Every
//! ten seconds each daemon's memory is read. With one node and no registry it shows what a node does that is left alone.

pub(crate) mod faults;

use crate::{
    Lab, Node, Options,
    pinger::{PingSchedule, Pinger, all_pairs},
    proc_files::{descriptors, resident_kib, threads},
    progress::round,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
pub use faults::FaultEffects;
use faults::{KILL_INTERVAL, Kill, gaps_after, kill_random_child, sum_up};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument};

/// Interval between two pings of a pair.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between two readings of the daemons' resources.
const READING_INTERVAL: Duration = Duration::from_secs(10);
/// Age of a daemon at which its memory counts as warmed up.
const WARM_UP: Duration = Duration::from_secs(300);
/// The slope of memory is that of the last hour, or of the last half of a shorter run.
const SLOPE_SPAN: Duration = Duration::from_secs(3600);
/// Time within which the daemon of a lone node answers on its control socket.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What one daemon used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct DaemonResources {
    /// Resident memory at the start, in KiB.
    pub rss_kib_start: u64,
    /// Resident memory after five minutes, in KiB.
    pub rss_kib_warm: u64,
    /// Resident memory at the end, in KiB.
    pub rss_kib_end: u64,
    /// Growth of the resident memory in MiB an hour, by least squares over the last hour.
    pub rss_mib_per_hour: f64,
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
    /// Lines that the daemon logged.
    pub logged_lines: usize,
    /// Phases that lasted longer than their limit.
    pub overdue_phases: u64,
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
    /// Whether the registry was away for the whole run.
    pub registry_away: bool,
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
    /// The steepest growth of any daemon's memory, in MiB an hour.
    pub rss_mib_per_hour_max: f64,
    /// Phases of all daemons that lasted longer than their limit.
    pub overdue_phases: u64,
    /// Nodes that did not report ready at the end.
    pub not_ready_at_end: usize,
}

/// One reading of a daemon: the time since the start, and its memory in KiB.
type MemoryReading = (Duration, u64);

/// What is to be run, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct SoakOptions {
    /// Number of nodes.
    pub nodes: usize,
    /// Length of the run in minutes.
    pub minutes: u64,
    /// Length of the part without faults in minutes.
    pub quiet_minutes: u64,
    /// Seed of the choice of victims.
    pub seed: u64,
    /// Whether the registry is away from before the nodes start until the end.
    pub registry_away: bool,
}

impl SoakOptions {
    fn length(self) -> Duration {
        Duration::from_secs(self.minutes * 60)
    }

    fn quiet(self) -> Duration {
        Duration::from_secs(self.quiet_minutes * 60).min(self.length())
    }

    /// Whether the registry is frozen at this moment of the run.
    fn is_registry_frozen(self, now: Duration) -> bool {
        let length = self.length();
        self.registry_away || (now >= length / 4 && now < length / 2)
    }

    /// Builds the network and starts it. Without a registry the nodes would not find each other, so only one is possible.
    fn start(self) -> Result<Lab> {
        ensure!(
            !self.registry_away || self.nodes == 1,
            "without a registry only one node can be measured"
        );
        let options = Options::with_nodes(self.nodes);
        if self.nodes > 1 {
            return Lab::build_converged(options);
        }
        let lab = Lab::build_joined(options)?;
        lab.freeze_registry(self.registry_away);
        lab.start_nodes()?;
        let has_answered = || lab.nodes().iter().all(has_status).then_some(());
        wait_until(START_TIMEOUT, has_answered).context("the daemon does not answer")?;
        Ok(lab)
    }
}

/// Runs the network for so many minutes.
///
/// # Errors
/// Fails if the lab cannot be built, or if a daemon exits.
pub fn measure(options: SoakOptions) -> Result<Soak> {
    let SoakOptions {
        nodes,
        minutes,
        quiet_minutes,
        seed,
        registry_away,
    } = options;
    let lab = options.start()?;
    let pinger = lab.start_pings(PingSchedule::Every(PING_INTERVAL))?;
    let first = lab.nodes().iter().map(first_reading);
    let mut daemons = first.collect::<Result<Vec<_>>>()?;
    let pings_start = pinger.now();
    let (kills, memory) = run(options, &lab, &pinger)?;
    let pings_end = pinger.now();
    for ((node, daemon), readings) in lab.nodes().iter().zip(&mut daemons).zip(&memory) {
        last_reading(node, daemon, readings, options.length())?;
    }
    let calm = pinger.summarize(pings_start, pings_start + options.quiet(), all_pairs);
    let total = pinger.summarize(pings_start, pings_end, all_pairs);
    let steepest = daemons.iter().map(|daemon| daemon.rss_mib_per_hour);
    let effects = kills
        .iter()
        .map(|kill| (kill.kind.clone(), gaps_after(kill, &pinger)));
    Ok(Soak {
        nodes,
        minutes,
        quiet_minutes,
        seed,
        registry_away,
        quiet_pings: calm.sent,
        quiet_lost: calm.lost,
        pings: total.sent,
        lost: total.lost,
        faults: sum_up(effects),
        rss_mib_per_hour_max: steepest.fold(f64::MIN, f64::max),
        overdue_phases: daemons.iter().map(|daemon| daemon.overdue_phases).sum(),
        not_ready_at_end: lab.nodes().iter().filter(|node| !is_ready(node)).count(),
        daemons,
    })
}

/// Kills children and reads the daemons' memory until the end; returns the kills, and the readings of each node.
fn run(
    options: SoakOptions,
    lab: &Lab,
    pinger: &Pinger,
) -> Result<(Vec<Kill>, Vec<Vec<MemoryReading>>)> {
    let (start, length) = (Instant::now(), options.length());
    let mut rng = Rng::with_seed(options.seed);
    let (mut kills, mut memory) = (Vec::new(), vec![Vec::new(); options.nodes]);
    let (mut next_kill, mut next_reading) = (options.quiet(), Duration::ZERO);
    let mut is_frozen = options.registry_away;
    while start.elapsed() < length {
        let now = start.elapsed();
        let should_freeze = options.is_registry_frozen(now);
        if should_freeze != is_frozen {
            lab.freeze_registry(should_freeze);
            is_frozen = should_freeze;
        }
        if now >= next_kill && now + KILL_INTERVAL <= length {
            next_kill = now + KILL_INTERVAL;
            let kind = kill_random_child(lab, &mut rng)?;
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
    Ok((kills, memory))
}

fn daemon_pid(node: &Node) -> Result<u32> {
    node.pid()
        .with_context(|| node.describe("has no running daemon"))
}

fn has_status(node: &Node) -> bool {
    node.control_document::<StatusDocument>(STATUS_PATH).is_ok()
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
        rss_mib_per_hour: round(slope_per_hour(&last) / 1024.0, 3),
        descriptors_end: descriptors(pid)?,
        threads_end: threads(pid)?,
        logged_bytes: fs::metadata(node.log_file()).map_or(0, |file| file.len()),
        logged_lines: fs::read_to_string(node.log_file()).map_or(0, |log| log.lines().count()),
        overdue_phases: overdue_phases(&node.scrape()?),
        ..*daemon
    };
    Ok(())
}

/// The sum of the samples of `warren_overdue_total` in a node's metrics.
fn overdue_phases(metrics: &str) -> u64 {
    let samples = metrics
        .lines()
        .filter(|line| line.starts_with("warren_overdue_total{"));
    samples
        .filter_map(|sample| sample.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
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
    fn overdue_phases_of_all_kinds_are_summed_up() {
        let metrics = "# TYPE warren_overdue_total counter\nwarren_overdue_total{phase=\"closing\"} 2\n\
            warren_overdue_total{phase=\"turn\"} 1\nwarren_tunnels_opened_total{role=\"dialled\"} 7\n";
        assert_eq!(overdue_phases(metrics), 3);
        assert_eq!(overdue_phases(""), 0);
    }

    #[test]
    fn the_registry_is_frozen_in_the_second_quarter_or_always() {
        let options = |registry_away| SoakOptions {
            nodes: 1,
            minutes: 4,
            quiet_minutes: 9,
            seed: 1,
            registry_away,
        };
        let frozen = |options: SoakOptions| {
            [0, 59, 60, 119, 120, 239]
                .map(|second| options.is_registry_frozen(Duration::from_secs(second)))
        };
        assert_eq!(
            frozen(options(false)),
            [false, false, true, true, false, false]
        );
        assert_eq!(frozen(options(true)), [true; 6]);
        assert_eq!(options(true).quiet(), Duration::from_secs(240));
    }
}
