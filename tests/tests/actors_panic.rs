//! Each actor of a running daemon panics once; the network carries on, and no child process is touched.

use anyhow::Result;
use lab::{
    Lab, Options, PingSchedule,
    actor_panics::{COUNTING_ACTOR, make_each_panic, parse_restarts},
    is_skipped_without_root,
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    wait::pause,
};
use std::time::Duration;

/// Time in which the new actors have made their first probes and have read links and routing tables.
const SETTLING_TIME: Duration = Duration::from_secs(15);

#[test]
fn every_actor_may_panic_once_and_the_network_carries_on() -> Result<()> {
    if is_skipped_without_root("actors_panic") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(4))?;
    // A tunnel that closes meanwhile could cost a packet that no panic has cost.
    lab.wait_for_settled_tunnels()?;
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    let node = lab.node(0)?;
    // The policy may close and dial tunnels meanwhile, but the servers, babeld and the daemon must stay.
    let lasting_processes = || {
        let mut children = node.children();
        children.retain(|_, command_line| !command_line.contains("--client "));
        (children.into_keys().collect::<Vec<_>>(), node.pid())
    };
    let before = lasting_processes();
    let start = pinger.now();
    make_each_panic(node)?;
    pause(SETTLING_TIME);
    let end = pinger.now();
    pause(LOST_AFTER);
    let pings = pinger.summarize(start, end, all_pairs);
    assert_eq!(pings.lost, 0, "{pings:?}");
    assert_eq!(lasting_processes(), before);
    assert_eq!(before.0.len(), 3, "two servers and babeld");
    for (actor, count) in parse_restarts(&node.scrape()?) {
        assert_eq!(count, u64::from(actor != COUNTING_ACTOR), "{actor}");
    }
    assert_eq!(lab.stop_nodes(), [0; 0]);
    Ok(())
}
