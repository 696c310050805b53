//! The network requires newer software: each node reports this, and goes on.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, PingSchedule, is_skipped_without_root, pinger::all_pairs, wait::wait_until,
};
use std::time::Duration;
use wire::control::{STATUS_PATH, StatusDocument};

/// The metric that is 1 while the network requires newer software.
const METRIC: &str = "warren_software_outdated";
/// A version that no node has.
const REQUIRED_VERSION: &str = "99.0.0";

#[test]
fn an_outdated_node_reports_that_it_is_outdated_and_goes_on() -> Result<()> {
    if is_skipped_without_root("software_outdated") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options {
        nodes: 2,
        ..Options::default()
    })?;
    lab.registry_command("set", &["min-version", REQUIRED_VERSION])?;
    for node in lab.nodes() {
        let is_reported = || (node.metric(METRIC).ok()? == 1).then_some(());
        wait_until(Duration::from_secs(120), is_reported)
            .with_context(|| node.describe("does not report that it is outdated"))?;
        let status: StatusDocument = node.control_document(STATUS_PATH)?;
        assert_eq!(status.minimum_version.as_deref(), Some(REQUIRED_VERSION));
    }
    let pinger = lab.start_pings(PingSchedule::UNTIL_ANSWERED)?;
    let answered_at = wait_until(Duration::from_secs(20), || {
        pinger.all_answered(Duration::ZERO, all_pairs)
    });
    answered_at.context("an outdated node no longer answers")?;
    Ok(())
}
