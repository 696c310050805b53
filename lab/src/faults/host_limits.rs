//! What the host of a node can lack or get wrong: the time, descriptors, space on the disk.

use super::{
    Figure, Outcome,
    square::{LogWatch, MIDDLE, Square},
};
use crate::{
    Lab, Node, Options, PingSchedule,
    measure::recover::{FatalSignal, kill_child},
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    proc_files::descriptors,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Time for which each clock is wrong, and for which the host has no descriptors or no space.
const SPAN: Duration = Duration::from_secs(6);
/// Time after that in which pings are counted, too.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Time after the start in which the second of two tunnels between the same nodes is closed.
const SETTLING_TIME: Duration = Duration::from_secs(10);
/// Promised longest gap of a pair once the host has descriptors again and babeld was killed.
const MAX_GAP: Duration = Duration::from_secs(5);
/// Promised time until the node has written what it could not, once there is space again.
const WRITTEN: Duration = Duration::from_secs(60);
/// Log lines that a full disk may cause, in six seconds.
const MAX_LINES: u64 = 10;
/// The clocks that the daemon gets, as libfaketime(1) takes them: years and days before and after now.
const CLOCKS: [&str; 5] = ["-10y", "-1h", "+1h", "+400d", "+10y"];
/// Preloaded, it gives the daemon another clock. Children do not inherit it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// Size of the file system on which the node's state lies.
const DISK_SIZE: &str = "2m";

/// Tries each lack once.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let square = Square::build(0)?;
    let descriptors = take_descriptors(&square)?;
    drop(square);
    Ok(vec![descriptors, change_clock()?, fill_disk()?])
}

/// The pings of all pairs in a span that begins now, while `work` is done.
fn lost_meanwhile(lab: &Lab, work: impl FnOnce() -> Result<()>) -> Result<Figure> {
    let pinger = lab.start_pings(PingSchedule::Every(Duration::from_millis(50)))?;
    let start = pinger.now();
    work()?;
    let end = pinger.now();
    pause(LOST_AFTER + Duration::from_millis(100));
    let pings = pinger.summarize(start, end, all_pairs);
    progress(format!("lost {} of {} pings", pings.lost, pings.sent));
    pinger
        .describe_losses(start, end, all_pairs)
        .into_iter()
        .for_each(progress);
    Ok(Figure::lost(pings, 0.0))
}

/// Lets the daemon between others open no further descriptor, then lifts the limit and kills its babeld.
fn take_descriptors(square: &Square) -> Result<Outcome> {
    let fault = "the daemon of a node that others need may open no further descriptor for 6 s; after that its babeld is killed";
    progress(fault);
    let node = square.lab.node(MIDDLE)?;
    let pid = node.pid().context("the daemon has exited")?;
    let start = square.pinger.now();
    let limit = descriptor_limit(pid)?;
    limit_descriptors(pid, &descriptors(pid)?.to_string())?;
    pause(SPAN);
    let meanwhile = square.pings(start, square.pinger.now());
    limit_descriptors(pid, &limit)?;
    ensure!(
        node.exit_status().is_none(),
        "{}",
        node.describe("has exited")
    );
    let start = square.pinger.now();
    kill_child(node, "babeld", FatalSignal::Kill)?;
    pause(2 * MAX_GAP);
    let after = square.pings(start, square.pinger.now());
    Ok(Outcome {
        id: "no-descriptors",
        fault,
        tries: 1,
        figures: vec![
            Figure::lost(meanwhile, 0.0),
            Figure::time(
                "longest gap of a pair after it",
                Some(after.longest_gap),
                MAX_GAP,
            ),
        ],
    })
}

/// The number of descriptors that a process may open.
fn descriptor_limit(pid: u32) -> Result<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    Ok(soft.context("the kernel shows no limit")?.to_owned())
}

/// Changes the soft limit only, since not each container may raise the hard one again.
fn limit_descriptors(pid: u32, count: &str) -> Result<()> {
    let arguments = [format!("--pid={pid}"), format!("--nofile={count}:")];
    let done = Command::new("prlimit").args(arguments).status()?;
    ensure!(
        done.success(),
        "cannot limit the descriptors of process {pid}"
    );
    Ok(())
}

