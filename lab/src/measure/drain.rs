//! Measures whether planned closings lose packets: those that planners order, and those by a node that stops.

use crate::{
    Lab, Options, Pinger,
    closing_monitor::{ClosingMonitor, TunnelClosing},
    kernel_routes::is_dialling_slot,
    ping_record::{LOST_AFTER, PingSummary},
    pinger::{PingSchedule, all_pairs, pairs_without},
    progress::{progress, seconds},
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Nodes of the lab.
const NODES: usize = 8;
/// Longest time for all closings together.
const CLOSINGS_TIMEOUT: Duration = Duration::from_secs(1_200);
/// Shorter than the shipped refresh, so that ten closings take minutes and not hours.
const REFRESH: Duration = Duration::from_secs(6);
/// Shorter than the shipped minimum age, for the same reason.
const MIN_AGE: Duration = Duration::from_secs(8);
/// Pause between convergence and the first ping.
const SETTLING_TIME: Duration = Duration::from_secs(15);
/// Interval between two readings of the decisions.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Time after a node's stop whose pings still count for the stop.
const STOP_AFTERMATH: Duration = Duration::from_secs(5);
/// Longest wait until a stopped node is part of the network again.
const RETURN_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause after a stopped node's return.
const RETURN_PAUSE: Duration = Duration::from_secs(10);

/// The output of `measure drain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct DrainLosses {
    /// Closings that planners ordered and carried out.
    pub closings: usize,
    /// Pings sent during the closings and the stops, between all pairs, at intervals of 10 ms.
    pub sent: u64,
    /// Pings of these that were lost. Pairs with a stopped node at an end are not counted from its stop on.
    pub lost: u64,
    /// The longest closing, from the order to drain until the end of its OpenVPN process.
    pub seconds_max: f64,
}

/// Measures once: waits for that many closings by planners, then stops that many nodes, one after the other.
///
/// # Errors
/// Fails if the lab cannot be built, or if there are too few closings within twenty minutes.
pub fn measure(closings: usize, stops: usize) -> Result<DrainLosses> {
    let lab = Lab::build_converged(Options {
        refresh: Some(REFRESH),
        min_age: Some(MIN_AGE),
        ..Options::with_nodes(NODES)
    })?;
    // Nodes that dialled each other during the start first close one of the two tunnels.
    pause(SETTLING_TIME);
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    let mut losses = measure_closings(&lab, &pinger, closings)?;
    for node in (0..NODES).cycle().take(stops) {
        let summary = measure_stop(&lab, &pinger, node)?;
        losses.sent += summary.sent;
        losses.lost += summary.lost;
    }
    Ok(losses)
}

fn measure_closings(lab: &Lab, pinger: &Pinger, wanted_closings: usize) -> Result<DrainLosses> {
    let start = pinger.now();
    let mut monitor = ClosingMonitor::new(lab);
    wait_for_closings(lab, pinger, &mut monitor, wanted_closings)?;
    let end = pinger.now();
    pause(LOST_AFTER + POLL_INTERVAL);
    let summary = pinger.summarize(start, end, all_pairs);
    report_closings(&monitor);
    report_pings("during the planners' closings", &summary);
    for line in pinger.describe_losses(start, end, all_pairs) {
        progress(line);
    }
    let durations = monitor.completed().filter_map(|closing| closing.duration);
    Ok(DrainLosses {
        closings: monitor.completed().count(),
        sent: summary.sent,
        lost: summary.lost,
        seconds_max: seconds(durations.max().unwrap_or_default()),
    })
}

fn wait_for_closings(
    lab: &Lab,
    pinger: &Pinger,
    monitor: &mut ClosingMonitor,
    wanted_closings: usize,
) -> Result<()> {
    let start = Instant::now();
    let mut reported = 0;
    while monitor.completed().count() < wanted_closings {
        if start.elapsed() > CLOSINGS_TIMEOUT {
            bail!(
                "there were only {} of {wanted_closings} closings in {} s",
                monitor.completed().count(),
                CLOSINGS_TIMEOUT.as_secs()
            );
        }
        monitor.poll(lab)?;
        for line in monitor.take_decision_lines() {
            let second = pinger.now().as_secs_f64();
            progress(format!("{line}, second {second:.1} of the pings"));
        }
        for closing in monitor.completed().skip(reported) {
            report_closing(closing);
            let (start, end) = closing.span(pinger);
            progress(format!(
                "  from second {:.1} to {:.1} of the pings",
                start.as_secs_f64(),
                end.as_secs_f64()
            ));
        }
        reported = monitor.completed().count();
        pause(POLL_INTERVAL);
    }
    Ok(())
}

/// Prints one closing.
pub(crate) fn report_closing(closing: &TunnelClosing) {
    progress(format!(
        "node-{} closed {} to node-{} ({}; {}) in {:.2} s; the node reached {} nodes through the tunnel, the peer {}",
        closing.node,
        closing.decision.slot,
        closing.peer,
        closing.decision.reason,
        closing.decision.terms,
        closing.duration.unwrap_or_default().as_secs_f64(),
        closing.reached_by_node,
        closing.reached_by_peer,
    ));
}

fn report_closings(monitor: &ClosingMonitor) {
    let closings = monitor.completed().count();
    let used = monitor
        .completed()
        .filter(|closing| closing.was_used_in_both_directions());
    let abandoned = monitor
        .closings()
        .iter()
        .filter(|closing| closing.is_abandoned);
    progress(format!(
        "pings used {} of {closings} closed tunnels in both directions; {} drains were abandoned",
        used.count(),
        abandoned.count()
    ));
}

fn report_pings(occasion: &str, summary: &PingSummary) {
    progress(format!(
        "{occasion}: {} sent, {} lost, {} duplicates, {} reordered, longest gap {:.3} s",
        summary.sent,
        summary.lost,
        summary.duplicates,
        summary.reordered,
        summary.longest_gap.as_secs_f64()
    ));
}

/// Stops a node, sums up the pings between the other nodes, and starts the node again.
fn measure_stop(lab: &Lab, pinger: &Pinger, index: usize) -> Result<PingSummary> {
    let node = lab.node(index)?;
    let routes = lab.wait_for_complete_routes()?;
    let dialling_nodes = (0..lab.nodes().len())
        .filter(|other| routes.destinations_via(*other, index, is_dialling_slot) > 0);
    progress(format!(
        "stopping node {index}: {} nodes send through tunnels that it accepted, {} pairs of others need it",
        dialling_nodes.count(),
        routes.pairs_through(index).len()
    ));
    let start = pinger.now();
    ensure!(
        node.stop().is_some(),
        "{}",
        node.describe("did not stop in time")
    );
    let duration = (pinger.now() - start).as_secs_f64();
    pause(STOP_AFTERMATH);
    let end = pinger.now();
    pause(LOST_AFTER + POLL_INTERVAL);
    let summary = pinger.summarize(start, end, pairs_without(index));
    let occasion = format!("stop of node {index} in {duration:.2} s, pairs of the other nodes");
    report_pings(&occasion, &summary);
    for line in pinger.describe_losses(start, end, pairs_without(index)) {
        progress(line);
    }
    let restarted_at = pinger.now();
    node.start()?;
    wait_until(RETURN_TIMEOUT, || {
        pinger.all_answered(restarted_at + LOST_AFTER, all_pairs)
    })
    .with_context(|| node.describe("did not come back"))?;
    pause(RETURN_PAUSE);
    Ok(summary)
}
