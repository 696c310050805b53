//! A machine is cloned with its key, and both run: a node that both dial keeps one tunnel, and all three report it.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, is_skipped_without_root,
    wait::{pause, wait_until},
};
use std::{process::Command, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument};

/// The number of the original, of the clone, and of the node that both dial.
const ORIGINAL: usize = 0;
const CLONE: usize = 2;
const DIALLED: usize = 1;
/// Longest wait until the clone is recognised: its dials take turns with the original's every few seconds.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Time for which the tunnels must not change afterwards.
const CALM_TIME: Duration = Duration::from_secs(20);

#[test]
fn a_cloned_machine_is_reported_by_all_three_and_does_not_replace_the_original() -> Result<()> {
    if is_skipped_without_root("cloned_machine") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        // A third of it is the interval of announcements.
        announcement_ttl: Some(Duration::from_secs(30)),
        ..Options::with_nodes(3)
    })?;
    let (original, clone, dialled) = (lab.node(ORIGINAL)?, lab.node(CLONE)?, lab.node(DIALLED)?);
    original.configure("listen", "{ udp: 0, tcp: 0 }")?;
    copy(original, clone)?;
    dialled.start()?;
    original.start()?;
    let is_up = || (tunnels_accepted(dialled).ok()? > 0).then_some(());
    wait_until(TIMEOUT, is_up).context("the original has no tunnel")?;
    clone.start()?;
    for (node, finding) in [
        (dialled, "peer_key_shared"),
        (original, "own_key_shared"),
        (clone, "own_key_shared"),
    ] {
        let seen = || has_finding(node, finding).ok()?.then_some(());
        wait_until(TIMEOUT, seen)
            .with_context(|| node.describe(&format!("does not report {finding}")))?;
    }
    let before = tunnels_accepted(dialled)?;
    pause(CALM_TIME);
    let after = tunnels_accepted(dialled)?;
    ensure!(
        before == after,
        "{} tunnels in {CALM_TIME:?}",
        after - before
    );
    Ok(())
}

/// Copies all files of a node, as a copy of its disk has them.
fn copy(from: &Node, to: &Node) -> Result<()> {
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from.root().join("."))
        .arg(to.root())
        .status()?;
    ensure!(copied.success(), "cp failed with {copied}");
    Ok(())
}

fn has_finding(node: &Node, id: &str) -> Result<bool> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    Ok(status
        .health
        .findings
        .iter()
        .any(|finding| finding.id == id))
}

fn tunnels_accepted(node: &Node) -> Result<u64> {
    node.metric("warren_tunnels_connected_total{role=\"accepted\"}")
}
