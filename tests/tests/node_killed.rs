//! A node that others need is killed without notice; the others find other paths, and the node comes back by itself.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, PingSchedule, is_skipped_without_root,
    ping_record::LOST_AFTER,
    pinger::{all_pairs, pairs_without},
    proc_files::is_running,
    wait::{pause, wait_until},
};
use std::time::Duration;

/// Nodes of the network.
const NODES: usize = 6;
/// Time in which the others find other paths.
const RECOVERY_TIME: Duration = Duration::from_secs(8);
/// The longest gap that a pair of other nodes may have. Without any recovery it would be the whole recovery time.
const MAX_GAP: Duration = Duration::from_secs(5);

#[test]
fn a_needed_node_is_killed_the_others_recover_and_it_comes_back() -> Result<()> {
    if is_skipped_without_root("node_killed") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    pause(Duration::from_secs(5));
    let routes = lab.wait_for_complete_routes()?;
    let victim = (0..NODES)
        .max_by_key(|node| routes.pairs_through(*node).len())
        .context("the lab has no node")?;
    assert!(
        !routes.pairs_through(victim).is_empty(),
        "no pair of nodes needs another node"
    );

    let node = lab.node(victim)?;
    let children = node.children();
    assert!(!children.is_empty());
    let start = pinger.now();
    node.kill();
    let all_gone = || (!children.keys().any(|pid| is_running(*pid))).then_some(());
    wait_until(Duration::from_secs(2), all_gone)
        .with_context(|| node.describe("was killed, but its children live on after 2 s"))?;

    pause(RECOVERY_TIME);
    let end = pinger.now();
    pause(LOST_AFTER);
    let pings = pinger.summarize(start, end, pairs_without(victim));
    assert!(pings.longest_gap < MAX_GAP, "{pings:?}");

    let restarted_at = pinger.now();
    node.start()?;
    wait_until(Duration::from_secs(60), || {
        pinger.all_answered(restarted_at, all_pairs)
    })
    .with_context(|| node.describe("did not come back within a minute"))?;
    assert_eq!(lab.stop_nodes(), [0; 0]);
    Ok(())
}
