//! Measures whether planned closings lose packets: those that planners order, and those that a stopping node's
//! server begins.

use super::{PACE, dial, pause, prepare, seconds, start_whole, tell, wait_routes};
use crate::{
    Lab, Options, Pinger,
    closing_monitor::{Closing, Watch},
    ping_record::{LOST_AFTER, Summary},
    process::wait_until,
};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long the closings may take altogether.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// Shorter than the shipped one, so that ten closings take minutes and not hours.
const REFRESH: Duration = Duration::from_secs(6);
/// Likewise.
const MIN_AGE: Duration = Duration::from_secs(8);
/// Between convergence and the first ping.
const SETTLE: Duration = Duration::from_secs(15);
/// Between two readings of the decisions.
const LOOK: Duration = Duration::from_millis(250);

/// What `measure drain` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Drain {
    /// Closings that planners ordered and carried through.
    pub closings: usize,
    /// Pings sent, between all pairs at 10 ms, during the closings and the stops.
    pub sent: u64,
    /// Of them lost. Pairs with a stopped node at an end are left out from its stop on.
    pub lost: u64,
    /// The longest closing, from the order to drain to the end of its OpenVPN.
    pub seconds_max: f64,
}

/// Measures once, with eight nodes: waits for that many closings by planners, then stops that many nodes orderly,
/// one after the other.
///
/// # Errors
/// Where the lab cannot be built, or too few closings come within twenty minutes.
pub fn measure(closings: usize, stops: usize) -> Result<Drain> {
    let nodes = 8;
    let lab = prepare(Options {
        nodes,
        dial: Some(dial(nodes)),
        refresh: Some(REFRESH),
        min_age: Some(MIN_AGE),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    // Nodes that dialled each other while all started close one of the two tunnels first.
    pause(SETTLE);
    let pinger = lab.ping(PACE)?;
    let mut drain = by_planners(&lab, &pinger, closings)?;
    for node in (0..nodes).cycle().take(stops) {
        by_acceptor(&lab, &pinger, node, &mut drain)?;
    }
    Ok(drain)
}

fn by_planners(lab: &Lab, pinger: &Pinger, wanted: usize) -> Result<Drain> {
    let start = pinger.now();
    let begun = Instant::now();
    let mut watch = Watch::new(lab);
    let mut told = 0;
    while watch.completed().count() < wanted {
        if begun.elapsed() > PATIENCE {
            bail!(
                "only {} closings in {} s",
                watch.completed().count(),
                PATIENCE.as_secs()
            );
        }
        watch.look(lab)?;
        for news in watch.news() {
            tell(format!(
                "{news}, second {:.1} of the pings",
                pinger.now().as_secs_f64()
            ));
        }
        let completed: Vec<&Closing> = watch.completed().collect();
        for closing in completed.iter().skip(told) {
            describe(closing);
            let (begin, end) = closing.span(pinger);
            tell(format!(
                "  from second {:.1} to {:.1} of the pings",
                begin.as_secs_f64(),
                end.as_secs_f64()
            ));
        }
        told = completed.len();
        pause(LOOK);
    }
    let end = pinger.now();
    pause(LOST_AFTER + LOOK);
    let sum = pinger.sum_up(start, end, |_, _| true);
    let used = watch
        .completed()
        .filter(|closing| closing.was_used_both_ways())
        .count();
    let abandoned = watch
        .closings()
        .iter()
        .filter(|closing| closing.abandoned)
        .count();
    let closings = watch.completed().count();
    tell(format!(
        "{used} of {closings} closed tunnels were used by pinged pairs both ways; {abandoned} given up"
    ));
    report("during the planners' closings", &sum);
    pinger.losses(start, end, |_, _| true).iter().for_each(tell);
    let longest = watch
        .completed()
        .filter_map(|closing| closing.took)
        .max()
        .unwrap_or_default();
    Ok(Drain {
        closings,
        sent: sum.sent,
        lost: sum.lost,
        seconds_max: seconds(longest),
    })
}

/// One closing, for people.
pub fn describe(closing: &Closing) {
    tell(format!(
        "node {} closed {} to node {} ({}; {}); it led to {} nodes, from the other end to {}; took {:.2} s",
        closing.node,
        closing.decision.slot,
        closing.peer,
        closing.decision.reason,
        closing.decision.terms,
        closing.served_by_node,
        closing.served_by_peer,
        closing.took.unwrap_or_default().as_secs_f64()
    ));
}

fn report(when: &str, sum: &Summary) {
    tell(format!(
        "{when}: {} sent, {} lost, {} duplicates, {} reordered, longest gap {:.3} s",
        sum.sent,
        sum.lost,
        sum.duplicates,
        sum.reordered,
        sum.longest_gap.as_secs_f64()
    ));
}

/// Stops a node orderly, judges the others, and starts it again.
fn by_acceptor(lab: &Lab, pinger: &Pinger, index: usize, drain: &mut Drain) -> Result<()> {
    let node = lab.node(index)?;
    let routes = wait_routes(lab)?;
    let accepting = |link: &str| !link.starts_with("wrnu") && !link.starts_with("wrnt");
    let dialled = (0..lab.nodes().len())
        .filter(|other| routes.served(*other, index, accepting) > 0)
        .count();
    let through = routes.pairs_through(index).len();
    tell(format!(
        "stopping node {index}: {dialled} nodes send through tunnels it accepted, {through} pairs through it"
    ));
    let start = pinger.now();
    let stopping = Instant::now();
    if node.stop().is_none() {
        bail!("node {index} did not stop within its time");
    }
    let took = stopping.elapsed();
    pause(Duration::from_secs(5));
    let end = pinger.now();
    pause(LOST_AFTER + LOOK);
    let sum = pinger.sum_up(start, end, |from, to| from != index && to != index);
    report(
        &format!(
            "stop of node {index} in {:.2} s, pairs of the others",
            took.as_secs_f64()
        ),
        &sum,
    );
    pinger
        .losses(start, end, |from, to| from != index && to != index)
        .iter()
        .for_each(tell);
    drain.sent += sum.sent;
    drain.lost += sum.lost;
    let started = pinger.now();
    node.start()?;
    wait_until(Duration::from_secs(120), || {
        pinger.all_answered(started + LOST_AFTER, |_, _| true)
    })
    .with_context(|| format!("node {index} did not come back"))?;
    pause(Duration::from_secs(10));
    Ok(())
}
