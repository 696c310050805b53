//! The network asks for newer software: each node says so, and goes on.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, is_left_out,
    measure::{CALM, metric, start_whole},
    process::wait_until,
};
use std::time::Duration;
use wire::control::{STATUS_PATH, StatusDocument};

#[test]
fn a_node_that_is_too_old_says_so_and_goes_on() -> Result<()> {
    if is_left_out("upgrade_wanted") {
        return Ok(());
    }
    let lab = Lab::joined(Options {
        nodes: 2,
        ..Options::default()
    })?;
    start_whole(&lab)?;
    lab.registry_command("set", &["min-version".to_owned(), "99.0.0".to_owned()])?;
    for node in lab.nodes() {
        let says = || {
            metric(node, "warren_upgrade_wanted")
                .ok()
                .filter(|wanted| *wanted == 1)
        };
        let said = wait_until(Duration::from_secs(120), says);
        said.with_context(|| {
            format!(
                "node {} does not say so: {}",
                node.index(),
                node.log_tail(10)
            )
        })?;
        let status: StatusDocument = node.ask(STATUS_PATH)?;
        assert_eq!(status.upgrade_to.as_deref(), Some("99.0.0"));
    }
    let pinger = lab.ping(CALM)?;
    let answered = wait_until(Duration::from_secs(20), || {
        pinger.all_answered(Duration::ZERO, |_, _| true)
    });
    answered.context("a node that is too old does not answer any more")?;
    Ok(())
}
