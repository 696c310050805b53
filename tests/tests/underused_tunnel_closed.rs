//! A planner closes a tunnel that is hardly used, and no packet is lost by it.

use anyhow::{Result, bail};
use lab::{
    Lab, Options, PingSchedule,
    closing_monitor::{ClosingMonitor, TunnelClosing},
    is_skipped_without_root,
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    wait::{pause, wait_until},
};
use std::time::Duration;

/// Nodes of each network. Of six nodes that dial two each, nearly all are neighbours, and every tunnel carries its fair
/// share.
const NODES: usize = 8;
/// Interval between two pings of a pair; the build under test is not an optimised one.
const PING_INTERVAL: Duration = Duration::from_millis(20);
/// Networks that are tried. By chance, every tunnel of a network may carry its fair share; then none is closed.
const NETWORKS: usize = 3;
/// Interval between two plans of the policy.
const REFRESH: Duration = Duration::from_secs(15);
/// Longest wait for a closing: eight refreshes.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(120);

#[test]
fn an_underused_tunnel_is_closed_with_its_reason_and_without_loss() -> Result<()> {
    if is_skipped_without_root("underused_tunnel_closed") {
        return Ok(());
    }
    for _ in 0..NETWORKS {
        if closes_an_unused_tunnel()? {
            return Ok(());
        }
    }
    bail!(
        "no planner closed an unused tunnel in {NETWORKS} networks of {} s",
        CLOSING_TIMEOUT.as_secs()
    )
}

/// Builds a network. Returns whether some planner closed an unused tunnel in time, and checks this closing.
fn closes_an_unused_tunnel() -> Result<bool> {
    let lab = Lab::build_converged(Options {
        refresh: Some(REFRESH),
        min_age: Some(Duration::from_secs(20)),
        ..Options::with_nodes(NODES)
    })?;
    pause(Duration::from_secs(10));
    let mut monitor = ClosingMonitor::new(&lab);
    let pinger = lab.start_pings(PingSchedule::Every(PING_INTERVAL))?;
    let Some(closing) = wait_for_closing(&lab, &mut monitor)? else {
        return Ok(false);
    };
    assert!(!closing.decision.terms.is_empty());
    let (start, end) = closing.span(&pinger);
    pause(LOST_AFTER + Duration::from_secs(4));
    let pings = pinger.summarize(start, end, all_pairs);
    assert!(pings.sent > 1_000, "{pings:?}");
    let losses = pinger.describe_losses(start, end, all_pairs);
    assert_eq!(pings.lost, 0, "{closing:?}: {pings:?} {losses:?}");
    let explanation = lab.node(closing.node)?.warren_command(&["why"])?;
    assert!(
        explanation.contains(&closing.decision.reason),
        "{explanation}"
    );
    Ok(true)
}

/// Waits until some planner has closed an unused tunnel; `None` after the timeout.
fn wait_for_closing(lab: &Lab, monitor: &mut ClosingMonitor) -> Result<Option<TunnelClosing>> {
    wait_until(CLOSING_TIMEOUT, || {
        pause(Duration::from_millis(250));
        if let Err(error) = monitor.poll(lab) {
            return Some(Err(error));
        }
        let mut closings = monitor.completed();
        let closing = closings.find(|closing| closing.decision.reason == "unused");
        closing.cloned().map(Ok)
    })
    .transpose()
}
