//! What other programs on the host take away from a node is restored within seconds, and reported.

use anyhow::{Result, ensure};
use lab::{
    is_skipped_without_root,
    measure::hosts::{self, Extent, Group},
};

#[test]
fn a_node_restores_what_others_take_away_and_reports_what_it_cannot_change() -> Result<()> {
    if is_skipped_without_root("host_meddling") {
        return Ok(());
    }
    let measured = hosts::measure(
        &[
            Group::Meddling,
            Group::Starts,
            Group::Surroundings,
            Group::Firewall,
        ],
        Extent::Short,
    )?;
    let failures = measured.failures();
    ensure!(failures.is_empty(), "{failures:#?}");
    Ok(())
}
