//! SIGKILL of a daemon at random moments: its children end, its files stay whole, and the next start finds the host as it was.

use super::{
    Figure, Outcome,
    square::{MIDDLE, Square},
};
use crate::{
    Lab, Node, Options, PingSchedule,
    host_snapshot::HostSnapshot,
    measure::recover::{FatalSignal, kill_child},
    pinger::all_pairs,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The children that are killed: id, fault, and name in `warren status`.
const CHILDREN: [(&str, &str, &str); 2] = [
    (
        "kill-babeld",
        "SIGKILL of the babeld of a node that others need",
        "babeld",
    ),
    (
        "kill-server",
        "SIGKILL of the UDP server of a node that others need",
        "server-udp",
    ),
];
/// Time in which the network recovers from the death of a child.
const RECOVERY_TIME: Duration = Duration::from_secs(10);
/// Promised longest gap of a pair then.
const MAX_GAP: Duration = Duration::from_secs(5);
/// Number of kills of each daemon.
const KILLS_PER_VICTIM: usize = 50;
/// The longest time from a start to the kill; it covers the start, the first dials, and a node at work.
const MAX_LIFE: Duration = Duration::from_secs(5);
/// Promised time until all children are gone.
pub(super) const CHILDREN_GONE: Duration = Duration::from_secs(2);
/// Longest time that is waited for it.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Promised time from the last start until the node reaches the others.
const BACK: Duration = Duration::from_secs(15);
/// Number of nodes that are killed.
const VICTIMS: usize = 4;

/// Kills children of a node, and then the daemon of another network again and again.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let square = Square::build(0)?;
    let mut outcomes = CHILDREN
        .into_iter()
        .map(|child| kill_child_of(&square, child))
        .collect::<Result<Vec<_>>>()?;
    drop(square);
    outcomes.push(kill_daemons()?);
    Ok(outcomes)
}

/// Kills one child of the node between others, and returns the longest gap of any pair.
fn kill_child_of(
    square: &Square,
    (id, fault, child): (&'static str, &'static str, &str),
) -> Result<Outcome> {
    progress(fault);
    let start = square.pinger.now();
    kill_child(square.lab.node(MIDDLE)?, child, FatalSignal::Kill)?;
    pause(RECOVERY_TIME);
    let pings = square.pings(start, square.pinger.now());
    Ok(Outcome {
        id,
        fault,
        tries: 1,
        figures: vec![Figure::time(
            "longest gap of a pair",
            Some(pings.longest_gap),
            MAX_GAP,
        )],
    })
}

/// Kills the daemons of four nodes of six at random moments.
fn kill_daemons() -> Result<Outcome> {
    let lab = Lab::build_joined(Options::with_nodes(VICTIMS + 2))?;
    let (victims, others) = lab.nodes().split_at(VICTIMS);
    let before = victims.iter();
    let before = before.map(|node| HostSnapshot::take(node.namespace()));
    let before = before.collect::<Result<Vec<_>>>()?;
    others.iter().try_for_each(Node::start)?;
    let fault = "SIGKILL of a daemon at a random moment of its first 5 s";
    progress(fault);
    let gone_after = thread::scope(|scope| {
        let kills = victims.iter();
        let kills: Vec<_> = kills
            .map(|node| scope.spawn(|| kill_again_and_again(node)))
            .collect();
        let kills = kills.into_iter();
        let all = kills.map(|kills| kills.join().ok().context("a thread panicked")?);
        all.collect::<Result<Vec<_>>>()
    })?;
    let gone_after = gone_after.concat();
    let is_late = |gone_after: &&Duration| **gone_after > CHILDREN_GONE;
    let orphans = gone_after.iter().filter(is_late).count();
    let pinger = lab.start_pings(PingSchedule::UNTIL_ANSWERED)?;
    let start = pinger.now();
    victims.iter().try_for_each(Node::start)?;
    let back = wait_until(WAIT_TIMEOUT + BACK, || {
        pinger.all_answered(start, all_pairs)
    });
    let back = back.map(|moment| moment.saturating_sub(start));
    drop(pinger);
    let (mut unclean_stops, mut residues, mut drafts) = (0, 0, 0);
    for (node, before) in victims.iter().zip(&before) {
        unclean_stops += u64::from(node.stop_cleanly().is_err());
        let left = before.changes_to(&HostSnapshot::take(node.namespace())?);
        left.iter().for_each(progress);
        residues += u64::try_from(left.len())?;
        drafts += count_drafts(node.root());
    }
    let slowest = gone_after.iter().max().copied();
    Ok(Outcome {
        id: "kill-daemon",
        fault,
        tries: gone_after.len(),
        figures: vec![
            Figure::time("children gone", slowest, CHILDREN_GONE),
            Figure::count("orphans after 2 s", u64::try_from(orphans)?, 0),
            Figure::time("next start reaches all", back, BACK),
            Figure::count("unfinished files after a stop", drafts, 0),
            Figure::count("residues after a stop", residues, 0),
            Figure::count("unclean stops", unclean_stops, 0),
        ],
    })
}

/// Starts a daemon and kills it, again and again; returns for each kill the time until its children were gone.
fn kill_again_and_again(node: &Node) -> Result<Vec<Duration>> {
    let start_and_kill = |_| {
        node.start()?;
        pause(MAX_LIFE.mul_f64(fastrand::f64()));
        kill_and_wait(node)
    };
    (0..KILLS_PER_VICTIM).map(start_and_kill).collect()
}

/// Kills the daemon; returns the time until nothing runs in its namespace.
pub(super) fn kill_and_wait(node: &Node) -> Result<Duration> {
    let start = Instant::now();
    node.kill();
    let is_empty = || node.processes().is_empty().then_some(());
    wait_until(WAIT_TIMEOUT, is_empty)
        .with_context(|| node.describe("was killed, but its children live on after 10 s"))?;
    Ok(start.elapsed())
}

/// Counts the files below a folder that were written and not yet renamed.
pub(super) fn count_drafts(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let count = |path: &Path| {
        if path.is_dir() && !path.is_symlink() {
            count_drafts(path)
        } else {
            u64::from(path.extension().is_some_and(|end| end == "new"))
        }
    };
    entries.map(|entry| count(&entry.path())).sum()
}
