//! Measures what is lost while daemons are restarted in place, and while one stands still.
//!
//! All pairs ping each other, and one pair has a stream of 100 Mbit/s. One node accepts by TCP only, so that tunnels of both
//! transports are kept.

use crate::{
    Lab, Node, Options,
    packet_stream::PacketStream,
    ping_record::LOST_AFTER,
    pinger::{PingSchedule, Pinger, all_pairs},
    progress::{progress, round},
    wait::pause,
};
use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;
use std::{collections::BTreeSet, fs, time::Duration};

/// Pause before the first restart, in which nodes that dialled each other at once close one of two tunnels.
const SETTLING_TIME: Duration = Duration::from_secs(15);
/// Time after the last restart in which a wrong conclusion of a new program would show.
const AFTERMATH: Duration = Duration::from_secs(10);

/// What was sent and lost in one part of the measurement.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Losses {
    /// Length of this part.
    pub seconds: f64,
    /// Pings between all pairs, 100 a second and pair.
    pub pings_sent: u64,
    /// Those of them that got no reply.
    pub pings_lost: u64,
    /// The longest time without a reply between any pair, in milliseconds.
    pub longest_gap_ms: f64,
    /// Packets of the stream.
    pub packets_sent: u64,
    /// Those of them that did not arrive.
    pub packets_lost: u64,
}

/// The output of `measure restart`.
#[derive(Clone, Debug, Serialize)]
pub struct RestartLosses {
    /// Load of the machine over the last minute, after the measurement.
    pub load_average: String,
    /// Restarts in place, of all nodes in turn.
    pub restarts: usize,
    /// Child processes that did not run on.
    pub children_lost: usize,
    /// Milliseconds from the end of the earlier program to the takeover by the next one.
    pub milliseconds_without_daemon_max: u64,
    /// While nothing happens, for comparison.
    pub quiet: Losses,
    /// During the restarts.
    pub restarted: Losses,
    /// While one daemon is stopped by SIGSTOP.
    pub frozen: Losses,
}

/// Restarts each of `nodes` daemons `rounds` times, then stops one for this number of seconds.
///
/// # Errors
/// Fails if the lab cannot be built, or a daemon does not restart.
pub fn measure(nodes: usize, rounds: usize, freeze_seconds: u64) -> Result<RestartLosses> {
    let lab = Lab::build_joined(Options::with_nodes(nodes))?;
    lab.node(0)?.configure("listen", "{ udp: 0, tcp: 1194 }")?;
    lab.start_and_converge()?;
    pause(SETTLING_TIME);
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    let quiet = observe(&lab, &pinger, || {
        pause(SETTLING_TIME);
        Ok(())
    })?;
    let (mut children_lost, mut gaps_ms) = (0, Vec::new());
    let restarted = observe(&lab, &pinger, || {
        for node in (0..rounds).flat_map(|_| lab.nodes()) {
            children_lost += restart(node)?;
            gaps_ms.push(gap_ms(node)?);
        }
        pause(AFTERMATH);
        Ok(())
    })?;
    let frozen = observe(&lab, &pinger, || {
        let pid = lab.node(1)?.pid().context("no daemon runs")?;
        let pid = Pid::from_raw(i32::try_from(pid)?);
        kill(pid, Signal::SIGSTOP)?;
        pause(Duration::from_secs(freeze_seconds));
        kill(pid, Signal::SIGCONT)?;
        pause(AFTERMATH);
        Ok(())
    })?;
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    Ok(RestartLosses {
        load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        restarts: gaps_ms.len(),
        children_lost,
        milliseconds_without_daemon_max: gaps_ms.into_iter().max().unwrap_or_default(),
        quiet,
        restarted,
        frozen,
    })
}

/// Counts what is lost while something happens.
fn observe(lab: &Lab, pinger: &Pinger, happens: impl FnOnce() -> Result<()>) -> Result<Losses> {
    let end = |index: usize| -> Result<_> {
        let node = lab.node(index)?;
        Ok((node.namespace(), node.identity()?.address))
    };
    let stream = PacketStream::start(end(0)?, end(1)?)?;
    let start = pinger.now();
    happens()?;
    let stop = pinger.now();
    let (packets_sent, packets_lost) = stream.finish()?;
    pause(LOST_AFTER);
    let pings = pinger.summarize(start, stop, all_pairs);
    for line in pinger.describe_losses(start, stop, all_pairs) {
        progress(line);
    }
    let losses = Losses {
        seconds: round((stop - start).as_secs_f64(), 1),
        pings_sent: pings.sent,
        pings_lost: pings.lost,
        longest_gap_ms: round(pings.longest_gap.as_secs_f64() * 1e3, 0),
        packets_sent,
        packets_lost,
    };
    progress(format!("{losses:?}"));
    Ok(losses)
}

/// Restarts a daemon in place; returns how many of its children did not run on.
fn restart(node: &Node) -> Result<usize> {
    let children = || -> BTreeSet<u32> { node.children().into_keys().collect() };
    let (before, pid) = (children(), node.pid());
    let printed = node.warren_command(&["restart"])?;
    ensure!(pid == node.pid(), "{}", node.describe("is another process"));
    progress(format!("node {}: {}", node.index(), printed.trim()));
    Ok(before.difference(&children()).count())
}

/// The time without a daemon at the last restart, which its log states.
fn gap_ms(node: &Node) -> Result<u64> {
    let log = fs::read_to_string(node.log_file()).context("cannot read the log")?;
    let words: Vec<&str> = log.split_whitespace().collect();
    let mut times = words.windows(4).rev().filter_map(|words| match words {
        [number, "ms", "after", "the"] => number.parse().ok(),
        _ => None,
    });
    times
        .next()
        .with_context(|| node.describe("states no restart"))
}