/// Sets the clock of one daemon of three wrong several times, one after the other.
fn change_clock() -> Result<Outcome> {
    let fault = "the clock of a daemon jumps to ten years before now, to an hour before and after, and to 400 days and ten years after";
    progress(fault);
    ensure!(
        Path::new(FAKETIME).exists(),
        "{FAKETIME} is missing (package libfaketime)"
    );
    let lab = Lab::build_joined(Options::with_nodes(3))?;
    let node = lab.node(0)?;
    let clock = lab.folder().join("clock");
    fs::write(&clock, "+0\n")?;
    let variables = [
        format!("LD_PRELOAD={FAKETIME}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        // Only the wall clock is wrong: the kernel's other clocks cannot be set.
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    node.start_with_variables(&variables)?;
    for other in lab.nodes().iter().skip(1) {
        other.start()?;
    }
    lab.wait_for_convergence()?;
    pause(SETTLING_TIME);
    let files = state_files(node)?;
    let logs: Vec<_> = lab.nodes().iter().map(LogWatch::start).collect();
    let lost = lost_meanwhile(&lab, || {
        for offset in CLOCKS {
            fs::write(&clock, format!("{offset}\n"))?;
            pause(SPAN);
        }
        fs::write(&clock, "+0\n")?;
        pause(AFTERMATH);
        Ok(())
    })?;
    let closed = |log: &LogWatch<'_>| {
        let with = |reason| log.count(&["tunnel closed", reason]);
        with("reason=") - with("reason=dial_failed") - with("reason=duplicate")
    };
    let closed: usize = logs.iter().map(closed).sum();
    for log in &logs {
        log.lines(&["tunnel closed"]).iter().for_each(progress);
    }
    let now = state_files(node)?;
    let removed = files.iter().filter(|file| !now.contains(file)).count();
    node.stop_cleanly()?;
    Ok(Outcome {
        id: "wrong-clock",
        fault,
        tries: CLOCKS.len(),
        figures: vec![
            lost,
            Figure::count("tunnels closed", u64::try_from(closed)?, 0),
            Figure::count("removed files", u64::try_from(removed)?, 0),
        ],
    })
}

fn state_files(node: &Node) -> Result<Vec<PathBuf>> {
    let folder = node.root().join("var/lib/warren");
    let entries = fs::read_dir(folder)?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    paths.collect()
}

/// A file system of its own for a node's state; it is unmounted when this value is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Moves the files of a folder to a small file system, which is mounted there.
    fn mount(folder: &Path) -> Result<Self> {
        let kept = folder.with_added_extension("kept");
        fs::rename(folder, &kept)?;
        fs::create_dir(folder)?;
        let options = format!("size={DISK_SIZE},mode=0711");
        let words = ["-t", "tmpfs", "-o", &options, "none"];
        let mounted = Command::new("mount").args(words).arg(folder).status()?;
        ensure!(mounted.success(), "cannot mount a small file system");
        let disk = Self(folder.to_owned());
        let copied = Command::new("cp")
            .arg("-a")
            .arg(kept.join("."))
            .arg(folder)
            .status()?;
        ensure!(copied.success(), "cannot copy the node's state");
        Ok(disk)
    }

    /// Takes all space, by a file that is returned.
    fn fill(&self) -> PathBuf {
        let file = self.0.join("full");
        let script = format!("cat /dev/zero > {} 2>/dev/null", file.display());
        // It fails once there is no space.
        drop(Command::new("sh").args(["-c", &script]).status());
        file
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Fills the disk of a node while the network's parameters change.
fn fill_disk() -> Result<Outcome> {
    let fault = "the disk with the state of a node is full for 6 s, in which the network's parameters change";
    progress(fault);
    let lab = Lab::build_joined(Options::with_nodes(3))?;
    let node = lab.node(0)?;
    let disk = SmallDisk::mount(&node.root().join("var/lib/warren"))?;
    lab.start_and_converge()?;
    pause(AFTERMATH);
    let log = LogWatch::start(node);
    let full = disk.fill();
    let lost = lost_meanwhile(&lab, || {
        lab.registry_command("set", &["min-age", "301s"])?;
        pause(SPAN);
        Ok(())
    })?;
    ensure!(
        node.exit_status().is_none(),
        "{}",
        node.describe("has exited")
    );
    let lines = log.count(&["WARN"]) + log.count(&["ERROR"]);
    fs::remove_file(full)?;
    let document = |node: &Node| fs::read(node.root().join("var/lib/warren/network.json"));
    let wanted = document(lab.node(1)?)?;
    let start = std::time::Instant::now();
    let is_written = || (document(node).ok()? == wanted).then_some(());
    let written = wait_until(2 * WRITTEN, is_written).map(|()| start.elapsed());
    node.stop_cleanly()?;
    Ok(Outcome {
        id: "full-disk",
        fault,
        tries: 1,
        figures: vec![
            lost,
            Figure::count(
                "warnings and errors in the log",
                u64::try_from(lines)?,
                MAX_LINES,
            ),
            Figure::time("document written with space again", written, WRITTEN),
        ],
    })
}
