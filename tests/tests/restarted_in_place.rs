//! Each daemon of a network is restarted in place, one after the other, as an upgrade does it: its children run on, and no
//! ping is lost.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, PingSchedule, is_skipped_without_root,
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    wait::{pause, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{collections::BTreeSet, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument};

/// Nodes of the network.
const NODES: usize = 4;
/// Longest wait until killed children were started again: babeld and both servers.
const RESTART_TIMEOUT: Duration = Duration::from_secs(20);
/// Time after a restart in which a wrong conclusion of the new program would show.
const AFTERMATH: Duration = Duration::from_secs(12);

fn children(node: &Node) -> BTreeSet<u32> {
    node.children().into_keys().collect()
}

/// Checks that the new programs do for kept children what they do for those that they have started: a server admits a node that
/// comes back, and a child that is killed is started again.
fn check_supervision(lab: &Lab) -> Result<()> {
    let (first, last) = (lab.node(0)?, lab.node(NODES - 1)?);
    last.stop_cleanly()?;
    last.start()?;
    lab.wait_for_complete_routes()?;
    let killed = children(first);
    for pid in &killed {
        kill(Pid::from_raw(i32::try_from(*pid)?), Signal::SIGKILL)?;
    }
    let has_others = || {
        let present = children(first);
        (present.is_disjoint(&killed) && present.len() >= 3).then_some(())
    };
    wait_until(RESTART_TIMEOUT, has_others)
        .with_context(|| first.describe("has not started its children again"))?;
    lab.wait_for_complete_routes().map(drop)
}

#[test]
fn daemons_that_are_restarted_in_place_keep_their_children_and_lose_no_packet() -> Result<()> {
    if is_skipped_without_root("restarted_in_place") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    // A tunnel that closes by plan would look like one that the restart has cost.
    lab.wait_for_settled_tunnels()?;
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    let start = pinger.now();
    for node in lab.nodes() {
        let (before, daemon) = (children(node), node.pid());
        let printed = node.warren_command(&["restart"])?;
        lab::progress::progress(printed.trim());
        let status: StatusDocument = node.control_document(STATUS_PATH)?;
        ensure!(
            daemon == Some(status.pid) && daemon == node.pid(),
            "{}",
            node.describe("is another process")
        );
        let lost: Vec<_> = before.difference(&children(node)).copied().collect();
        ensure!(
            lost.is_empty() && before.len() >= 3,
            "{}",
            node.describe(&format!("lost its children {lost:?}"))
        );
    }
    pause(AFTERMATH);
    let end = pinger.now();
    pause(LOST_AFTER);
    let pings = pinger.summarize(start, end, all_pairs);
    lab::progress::progress(format!("{} of {} pings lost", pings.lost, pings.sent));
    ensure!(
        pings.lost == 0,
        "{:?}",
        pinger.describe_losses(start, end, all_pairs)
    );
    check_supervision(&lab)?;
    for node in lab.nodes() {
        node.stop_cleanly().context("after a restart in place")?;
        ensure!(
            node.processes().is_empty(),
            "{}",
            node.describe("left processes")
        );
    }
    Ok(())
}
