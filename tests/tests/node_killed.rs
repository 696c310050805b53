//! A node that others need dies without a word; the others find another way, and it comes back by itself.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, is_left_out,
    lab_run::stat_field,
    measure::{PACE, pause, start_whole, wait_routes},
    ping_record::LOST_AFTER,
    process::wait_until,
};
use std::time::Duration;

#[test]
fn a_needed_node_is_killed_the_others_heal_and_it_comes_back() -> Result<()> {
    if is_left_out("node_killed") {
        return Ok(());
    }
    let nodes = 6;
    let lab = Lab::joined(Options {
        nodes,
        dial: Some(2),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    let pinger = lab.ping(PACE)?;
    pause(Duration::from_secs(5));
    let routes = wait_routes(&lab)?;
    let victim = (0..nodes)
        .max_by_key(|node| routes.pairs_through(*node).len())
        .context("no node")?;
    assert!(
        !routes.pairs_through(victim).is_empty(),
        "no node is transit"
    );

    let node = lab.node(victim)?;
    let children = node.children();
    assert!(!children.is_empty());
    let start = pinger.now();
    node.kill();
    let alive = |pid: &u32| stat_field(*pid, 3).is_some_and(|state| state != "Z");
    let gone = wait_until(Duration::from_secs(2), || {
        (!children.keys().any(alive)).then_some(())
    });
    gone.context("children outlived their daemon by 2 s")?;

    let survives = |from: usize, to: usize| from != victim && to != victim;
    pause(Duration::from_secs(8));
    let end = pinger.now();
    pause(LOST_AFTER);
    let sum = pinger.sum_up(start, end, survives);
    // Without any healing the gap would be the whole 8 s.
    assert!(sum.longest_gap < Duration::from_secs(5), "{sum:?}");

    let again = pinger.now();
    node.start()?;
    wait_until(Duration::from_secs(60), || {
        pinger.all_answered(again, |_, _| true)
    })
    .with_context(|| format!("node {victim} did not come back: {}", node.log_tail(20)))?;
    assert_eq!(lab.stop_all(), [0; 0]);
    Ok(())
}
