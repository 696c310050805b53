//! A random fault every five seconds in a network of eight nodes, and a history that is checked against what must always hold.

mod history;
mod inflict;

use super::{Extent, Figure, Outcome};
use crate::{
    Lab, Options, PingSchedule, Pinger,
    host_snapshot::HostSnapshot,
    kernel_routes::KernelRoutes,
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    proc_files::{descriptors, private_kib},
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use fastrand::Rng;
use history::{Fault, PathHistory, Paths, WHOLE_AGAIN, unexplained};
use inflict::{Damage, Kind};
use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Nodes of the network.
const NODES: usize = 8;
/// Interval between two faults.
const FAULT_INTERVAL: Duration = Duration::from_secs(5);
/// Length of the short form, and of the long one.
const LENGTHS: [Duration; 2] = [Duration::from_secs(120), Duration::from_secs(600)];
/// Pause before the first fault, and after the last one has healed, in which memory and descriptors are read.
const SETTLING_TIME: Duration = Duration::from_secs(10);
/// Interval between two pings of a pair.
const PING_INTERVAL: Duration = Duration::from_millis(100);
/// Interval between two readings of the paths.
const PATH_INTERVAL: Duration = Duration::from_millis(300);
/// Most memory by which a daemon may grow, in MiB.
const MAX_GROWTH_MIB: u64 = 8;
/// Most descriptors by which a daemon may grow: those of a few more tunnels.
const MAX_DESCRIPTORS: u64 = 24;

/// What a daemon uses: KiB of memory, and descriptors.
type Usage = (u64, usize);

/// Runs the soak with the seed of `extent`, and prints the seed.
pub(super) fn run(extent: Extent) -> Result<Vec<Outcome>> {
    let length = LENGTHS.get(usize::from(extent.is_long));
    let length = *length.context("no length")?;
    progress(format!(
        "soak of {} s, seed {}",
        length.as_secs(),
        extent.seed
    ));
    let lab = Lab::build_joined(Options::with_nodes(NODES))?;
    let before = lab.nodes().iter();
    let before = before.map(|node| HostSnapshot::take(node.namespace()));
    let before = before.collect::<Result<Vec<_>>>()?;
    lab.start_and_converge()?;
    let pinger = lab.start_pings(PingSchedule::Every(PING_INTERVAL))?;
    pause(SETTLING_TIME);
    let usage = read_usage(&lab)?;
    let start = pinger.now();
    let (paths, (faults, mut damage)) = watch_paths(&lab, &pinger, || {
        let mut rng = Rng::with_seed(extent.seed);
        inflict_all(&lab, &pinger, &before, length, &mut rng)
    })?;
    let (silent_pairs, end) = wait_until_whole(&pinger);
    pause(SETTLING_TIME);
    damage.exits = lab
        .nodes()
        .iter()
        .filter(|node| node.pid().is_none())
        .count();
    let grown = growth(&usage, &read_usage(&lab)?);
    pause(LOST_AFTER);
    let losses = pinger.read_records(all_pairs, |record| {
        record.lost_pings(start, end, pinger.now())
    });
    let all: Vec<_> = faults.iter().map(|(_, fault)| *fault).collect();
    let violations = unexplained(&losses, &all, &paths);
    describe(&violations, &faults);
    let summary = pinger.summarize(start, end, all_pairs);
    progress(format!("lost {} of {} pings", summary.lost, summary.sent));
    drop(pinger);
    stop_all(&lab, &before, &mut damage)?;
    Ok(vec![outcome(
        faults.len(),
        violations.len(),
        silent_pairs,
        damage,
        grown,
    )?])
}

fn outcome(
    tries: usize,
    violations: usize,
    silent_pairs: usize,
    damage: Damage,
    (memory_kib, descriptors): (u64, u64),
) -> Result<Outcome> {
    let count =
        |name, value: usize| Ok::<_, anyhow::Error>(Figure::count(name, value.try_into()?, 0));
    Ok(Outcome {
        id: "soak",
        fault: "eight nodes, a random fault every 5 s: a child or a daemon killed, frozen or restarted, a cable unplugged, the registry stopped, an actor that panics",
        tries,
        figures: vec![
            count("pings lost that no fault explains", violations)?,
            count("pairs not whole 15 s after the last fault", silent_pairs)?,
            count("orphans after 2 s", damage.orphans)?,
            count("residues after a stop", damage.residues)?,
            count("unclean stops", damage.unclean_stops)?,
            count("daemons that exited by themselves", damage.exits)?,
            Figure {
                unit: "MiB",
                ..Figure::count("memory growth", memory_kib >> 10, MAX_GROWTH_MIB)
            },
            Figure::count("growth of open descriptors", descriptors, MAX_DESCRIPTORS),
        ],
    })
}

/// Inflicts a fault every five seconds. A fault ends when its node runs again; whatever takes longer delays the next one.
fn inflict_all(
    lab: &Lab,
    pinger: &Pinger,
    before: &[HostSnapshot],
    length: Duration,
    rng: &mut Rng,
) -> Result<(Vec<(Kind, Fault)>, Damage)> {
    let (start, mut faults, mut damage) = (Instant::now(), Vec::new(), Damage::default());
    while start.elapsed() < length {
        let next = Instant::now() + FAULT_INTERVAL;
        let node = rng.usize(..NODES);
        let kind = Kind::choose(rng);
        progress(format!("{kind:?} at node {node}"));
        let at = pinger.now();
        let snapshot = before.get(node).context("no snapshot")?;
        damage.add(kind.inflict(lab, node, snapshot, rng)?);
        let fault = Fault {
            node,
            reach: kind.reach(),
            start: at,
            end: pinger.now(),
        };
        faults.push((kind, fault));
        pause(next.saturating_duration_since(Instant::now()));
    }
    Ok((faults, damage))
}

/// Reads the paths of all pairs until `work` is done.
fn watch_paths<T>(
    lab: &Lab,
    pinger: &Pinger,
    work: impl FnOnce() -> Result<T>,
) -> Result<(PathHistory, T)> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut history = PathHistory::default();
            while !is_over.load(Ordering::Relaxed) {
                history.add(pinger.now(), read_paths(lab)?);
                pause(PATH_INTERVAL);
            }
            Ok(history)
        });
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        let history: Result<PathHistory> = watcher
            .join()
            .ok()
            .context("the reader of paths panicked")?;
        Ok((history?, result?))
    })
}

