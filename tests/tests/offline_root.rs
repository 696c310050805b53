//! A network whose CA has a root above it, the root's key away from the registry.

use anyhow::{Context, Result};
use lab::{Lab, Options, Pace, is_left_out, measure::start_whole, spawn::wait_until};
use std::{fs, time::Duration};

/// Certificates in a PEM file.
fn count(text: &str) -> usize {
    text.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn nodes_below_an_offline_root_join_and_reach_each_other() -> Result<()> {
    if is_left_out("offline_root") {
        return Ok(());
    }
    let lab = Lab::joined(Options { nodes: 2, dial: Some(1), offline_root: true, ..Options::default() })?;
    let root = fs::read_to_string(lab.offline_root().join("root.crt"))?;
    assert!(!lab.registry_root().join("etc/warren-registry/root.key").exists());
    for node in lab.nodes() {
        let file = |name: &str| fs::read_to_string(node.root().join("etc/warren").join(name));
        assert_eq!((count(&file("node.crt")?), file("ca.crt")?.as_str()), (2, root.as_str()));
    }
    start_whole(&lab)?;
    let pinger = lab.ping(Pace::Every(Duration::from_millis(50)))?;
    wait_until(Duration::from_secs(10), || pinger.all_answered(Duration::ZERO, |_, _| true))
        .context("the nodes do not reach each other")?;
    Ok(())
}
