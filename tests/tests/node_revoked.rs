//! A node is revoked: the others have nothing to do with it from then on, and notice nothing else.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, PingSchedule, is_skipped_without_root,
    pinger::{all_pairs, pairs_with, pairs_without},
    wait::{pause, wait_until},
};
use std::time::Duration;

/// The node that is revoked.
const VICTIM: usize = 0;
/// Time without any reply after which the node counts as gone.
const SILENCE: Duration = Duration::from_secs(2);
/// Time after which the others have closed the revoked node's tunnels, which drain first.
const TUNNELS_CLOSED: Duration = Duration::from_secs(12);
/// Time for which the revoked node tries to return.
const RETURN_ATTEMPTS: Duration = Duration::from_secs(20);

#[test]
fn a_revoked_node_is_gone_for_all_others_and_cannot_return() -> Result<()> {
    if is_skipped_without_root("node_revoked") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(4))?;
    let pinger = lab.start_pings(PingSchedule::Every(Duration::from_millis(50)))?;
    wait_until(Duration::from_secs(10), || {
        pinger.all_answered(Duration::ZERO, all_pairs)
    })
    .context("some pair has had no reply within 10 s")?;
    let victim = lab.node(VICTIM)?;
    lab.revoke(victim.prefix()?)?;
    let is_silent = || {
        let since = pinger.now().checked_sub(SILENCE)?;
        let pairs = pinger.read_records(pairs_with(VICTIM), |record| {
            record.last_answered() < Some(since)
        });
        pairs.iter().all(|(.., is_silent)| *is_silent).then_some(())
    };
    wait_until(Duration::from_secs(30), is_silent)
        .context("the revoked node still answers after 30 s")?;

    // The node starts again with everything that it remembers.
    pause(TUNNELS_CLOSED);
    victim.stop();
    let restarted_at = pinger.now();
    victim.start()?;
    pause(RETURN_ATTEMPTS);
    let victims_pings = pinger.summarize(restarted_at, pinger.now(), pairs_with(VICTIM));
    assert_eq!(victims_pings.answered, 0);
    let others_pings = pinger.summarize(restarted_at, pinger.now(), pairs_without(VICTIM));
    assert_eq!(others_pings.lost, 0, "{others_pings:?}");
    Ok(())
}
