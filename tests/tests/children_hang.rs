//! Child processes of a node hang; the node notices that, and the others lose nothing.

use anyhow::{Result, ensure};
use lab::{is_skipped_without_root, measure::hang};
use std::time::Duration;

/// The longest time until the node is well again. A child is given up after ten seconds without a sign of life, and has three
/// more to exit.
const MAX_TIME: Duration = Duration::from_secs(25);

#[test]
fn a_node_whose_children_hang_is_well_within_seconds_and_the_others_lose_nothing() -> Result<()> {
    if is_skipped_without_root("children_hang") {
        return Ok(());
    }
    let measured = hang::measure()?;
    ensure!(measured.is_well_within(MAX_TIME), "{measured:?}");
    Ok(())
}
