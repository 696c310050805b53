//! Certificates and CAs that expire, in a network whose CA is nearly ten years old.

use super::Watch;
use crate::{
    Lab, Options, measure::rotate::take_step, node::Node, prometheus::Prometheus, wait::wait_until,
};
use anyhow::{Context, Result};
use std::time::Duration;

/// Nodes of the network.
const NODES: usize = 3;
/// Age of the CA at the start: a hundred days before it expires.
const CA_AGE: Duration = Duration::from_secs(3_550 * 86_400);
/// Life of a certificate that expires soon, and that of others.
const SHORT_LIFE: &str = "3days";
const USUAL_LIFE: &str = "365days";
/// Longest wait until all nodes are ready after a restart.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The node whose certificate expires soon.
const EXPIRING: usize = 1;

pub(super) fn measure() -> Result<Watch> {
    let lab = Lab::build_joined(Options {
        ca_age: Some(CA_AGE),
        ..Options::with_nodes(NODES)
    })?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let mut watch = Watch::start(&lab)?;
    let expiring = ["WarrenCaExpires", "WarrenRegistryCaExpires"];
    watch.fire_from_start("the CA expires in 100 days", &expiring)?;
    watch.fire(
        "a certificate expires in three days",
        &["WarrenCertificateExpires"],
        || join_again(&lab, SHORT_LIFE),
    )?;
    watch.repair("WarrenCertificateExpires", || join_again(&lab, USUAL_LIFE))?;
    watch.fire("a second CA is trusted", &["WarrenProcessStale"], || {
        take_step(&lab, "rotate-ca", &["stage"]).map(drop)
    })?;
    watch.end(|| {
        // The registry accepts a step once all nodes use what the step before has changed.
        for step in ["activate", "retire"] {
            restart_all(&lab)?;
            take_step(&lab, "rotate-ca", &[step])?;
        }
        Ok(())
    })?;
    Ok(watch)
}

/// Restarts all daemons, so that no process uses old files any more.
fn restart_all(lab: &Lab) -> Result<()> {
    lab.stop_nodes();
    lab.start_nodes()?;
    // The node that joined again has another address, so that the lab's pings do not reach it.
    let are_ready = || {
        let mut nodes = lab.nodes().iter();
        let is_ready = |node: &Node| node.metric("warren_ready ").is_ok_and(|ready| ready == 1);
        nodes.all(is_ready).then_some(())
    };
    wait_until(READY_TIMEOUT, are_ready).context("a node is not ready after its restart")
}

/// Lets a node join again, with a certificate of this life.
fn join_again(lab: &Lab, life: &str) -> Result<()> {
    let node = lab.node(EXPIRING)?;
    lab.registry_command("set", &["certificate-life", life])?;
    node.stop_cleanly()?;
    node.warren_command(&["join", "--replace", &lab.invite(&[])?])?;
    // Joining again writes a new configuration.
    Prometheus::configure_node(node)?;
    node.start()
}
