//! Shows a living network: it converges, closes a tunnel that is not used, and loses a node.
//!
//! Every printed figure was measured in this run.

use crate::{
    Lab, Options, Pinger,
    closing_monitor::{ClosingMonitor, TunnelClosing},
    measure::drain::report_closing,
    ping_record::LOST_AFTER,
    pinger::{PingSchedule, all_pairs, pairs_without},
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

/// Nodes of the demo.
const NODES: usize = 8;
/// Longest wait for a closing; together with everything else the demo takes less than three minutes.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(110);
/// Time in which only the closing of an unused tunnel is shown; after it, one with any reason.
const UNUSED_TUNNEL_TIMEOUT: Duration = Duration::from_secs(60);
/// Shorter than in a real network, so that something happens while one watches.
const REFRESH: Duration = Duration::from_secs(15);
/// Shorter than in a real network, for the same reason.
const MIN_AGE: Duration = Duration::from_secs(20);
/// Pause between convergence and the first ping.
const SETTLING_TIME: Duration = Duration::from_secs(10);
/// Interval between two readings of the decisions.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Pause after a closing, beyond the time after which a ping is lost.
const CLOSING_AFTERMATH: Duration = Duration::from_secs(4);
/// Time after the fault before recovery is checked, so that the fault has had an effect.
const MIN_RECOVERY_TIME: Duration = Duration::from_secs(5);
/// Longest wait until the surviving nodes reach each other again.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// A pair has recovered if a ping of this last span was answered.
const RECENT: Duration = Duration::from_millis(500);
/// Lines of the metrics that are shown.
const METRIC_LINES: usize = 8;
/// The metrics that are shown.
const SHOWN_METRICS: [&str; 3] = [
    "warren_tunnel_receive_bytes_total",
    "warren_tunnel_nodes_served",
    "warren_decisions_total",
];

/// Runs the demo; with `keep_running`, leaves the network running until Ctrl-C.
///
/// # Errors
/// Fails if anything that the demo shows does not happen.
pub fn run(keep_running: bool) -> Result<()> {
    let lab = Lab::build_joined(Options {
        refresh: Some(REFRESH),
        min_age: Some(MIN_AGE),
        ..Options::with_nodes(NODES)
    })?;
    let converged_after = lab.start_and_converge()?.as_secs_f64();
    let routes = lab.wait_for_complete_routes()?;
    let mean_hops = routes.mean_hops().unwrap_or_default();
    let mut summary = vec![
        format!("nodes joined: {NODES}"),
        format!("mean hops over all pairs: {mean_hops:.2}"),
        format!("seconds until all pairs reach each other: {converged_after:.2}"),
    ];
    // Nodes that dialled each other during the start first close one of the two tunnels.
    progress("letting the network settle");
    pause(SETTLING_TIME);
    let mut monitor = ClosingMonitor::new(&lab);
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    summary.extend(show_closing(&lab, &pinger, &mut monitor)?);
    let figures = [tunnels_of_first(&lab)?, metrics_excerpt(&lab)?];
    summary.push(show_recovery(&lab, &pinger)?);
    summary.extend(figures.concat());
    drop(pinger);

    let mut stdout = std::io::stdout();
    for line in summary {
        writeln!(stdout, "{line}").context("cannot write to the standard output")?;
    }
    if keep_running {
        wait_for_signal(&lab);
    }
    progress("stopping all nodes");
    let killed = lab.stop_nodes();
    ensure!(
        killed.is_empty(),
        "these nodes did not stop in time and were killed: {killed:?}"
    );
    Ok(())
}

/// Waits for the first planned closing, and counts what it lost.
fn show_closing(lab: &Lab, pinger: &Pinger, monitor: &mut ClosingMonitor) -> Result<Vec<String>> {
    progress("waiting for a planner to close a tunnel that is not used");
    let closing = wait_for_closing(lab, monitor)?;
    report_closing(&closing);
    let (start, end) = closing.span(pinger);
    pause(LOST_AFTER + CLOSING_AFTERMATH);
    let pings = pinger.summarize(start, end, all_pairs);
    progress(format!(
        "{} of {} pings were lost meanwhile, over all pairs",
        pings.lost, pings.sent
    ));
    for line in pinger.describe_losses(start, end, all_pairs) {
        progress(line);
    }
    Ok(vec![
        format!(
            "tunnel closed by its planner: node-{} {} to node-{}, reason {}",
            closing.node, closing.decision.slot, closing.peer, closing.decision.reason
        ),
        format!("what the tunnel carried: {}", closing.decision.terms),
        format!(
            "packets lost during that closing: {} of {}",
            pings.lost, pings.sent
        ),
    ])
}

fn wait_for_closing(lab: &Lab, monitor: &mut ClosingMonitor) -> Result<TunnelClosing> {
    let start = Instant::now();
    loop {
        monitor.poll(lab)?;
        for line in monitor.take_decision_lines() {
            progress(line);
        }
        let accepts_any_reason = start.elapsed() > UNUSED_TUNNEL_TIMEOUT;
        let mut closings = monitor.completed();
        if let Some(closing) =
            closings.find(|closing| accepts_any_reason || closing.decision.reason == "unused")
        {
            return Ok(closing.clone());
        }
        if start.elapsed() > CLOSING_TIMEOUT {
            bail!(
                "no planner closed a tunnel within {} s",
                CLOSING_TIMEOUT.as_secs()
            );
        }
        pause(POLL_INTERVAL);
    }
}

/// Unplugs and kills the node that most pairs need, and measures until the others reach each other again.
fn show_recovery(lab: &Lab, pinger: &Pinger) -> Result<String> {
    let routes = lab.wait_for_complete_routes()?;
    let needed_by = |node: &usize| routes.pairs_through(*node).len();
    let victim = (0..NODES)
        .max_by_key(needed_by)
        .context("the lab has no node")?;
    let pairs = needed_by(&victim);
    progress(format!(
        "unplugging and killing node-{victim}, which {pairs} pairs of others need"
    ));
    let start = pinger.now();
    lab.unplug(victim)?;
    lab.node(victim)?.kill();
    pause(MIN_RECOVERY_TIME);
    wait_until(RECOVERY_TIMEOUT, || {
        let silent_pairs = pinger.silent_pairs(RECENT, pairs_without(victim));
        silent_pairs.is_empty().then_some(())
    })
    .context("the other nodes did not reach each other again within a minute")?;
    let end = pinger.now();
    pause(LOST_AFTER + Duration::from_millis(100));
    let pings = pinger.summarize(start, end, pairs_without(victim));
    let gap = pings.longest_gap.as_secs_f64();
    progress(format!(
        "the others reach each other again; the longest gap of any pair was {gap:.2} s"
    ));
    lab.plug_in(victim)?;
    lab.node(victim)?.start()?;
    Ok(format!(
        "seconds to recover after node-{victim} was killed ({pairs} pairs needed it): {gap:.2}"
    ))
}

/// What `warren tunnels` prints on the first node.
fn tunnels_of_first(lab: &Lab) -> Result<Vec<String>> {
    let printed = lab.node(0)?.warren_command(&["tunnels"])?;
    let mut excerpt = vec!["warren tunnels, on node-0:".to_owned()];
    excerpt.extend(printed.lines().map(|line| format!("  {line}")));
    Ok(excerpt)
}

/// Some lines of one node's metrics that are not zero.
fn metrics_excerpt(lab: &Lab) -> Result<Vec<String>> {
    let metrics = lab.node(0)?.scrape()?;
    let is_shown = |line: &&str| {
        let mut names = SHOWN_METRICS.iter();
        names.any(|name| line.starts_with(name)) && !line.ends_with(" 0")
    };
    let lines = metrics.lines().filter(is_shown).take(METRIC_LINES);
    let mut excerpt = vec!["from the metrics of node-0:".to_owned()];
    excerpt.extend(lines.map(|line| format!("  {line}")));
    ensure!(excerpt.len() > 1, "node-0 has no metrics of its tunnels");
    Ok(excerpt)
}

/// Prints commands to try on a running lab, and waits for a signal, which removes the lab and ends the process.
pub fn wait_for_signal(lab: &Lab) -> ! {
    progress("the network runs until Ctrl-C; to look around:");
    if let Some(node) = lab.nodes().first() {
        let (namespace, root) = (node.namespace(), node.root().display());
        for command in [
            format!("warren tunnels --root {root}"),
            format!("warren why --root {root}"),
            format!("ip netns exec {namespace} ip -6 route show table 197"),
            format!("ip netns exec {namespace} curl -s http://127.0.0.1:9197/metrics"),
            format!("tail -f {}", node.log_file().display()),
        ] {
            progress(format!("  {command}"));
        }
    }
    loop {
        thread::park();
    }
}
