//! Child processes of a node that others need get SIGTERM from somebody else; all pairs reach each other again soon.

use anyhow::{Context, Result};
use lab::{
    Lab, Node, Options, PingSchedule, Pinger, is_skipped_without_root,
    measure::recover::{FatalSignal, first_client, kill_child},
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    wait::pause,
};
use std::time::Duration;

/// Nodes of the network.
const NODES: usize = 6;
/// Time before the first fault; a child that has been up for ten seconds is restarted at once.
const SETTLING_TIME: Duration = Duration::from_secs(12);
/// Time in which the network recovers from one fault.
const RECOVERY_TIME: Duration = Duration::from_secs(8);
/// The longest gap that a pair of nodes may have. Without any recovery it would be the whole recovery time.
const MAX_GAP: Duration = Duration::from_secs(5);

#[test]
fn a_server_a_client_and_a_babeld_are_stopped_by_somebody_else_and_all_pairs_recover() -> Result<()>
{
    if is_skipped_without_root("children_killed") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    pause(SETTLING_TIME);
    for child in [server, first_client, babeld] {
        let routes = lab.wait_for_complete_routes()?;
        let victim = (0..NODES)
            .max_by_key(|node| routes.pairs_through(*node).len())
            .context("the lab has no node")?;
        let node = lab.node(victim)?;
        let name = child(node)?;
        check_recovery(&pinger, node, &name)?;
    }
    assert_eq!(lab.stop_nodes(), [0; 0]);
    Ok(())
}

fn server(_: &Node) -> Result<String> {
    Ok("server-udp".to_owned())
}

fn babeld(_: &Node) -> Result<String> {
    Ok("babeld".to_owned())
}

fn check_recovery(pinger: &Pinger, node: &Node, child: &str) -> Result<()> {
    let start = pinger.now();
    kill_child(node, child, FatalSignal::Term)?;
    pause(RECOVERY_TIME);
    let end = pinger.now();
    pause(LOST_AFTER);
    let pings = pinger.summarize(start, end, all_pairs);
    assert!(pings.longest_gap < MAX_GAP, "{child}: {pings:?}");
    Ok(())
}
