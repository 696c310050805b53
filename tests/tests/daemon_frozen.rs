//! A daemon that stands still for half a minute interrupts no pair: its children go on, and it does not take its own silence for
//! theirs afterwards.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, PingSchedule, is_skipped_without_root, ping_record::LOST_AFTER,
    pinger::all_pairs, wait::pause,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{collections::BTreeMap, time::Duration};

/// Nodes of the network.
const NODES: usize = 4;
/// Pause before the daemon is stopped, in which nodes that dialled each other at once close one of two tunnels.
const SETTLING_TIME: Duration = Duration::from_secs(15);
/// Longer than the time after which a daemon stops a child that gives no sign of life, and than the hold time of a tunnel's neighbour.
const FREEZE_TIME: Duration = Duration::from_secs(30);
/// Time after it in which a wrong conclusion would show.
const AFTERMATH: Duration = Duration::from_secs(15);

/// The babeld and the servers of a node, which run as long as its daemon.
fn long_lived(node: &Node) -> BTreeMap<u32, String> {
    let mut children = node.children();
    children.retain(|_, line| line.contains("babeld") || line.contains("--mode server"));
    children
}

#[test]
fn a_daemon_that_stands_still_for_half_a_minute_keeps_its_children_and_its_traffic() -> Result<()> {
    if is_skipped_without_root("daemon_frozen") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    pause(SETTLING_TIME);
    let routes = lab.wait_for_complete_routes()?;
    let victim = (0..NODES)
        .max_by_key(|node| routes.pairs_through(*node).len())
        .context("the lab has no node")?;
    let node = lab.node(victim)?;
    let children = long_lived(node);
    let daemon = Pid::from_raw(i32::try_from(node.pid().context("no daemon runs")?)?);
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    let start = pinger.now();
    kill(daemon, Signal::SIGSTOP)?;
    pause(FREEZE_TIME);
    kill(daemon, Signal::SIGCONT)?;
    pause(AFTERMATH);
    let end = pinger.now();
    pause(LOST_AFTER);
    let pings = pinger.summarize(start, end, all_pairs);
    lab::progress::progress(format!("{} of {} pings lost", pings.lost, pings.sent));
    ensure!(long_lived(node) == children, "children were replaced");
    ensure!(pings.longest_gap < Duration::from_secs(1), "{pings:?}");
    Ok(())
}
