//! Closes that are given up: an operator orders to close the only tunnel again and again.

use super::Watch;
use crate::{Lab, Options, node::Node, prometheus::Prometheus, wait::wait_until};
use anyhow::{Context, Result};
use std::time::Duration;

/// The sample that counts closes that were given up.
const ABANDONED: &str = "warren_drains_total{outcome=\"abandoned\"}";
/// The dialling slot of the only tunnel.
const SLOT: &str = "wrn0";
/// How often the close is ordered; the alert fires at more than three.
const ORDERS: usize = 5;
/// Longest wait until a close is given up.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn measure() -> Result<Watch> {
    let lab = Lab::build_joined(Options {
        nodes: 2,
        tunnels_to_dial: Some(1),
        ..Options::default()
    })?;
    // Only one node dials, so that there is one tunnel.
    lab.node(0)?.configure("max-accepted", "0")?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let mut watch = Watch::start_quiet(&lab)?;
    let node = lab.node(0)?;
    watch.fire_once(
        "the only tunnel is to be closed five times",
        &["WarrenDrainsAbandoned"],
        || (0..ORDERS).try_for_each(|_| close_in_vain(node)),
    )?;
    watch.end(|| Ok(()))?;
    Ok(watch)
}

/// Orders to close the only tunnel, and waits until that has been given up.
fn close_in_vain(node: &Node) -> Result<()> {
    let before = node.metric(ABANDONED)?;
    // A tunnel that has just been given up takes no order for a moment.
    wait_until(TIMEOUT, || node.warren_command(&["close", SLOT]).ok())
        .with_context(|| node.describe("takes no order to close its tunnel"))?;
    let is_given_up = || (node.metric(ABANDONED).ok()? > before).then_some(());
    wait_until(TIMEOUT, is_given_up)
        .with_context(|| node.describe("does not give up to close its only tunnel"))
}
