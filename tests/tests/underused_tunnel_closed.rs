//! A planner closes a tunnel that is not much used, and no packet is lost by it.

use anyhow::{Result, bail};
use lab::{
    Lab, Options, Pace,
    closing_monitor::Watch,
    is_left_out,
    measure::{pause, start_whole},
    ping_record::LOST_AFTER,
    process::wait_until,
};
use std::time::Duration;

/// Between two pings of a pair; the build under test is not an optimised one.
const EVERY: Duration = Duration::from_millis(20);

/// In so many networks: chance makes some in which every tunnel carries its fair share, and these stay as they are.
const NETWORKS: usize = 3;
/// Eight refreshes of each.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn an_underused_tunnel_is_closed_with_its_reason_and_without_loss() -> Result<()> {
    if is_left_out("underused_tunnel_closed") {
        return Ok(());
    }
    for _ in 0..NETWORKS {
        if is_closed_in_a_network()? {
            return Ok(());
        }
    }
    bail!(
        "no planner closed an unused tunnel in {NETWORKS} networks of {} s",
        PATIENCE.as_secs()
    )
}

/// Whether some planner closes an unused tunnel in time; if so, as it must be.
fn is_closed_in_a_network() -> Result<bool> {
    let lab = Lab::joined(Options {
        // Of six that dial two each nearly all are neighbours, and every tunnel carries its fair share.
        nodes: 8,
        dial: Some(2),
        refresh: Some(Duration::from_secs(15)),
        min_age: Some(Duration::from_secs(20)),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    pause(Duration::from_secs(10));
    let mut watch = Watch::new(&lab);
    let pinger = lab.ping(Pace::Every(EVERY))?;
    let closed = wait_until(PATIENCE, || {
        pause(Duration::from_millis(250));
        if let Err(error) = watch.look(&lab) {
            return Some(Err(error));
        }
        watch
            .completed()
            .find(|closing| closing.decision.reason == "unused")
            .cloned()
            .map(Ok)
    });
    let Some(closing) = closed.transpose()? else {
        return Ok(false);
    };
    assert!(!closing.decision.terms.is_empty());
    let (start, end) = closing.span(&pinger);
    pause(LOST_AFTER + Duration::from_secs(4));
    let sum = pinger.sum_up(start, end, |_, _| true);
    assert!(sum.sent > 1_000, "{sum:?}");
    assert_eq!(
        sum.lost,
        0,
        "{closing:?}: {sum:?} {:?}",
        pinger.losses(start, end, |_, _| true)
    );
    let why = lab.node(closing.node)?.warren(&["why"])?;
    assert!(why.contains(&closing.decision.reason), "{why}");
    Ok(true)
}
