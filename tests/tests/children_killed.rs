//! Child processes of a node that others need get SIGTERM from somebody else; all pairs reach each other again soon.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Options, PingSchedule, Pinger, is_skipped_without_root,
    kernel_routes::KernelRoutes,
    measure::recover::{Child, FatalSignal},
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    wait::pause,
};
use std::{collections::BTreeSet, time::Duration};

/// Nodes of the network.
const NODES: usize = 6;
/// Time before the first fault; a child that has been up for ten seconds is restarted at once.
const SETTLING_TIME: Duration = Duration::from_secs(12);
/// Time in which the network recovers from one fault.
const RECOVERY_TIME: Duration = Duration::from_secs(8);
/// The longest gap that a pair of nodes may have. Without any recovery it would be the whole recovery time.
const MAX_GAP: Duration = Duration::from_secs(5);
/// Lines of the log of a node that a failure quotes.
const QUOTED_LOG_LINES: usize = 60;

#[test]
fn a_server_a_client_and_a_babeld_are_stopped_by_somebody_else_and_all_pairs_recover() -> Result<()>
{
    if is_skipped_without_root("children_killed") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    pause(SETTLING_TIME);
    for child in [
        Child::Named("server-udp"),
        Child::Client,
        Child::Named("babeld"),
    ] {
        let routes = lab.wait_for_complete_routes()?;
        let victim = (0..NODES)
            .max_by_key(|node| routes.pairs_through(*node).len())
            .context("the lab has no node")?;
        check_recovery((&lab, &routes), &pinger, victim, child)?;
    }
    assert_eq!(lab.stop_nodes(), [0; 0]);
    Ok(())
}

fn check_recovery(
    (lab, routes): (&Lab, &KernelRoutes),
    pinger: &Pinger,
    victim: usize,
    child: Child<'_>,
) -> Result<()> {
    let start = pinger.now();
    let (name, _) = child.send_signal(lab.node(victim)?, FatalSignal::Term)?;
    pause(RECOVERY_TIME);
    let end = pinger.now();
    pause(LOST_AFTER);
    let pings = pinger.summarize(start, end, all_pairs);
    ensure!(
        pings.longest_gap < MAX_GAP,
        "{name} of node {victim}: {pings:?}\n{}",
        explain_gap((lab, routes), pinger, (start, end), victim)?
    );
    Ok(())
}

/// The losses of each second, and what concerns the pair with the longest gap.
/// These are its paths before the fault and now, and the logs of its two nodes and of the victim.
fn explain_gap(
    (lab, before): (&Lab, &KernelRoutes),
    pinger: &Pinger,
    (start, end): (Duration, Duration),
    victim: usize,
) -> Result<String> {
    let now = pinger.now();
    let gaps = pinger.read_records(all_pairs, |record| {
        record.summarize(start, end, now).longest_gap
    });
    let (from, to, gap) = gaps
        .into_iter()
        .max_by_key(|(.., gap)| *gap)
        .context("no pair was pinged")?;
    let losses = pinger.describe_losses(start, end, all_pairs);
    let (old, new) = (
        before.path(from, to),
        KernelRoutes::read(lab)?.path(from, to),
    );
    let logs = BTreeSet::from([from, to, victim]).into_iter().map(|index| {
        let log = lab.node(index)?.log_tail(QUOTED_LOG_LINES);
        Ok(format!("the log of node {index} ends with:\n{log}"))
    });
    let logs: Vec<String> = logs.collect::<Result<_>>()?;
    Ok(format!(
        "{}\nthe longest gap is that from {from} to {to}: {:.1} s; its path was {old:?}, and is {new:?}\n{}",
        losses.join("\n"),
        gap.as_secs_f64(),
        logs.join("\n")
    ))
}
