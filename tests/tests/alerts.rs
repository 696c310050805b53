//! Provokes alerts by their faults: a real Prometheus with the shipped rules scrapes real networks, and a real Alertmanager gets each
//! alert by its fault.

use anyhow::Result;
use lab::{
    is_skipped_without_root,
    measure::alerts::{Extent, Group, measure},
    progress::progress,
};

/// Provokes the alerts of one group whose faults take seconds.
fn check(group: Group) -> Result<()> {
    if is_skipped_without_root("alerts") {
        return Ok(());
    }
    let alerts = measure(&[group], Extent::Short)?;
    progress(format!("{alerts:?}"));
    assert_eq!(alerts.failed(), [""; 0]);
    Ok(())
}

#[test]
fn a_split_a_disconnected_node_and_dead_daemons_raise_their_alerts() -> Result<()> {
    check(Group::Network)
}

#[test]
fn processes_that_exit_again_and_again_and_a_lying_member_raise_their_alerts() -> Result<()> {
    check(Group::Processes)
}
