//! Each actor of a running daemon panics once; the network carries on, and no child process is touched.

use anyhow::{Result, bail, ensure};
use lab::{
    Lab, Node, Options, PingSchedule,
    actor_panics::{make_panic, parse_restarts},
    is_skipped_without_root,
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    wait::{pause, wait_until},
};
use std::{fs, time::Duration};

/// The actor that counts the others' restarts, and therefore not its own.
const COUNTING_ACTOR: &str = "telemetry";
/// Longest wait until an actor that panicked is restarted.
const RESTART_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which the new actors have made their first probes and have read links and routing tables.
const SETTLING_TIME: Duration = Duration::from_secs(15);

/// Waits until the actor's restart is logged and counted.
fn wait_for_restart(node: &Node, actor: &str) -> Result<()> {
    let actor_field = format!("actor=\"{actor}\"");
    let has_restarted = || {
        let log = fs::read_to_string(node.log_file()).ok()?;
        let mut errors = log.lines().filter(|line| line.contains("ERROR"));
        let is_logged = errors.any(|line| line.contains(&actor_field));
        let is_counted = parse_restarts(&node.scrape().ok()?).contains(&(actor.to_owned(), 1));
        (is_logged && (is_counted || actor == COUNTING_ACTOR)).then_some(())
    };
    if wait_until(RESTART_TIMEOUT, has_restarted).is_none() {
        bail!("{}", node.describe(&format!("did not restart {actor}")));
    }
    Ok(())
}

#[test]
fn every_actor_may_panic_once_and_the_network_carries_on() -> Result<()> {
    if is_skipped_without_root("actors_panic") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(4))?;
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    let node = lab.node(0)?;
    // The policy may close and dial tunnels meanwhile, but the servers, babeld and the daemon must stay.
    let lasting_processes = || {
        let mut children = node.children();
        children.retain(|_, command_line| !command_line.contains("--client "));
        (children.into_keys().collect::<Vec<_>>(), node.pid())
    };
    let before = lasting_processes();
    let actors = parse_restarts(&node.scrape()?);
    ensure!(actors.len() > 10, "the metrics have only {actors:?}");
    let start = pinger.now();
    for (actor, _) in &actors {
        make_panic(node, actor)?;
        wait_for_restart(node, actor)?;
    }
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
