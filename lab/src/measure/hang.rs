//! Measures how soon a node notices that a child process hangs, and what that costs the others.

use super::recover::{Child, FatalSignal, wait_until_removed};
use crate::{
    Lab, Node, Options, Pinger,
    ping_record::LOST_AFTER,
    pinger::{PingSchedule, all_pairs, pairs_without},
    progress::{progress, seconds},
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use nix::unistd::Pid;
use policies::names::Slot;
use serde::Serialize;
use std::time::Duration;
use wire::control::{STATUS_PATH, StatusDocument};

/// Nodes of the lab. Each has a tunnel to each other one, so that no pair of others needs the victim.
const NODES: usize = 4;
/// The node whose children hang.
const VICTIM: usize = 1;
/// Time before the first fault and between two faults: a child that has been up for ten seconds is restarted at once.
const SETTLING_TIME: Duration = Duration::from_secs(12);
/// Longest wait until the node is well again.
const WELL_TIMEOUT: Duration = Duration::from_secs(60);

/// A child process that hung.
#[derive(Clone, Debug, Serialize)]
pub struct HungChild {
    /// The name of the process, as in `warren status`.
    pub process: String,
    /// Time until the daemon had stopped it.
    pub noticed_seconds: f64,
    /// Time until it ran again, or a client's slot was free, the node was ready, and all pairs had had an answer.
    pub well_seconds: f64,
    /// Pings, at intervals of 10 ms, that pairs of other nodes lost meanwhile.
    pub lost_elsewhere: u64,
}

/// The output of `measure hang`.
#[derive(Clone, Debug, Serialize)]
pub struct Hang {
    /// The children, in the order in which they hung.
    pub children: Vec<HungChild>,
    /// The longest time until a child was stopped.
    pub noticed_seconds_max: f64,
    /// The longest time until the node was well.
    pub well_seconds_max: f64,
    /// Pings that pairs of other nodes lost.
    pub lost_elsewhere: u64,
}

impl Hang {
    /// Returns whether no child hung for longer than this, and other nodes lost nothing.
    pub fn is_well_within(&self, limit: Duration) -> bool {
        self.well_seconds_max <= limit.as_secs_f64() && self.lost_elsewhere == 0
    }
}

/// Lets babeld, both servers and one client of a node hang, one after the other.
///
/// # Errors
/// Fails if the lab cannot be built, or if the node does not recover.
pub fn measure() -> Result<Hang> {
    let dialled = u16::try_from(NODES - 1)?;
    let lab = Lab::build_converged(Options {
        nodes: NODES,
        tunnels_to_dial: Some(dialled),
        ..Options::default()
    })?;
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    let mut children = Vec::new();
    for child in [
        Child::Named("babeld"),
        Child::Named("server-udp"),
        Child::Named("server-tcp"),
        Child::Client,
    ] {
        pause(SETTLING_TIME);
        children.push(measure_child(lab.node(VICTIM)?, &pinger, child)?);
    }
    lab.stop_nodes();
    let max = |of: fn(&HungChild) -> f64| children.iter().map(of).fold(0.0, f64::max);
    Ok(Hang {
        noticed_seconds_max: max(|child| child.noticed_seconds),
        well_seconds_max: max(|child| child.well_seconds),
        lost_elsewhere: children.iter().map(|child| child.lost_elsewhere).sum(),
        children,
    })
}

fn measure_child(node: &Node, pinger: &Pinger, child: Child<'_>) -> Result<HungChild> {
    let start = pinger.now();
    let (process, pid) = child.send_signal(node, FatalSignal::Stop)?;
    let hung_at = pinger.now();
    let noticed = wait_until_removed(pid)?;
    let removed_at = pinger.now();
    wait_until(WELL_TIMEOUT, || is_well(node, &process, pid).then_some(()))
        .with_context(|| node.describe(&format!("is not well after {process} hung")))?;
    let answered = || pinger.all_answered(removed_at, all_pairs);
    let answered_at = wait_until(WELL_TIMEOUT, answered)
        .with_context(|| node.describe(&format!("is not reached after {process} hung")))?;
    let well = pinger.now().max(answered_at).saturating_sub(hung_at);
    let end = pinger.now();
    pause(LOST_AFTER);
    let elsewhere = pinger.summarize(start, end, pairs_without(VICTIM));
    let child = HungChild {
        process,
        noticed_seconds: seconds(noticed),
        well_seconds: seconds(well),
        lost_elsewhere: elsewhere.lost,
    };
    progress(format!("{child:?}"));
    Ok(child)
}

/// Returns whether the node is ready, and the process runs again with another pid, unless it is a client.
fn is_well(node: &Node, process: &str, hung: Pid) -> bool {
    let status: Result<StatusDocument> = node.control_document(STATUS_PATH);
    status.is_ok_and(|status| {
        let is_client = matches!(process.parse(), Ok(Slot::Dialling(_)));
        let mut processes = status.processes.iter();
        let is_new = |pid: u32| i64::from(pid) != i64::from(hung.as_raw());
        let is_running = processes
            .any(|child| child.name == process && child.ready && child.pid.is_some_and(is_new));
        status.ready && (is_client || is_running)
    })
}
