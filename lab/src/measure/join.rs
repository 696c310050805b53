//! Measures how long a newcomer needs from nothing to the first answered ping of a node's address.

use super::{dial, seconds, tell};
use crate::{Lab, Options, Pace, Pinger, process::wait_until};
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Nodes that are there before.
const LIVING: usize = 4;
/// Newcomers with an invitation, and as many by file.
const JOINS: usize = 5;
/// A newcomer that hears of nobody after this long never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `measure join` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Join {
    /// Newcomers, one after the other, by invitation.
    pub joins: usize,
    /// The longest time from the command `warren join` until a ping to a node of the network was answered; the
    /// daemon was started as soon as the command had ended.
    pub seconds_max: f64,
    /// The mean.
    pub seconds_mean: f64,
    /// Newcomers whose request and certificate were carried by file.
    pub joins_by_file: usize,
    /// The longest time of these.
    pub seconds_by_file_max: f64,
}

/// Measures once.
///
/// # Errors
/// Where the lab cannot be built, or a newcomer gets no answer within a minute.
pub fn measure() -> Result<Join> {
    let nodes = LIVING + 2 * JOINS;
    let lab = prepare_living(nodes)?;
    let mut told = Join::default();
    let mut sum = 0.0;
    for node in LIVING..LIVING + JOINS {
        let span = seconds(run(&lab, node, |lab, node| {
            lab.node(node)?.join(&lab.invite()?).map(drop)
        })?);
        told.joins += 1;
        sum += span;
        told.seconds_max = told.seconds_max.max(span);
    }
    for node in LIVING + JOINS..nodes {
        let span = seconds(run(&lab, node, Lab::join_by_file)?);
        told.joins_by_file += 1;
        told.seconds_by_file_max = told.seconds_by_file_max.max(span);
    }
    told.seconds_mean = (sum / f64::from(u32::try_from(told.joins)?) * 1000.0).round() / 1000.0;
    Ok(told)
}

/// A network in which only the first nodes have joined and run.
fn prepare_living(nodes: usize) -> Result<Lab> {
    let lab = Lab::new(Options {
        nodes,
        dial: Some(dial(LIVING)),
        ..Options::default()
    })?;
    lab.init_registry()?;
    lab.start_registry()?;
    for node in lab.nodes().iter().take(LIVING) {
        node.join(&lab.invite()?)?;
        node.start()?;
    }
    let places: Vec<_> = lab.places_of(0..LIVING)?;
    let pinger = Pinger::start(&places, super::CALM)?;
    wait_until(PATIENCE, || {
        pinger.all_answered(Duration::ZERO, |_, _| true)
    })
    .context("not whole")?;
    tell(format!("{LIVING} nodes live"));
    Ok(lab)
}

fn run(lab: &Lab, node: usize, join: impl FnOnce(&Lab, usize) -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    join(lab, node)?;
    let joined = begun.elapsed();
    lab.node(node)?.start()?;
    let mut places = lab.places_of(0..1)?;
    places.extend(lab.places_of(node..node + 1)?);
    let pinger = Pinger::start(&places, Pace::UntilAnswered(Duration::from_millis(10)))?;
    let answered = wait_until(PATIENCE, || {
        pinger.all_answered(Duration::ZERO, |from, _| from == 1)
    });
    let answered = answered.with_context(|| {
        format!(
            "node {node} got no answer: {}",
            lab.node(node)
                .map(|node| node.log_tail(15))
                .unwrap_or_default()
        )
    })?;
    // The pinger's clock began after the command.
    let span = begun.elapsed().saturating_sub(pinger.now()) + answered;
    tell(format!(
        "node {node}: joined after {:.2} s, first answer after {:.2} s",
        joined.as_secs_f64(),
        span.as_secs_f64()
    ));
    Ok(span)
}