fn read_paths(lab: &Lab) -> Result<Paths> {
    let routes = KernelRoutes::read(lab)?;
    let paths = routes.pairs().filter_map(|(from, to)| {
        let path = routes.path(from, to)?;
        Some(((from, to), path))
    });
    Ok(paths.collect::<BTreeMap<_, _>>())
}

/// Waits until all pairs have replies; returns how many have none in time, and the moment.
fn wait_until_whole(pinger: &Pinger) -> (usize, Duration) {
    let since = pinger.now();
    wait_until(WHOLE_AGAIN, || pinger.all_answered(since, all_pairs));
    let answered = pinger.read_records(all_pairs, |record| record.first_reply(since).is_some());
    let silent = answered.iter().filter(|(.., answered)| !answered).count();
    (silent, pinger.now())
}

fn read_usage(lab: &Lab) -> Result<Vec<Option<Usage>>> {
    let read = |node: &crate::Node| {
        let pid = node.pid();
        pid.map(|pid| Ok((private_kib(pid)?, descriptors(pid)?)))
            .transpose()
    };
    lab.nodes().iter().map(read).collect()
}

/// The most by which any daemon grew, in KiB and in descriptors.
fn growth(before: &[Option<Usage>], after: &[Option<Usage>]) -> (u64, u64) {
    let pairs = before.iter().zip(after);
    let grown = pairs.filter_map(|(before, after)| {
        let (before, after) = (before.as_ref()?, after.as_ref()?);
        let descriptors = after.1.saturating_sub(before.1);
        Some((
            after.0.saturating_sub(before.0),
            u64::try_from(descriptors).unwrap_or(u64::MAX),
        ))
    });
    grown.fold((0, 0), |most, one| (most.0.max(one.0), most.1.max(one.1)))
}

/// Prints the violations, each with the faults of the time before it.
fn describe(violations: &[(usize, usize, Duration)], faults: &[(Kind, Fault)]) {
    let mut pairs: BTreeMap<(usize, usize), Vec<Duration>> = BTreeMap::new();
    for (from, to, at) in violations {
        pairs.entry((*from, *to)).or_default().push(*at);
    }
    for ((from, to), moments) in pairs {
        let first = moments.first().copied().unwrap_or_default();
        let recent = faults.iter().filter(|(_, fault)| {
            fault.start <= first && first.saturating_sub(fault.end) < 2 * WHOLE_AGAIN
        });
        let recent: Vec<_> = recent
            .map(|(kind, fault)| {
                let age = first.saturating_sub(fault.start).as_secs_f64();
                format!("{kind:?} at node {} {age:.2} s before", fault.node)
            })
            .collect();
        progress(format!(
            "no fault explains {} lost pings from {from} to {to} since {:.2} s; faults: {}",
            moments.len(),
            first.as_secs_f64(),
            recent.join(", ")
        ));
    }
}

/// Stops all nodes at once, and counts what they leave.
fn stop_all(lab: &Lab, before: &[HostSnapshot], damage: &mut Damage) -> Result<()> {
    damage.unclean_stops += lab.stop_nodes().len();
    for (node, before) in lab.nodes().iter().zip(before) {
        let residues = before.changes_to(&HostSnapshot::take(node.namespace())?);
        residues.iter().for_each(progress);
        damage.residues += residues.len();
        let log = fs::read_to_string(node.log_file()).unwrap_or_default();
        let is_odd = |line: &&str| line.contains("ERROR") && !line.contains("panic");
        log.lines()
            .filter(is_odd)
            .for_each(|line| progress(format!("node {}: {line}", node.index())));
    }
    Ok(())
}
