//! Measures how long a newcomer takes from nothing to the first reply of another node.

use crate::{
    Lab, Options,
    network::tunnels_to_dial,
    pinger::{PingSchedule, Pinger, all_pairs},
    progress::{progress, round, seconds},
    wait::wait_until,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Nodes that run before the newcomers join.
const EARLIER_NODES: usize = 4;
/// Newcomers with an invitation; as many others join by file.
const NEWCOMERS: usize = 5;
/// A newcomer that gets no reply within this time never will.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between two pings of a newcomer.
const PING_INTERVAL: Duration = Duration::from_millis(10);

/// The output of `measure join`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct JoinTimes {
    /// Newcomers that joined by invitation, one after the other.
    pub joins: usize,
    /// The longest time from the start of `warren join` until a node of the network answered a ping. The daemon was
    /// started as soon as the command had finished.
    pub seconds_max: f64,
    /// The mean of these times.
    pub seconds_mean: f64,
    /// Newcomers whose signing request and certificate were carried by file.
    pub joins_by_file: usize,
    /// The longest time of a newcomer that joined by file.
    pub seconds_by_file_max: f64,
}

/// Measures once.
///
/// # Errors
/// Fails if the lab cannot be built, or if a newcomer gets no reply within a minute.
pub fn measure() -> Result<JoinTimes> {
    let nodes = EARLIER_NODES + 2 * NEWCOMERS;
    let lab = build_with_earlier_nodes(nodes)?;
    let mut times = JoinTimes::default();
    let mut sum = 0.0;
    for index in EARLIER_NODES..EARLIER_NODES + NEWCOMERS {
        let span = measure_newcomer(&lab, index, |lab, index| {
            lab.node(index)?.join(&lab.invite(&[])?)
        })?;
        times.joins += 1;
        sum += seconds(span);
        times.seconds_max = times.seconds_max.max(seconds(span));
    }
    for index in EARLIER_NODES + NEWCOMERS..nodes {
        let span = measure_newcomer(&lab, index, Lab::join_by_file)?;
        times.joins_by_file += 1;
        times.seconds_by_file_max = times.seconds_by_file_max.max(seconds(span));
    }
    times.seconds_mean = round(sum / f64::from(u32::try_from(times.joins)?), 3);
    Ok(times)
}

/// Builds a network in which only the first nodes have joined and run.
fn build_with_earlier_nodes(nodes: usize) -> Result<Lab> {
    let lab = Lab::build(Options {
        nodes,
        tunnels_to_dial: Some(tunnels_to_dial(EARLIER_NODES)),
        ..Options::default()
    })?;
    lab.init_registry()?;
    lab.start_registry()?;
    for node in lab.nodes().iter().take(EARLIER_NODES) {
        node.join(&lab.invite(&[])?)?;
        node.start()?;
    }
    let hosts = lab.ping_hosts(0..EARLIER_NODES)?;
    let pinger = Pinger::start(&hosts, PingSchedule::UNTIL_ANSWERED)?;
    wait_until(REPLY_TIMEOUT, || {
        pinger.all_answered(Duration::ZERO, all_pairs)
    })
    .context("the first nodes do not reach each other within a minute")?;
    progress(format!("{EARLIER_NODES} nodes run"));
    Ok(lab)
}

/// Lets one node join by `join`, starts it, and returns the time until node 0 answered its ping.
fn measure_newcomer(
    lab: &Lab,
    index: usize,
    join: impl FnOnce(&Lab, usize) -> Result<()>,
) -> Result<Duration> {
    let start = Instant::now();
    join(lab, index)?;
    let joined_after = start.elapsed();
    let node = lab.node(index)?;
    node.start()?;
    let mut hosts = lab.ping_hosts(0..1)?;
    hosts.extend(lab.ping_hosts(index..index + 1)?);
    let pinger = Pinger::start(&hosts, PingSchedule::UntilAnswered(PING_INTERVAL))?;
    let answered_at = wait_until(REPLY_TIMEOUT, || {
        pinger.all_answered(Duration::ZERO, |from, _| from == 1)
    });
    let answered_at = answered_at.with_context(|| node.describe("got no reply within a minute"))?;
    // The pinger's clock started after the command.
    let span = start.elapsed().saturating_sub(pinger.now()) + answered_at;
    progress(format!(
        "node {index}: joined after {:.2} s, first reply after {:.2} s",
        joined_after.as_secs_f64(),
        span.as_secs_f64()
    ));
    Ok(span)
}
