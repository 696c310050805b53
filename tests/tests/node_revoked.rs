//! A node is revoked: the others have nothing to do with it from then on, and do not notice otherwise.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, Pace, is_left_out,
    measure::{pause, start_whole},
    process::wait_until,
};
use std::time::Duration;

#[test]
fn a_revoked_node_is_gone_from_all_others_and_does_not_come_back() -> Result<()> {
    if is_left_out("revoked") {
        return Ok(());
    }
    let lab = Lab::joined(Options {
        nodes: 4,
        dial: Some(2),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    let pinger = lab.ping(Pace::Every(Duration::from_millis(50)))?;
    let victim = lab.node(0)?;
    let touches = |from: usize, to: usize| from == 0 || to == 0;
    wait_until(Duration::from_secs(10), || {
        pinger.all_answered(Duration::ZERO, |_, _| true)
    })
    .context("not whole")?;
    lab.revoke(&victim.identity()?.prefix)?;
    let silent = || {
        let recent = pinger.now().checked_sub(Duration::from_secs(2))?;
        let pairs = pinger.ask(touches, |pair| pair.last_answered() < Some(recent));
        pairs.iter().all(|(.., silent)| *silent).then_some(())
    };
    wait_until(Duration::from_secs(30), silent)
        .context("the revoked node is still there after 30 s")?;

    // It comes back with all that it knows; the others had time to cut its tunnels.
    pause(Duration::from_secs(12));
    victim.stop();
    let back = pinger.now();
    victim.start()?;
    pause(Duration::from_secs(20));
    assert_eq!(pinger.sum_up(back, pinger.now(), touches).answered, 0);
    let others = pinger.sum_up(back, pinger.now(), |from, to| !touches(from, to));
    assert_eq!(others.lost, 0, "{others:?}");
    Ok(())
}
