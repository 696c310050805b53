//! Shows a network that lives: it forms, loses a node, closes a tunnel that is not used.
//!
//! Every figure that is printed was measured in this run.

use crate::{
    Lab, Options, Pinger,
    closing_monitor::{Closing, Watch},
    measure::{PACE, dial, drain::describe, pause, prepare, start_whole, tell, wait_routes},
    ping_record::LOST_AFTER,
    process::wait_until,
};
use anyhow::{Context, Result, bail};
use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

/// Nodes of the demo.
const NODES: usize = 8;
/// How long a closing is waited for; with all else the demo stays below three minutes.
const CLOSING_PATIENCE: Duration = Duration::from_secs(110);
/// An underused tunnel is preferred so long to one that is closed for another reason.
const UNDERUSED_PATIENCE: Duration = Duration::from_secs(60);
/// Shorter than a real network would have it, so that one sees something.
const REFRESH: Duration = Duration::from_secs(15);
/// The same.
const MIN_AGE: Duration = Duration::from_secs(20);
/// Lines of the scrape that are shown.
const EXCERPT: usize = 8;

/// Runs the demo; with `keep`, stays until Ctrl-C.
///
/// # Errors
/// Where anything that it shows does not happen.
pub fn show(keep: bool) -> Result<()> {
    let options = Options {
        nodes: NODES,
        dial: Some(dial(NODES)),
        refresh: Some(REFRESH),
        min_age: Some(MIN_AGE),
        ..Options::default()
    };
    let lab = prepare(options)?;
    let mut summary = vec![format!("nodes joined: {NODES}")];
    let whole = start_whole(&lab)?;
    let hops = wait_routes(&lab)?.mean_hops().unwrap_or_default();
    summary.push(format!("mean hops over all pairs: {hops:.2}"));
    summary.push(format!(
        "seconds until all pairs reach each other: {:.2}",
        whole.as_secs_f64()
    ));

    // Nodes that dialled each other while all started close one of the two tunnels first.
    tell("letting it settle");
    pause(Duration::from_secs(10));
    let mut watch = Watch::new(&lab);
    let pinger = lab.ping(PACE)?;
    summary.extend(closing(&lab, &pinger, &mut watch)?);
    let excerpt = excerpt(&lab)?;
    summary.push(death(&lab, &pinger)?);
    summary.extend(excerpt);
    drop(pinger);

    let mut out = std::io::stdout();
    for line in summary {
        writeln!(out, "{line}").context("cannot write to the standard output")?;
    }
    if keep {
        how_to_look_around(&lab).iter().for_each(tell);
        return stay();
    }
    tell("stopping all nodes");
    let stubborn = lab.stop_all();
    if !stubborn.is_empty() {
        bail!("these nodes did not stop orderly: {stubborn:?}");
    }
    Ok(())
}

/// Waits for the first planned closing and counts what it lost.
fn closing(lab: &Lab, pinger: &Pinger, watch: &mut Watch) -> Result<Vec<String>> {
    tell("waiting for a planner to close an underused tunnel");
    let begun = Instant::now();
    let closing: Closing = loop {
        watch.look(lab)?;
        watch.news().iter().for_each(tell);
        let mut closings = watch.completed();
        let any = begun.elapsed() > UNDERUSED_PATIENCE;
        if let Some(closing) = closings.find(|closing| any || closing.decision.reason == "unused") {
            break closing.clone();
        }
        if begun.elapsed() > CLOSING_PATIENCE {
            bail!(
                "no planner closed a tunnel within {} s",
                CLOSING_PATIENCE.as_secs()
            );
        }
        pause(Duration::from_millis(250));
    };
    describe(&closing);
    let (start, end) = closing.span(pinger);
    pause(LOST_AFTER + Duration::from_secs(4));
    let sum = pinger.sum_up(start, end, |_, _| true);
    tell(format!(
        "{} of {} pings were lost meanwhile, all pairs counted",
        sum.lost, sum.sent
    ));
    pinger.losses(start, end, |_, _| true).iter().for_each(tell);
    Ok(vec![
        format!(
            "tunnel closed by its planner: node {} {} to node {}, reason {}",
            closing.node, closing.decision.slot, closing.peer, closing.decision.reason
        ),
        format!("what it carried: {}", closing.decision.terms),
        format!(
            "packets lost during that closing: {} of {}",
            sum.lost, sum.sent
        ),
    ])
}

/// Kills the node that most pairs need and waits until the others reach each other again.
fn death(lab: &Lab, pinger: &Pinger) -> Result<String> {
    let routes = wait_routes(lab)?;
    let needed = |node: &usize| routes.pairs_through(*node).len();
    let victim = (0..NODES).max_by_key(needed).context("no node")?;
    let pairs = needed(&victim);
    tell(format!(
        "cutting off node {victim}, which {pairs} pairs of others need, without a word"
    ));
    let start = pinger.now();
    lab.cut(victim)?;
    lab.node(victim)?.kill();
    let survives = |from: usize, to: usize| from != victim && to != victim;
    pause(Duration::from_secs(5));
    let healed = wait_until(Duration::from_secs(60), || {
        let recent = pinger.now().saturating_sub(Duration::from_millis(500));
        let alive = pinger.ask(survives, |pair| pair.last_answered() >= Some(recent));
        alive.iter().all(|(.., alive)| *alive).then(|| pinger.now())
    });
    let healed = healed.context("the network did not heal within a minute")?;
    pause(LOST_AFTER + Duration::from_millis(100));
    let sum = pinger.sum_up(start, healed, survives);
    let gap = sum.longest_gap.as_secs_f64();
    tell(format!(
        "the others reach each other again; the longest gap of any pair was {gap:.2} s"
    ));
    lab.mend(victim)?;
    lab.node(victim)?.start()?;
    Ok(format!(
        "seconds to heal after node {victim} was killed ({pairs} pairs needed it): {gap:.2}"
    ))
}

/// Some lines of one node's metrics that are not zero.
fn excerpt(lab: &Lab) -> Result<Vec<String>> {
    let scrape = lab.node(0)?.scrape()?;
    let wanted = [
        "warren_tunnel_receive_bytes_total",
        "warren_tunnel_nodes_served",
        "warren_decisions_total",
    ];
    let lines = scrape
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    let lines: Vec<String> = lines
        .filter(|line| !line.ends_with(" 0"))
        .map(ToOwned::to_owned)
        .collect();
    if lines.is_empty() {
        bail!("node 0 serves no metrics of tunnels");
    }
    let head = ["from the metrics of node 0:".to_owned()];
    Ok(head
        .into_iter()
        .chain(
            lines
                .into_iter()
                .take(EXCERPT)
                .map(|line| format!("  {line}")),
        )
        .collect())
}

/// Commands to try while a lab runs.
pub fn how_to_look_around(lab: &Lab) -> Vec<String> {
    let Some(node) = lab.nodes().first() else {
        return Vec::new();
    };
    let (namespace, root) = (node.namespace(), node.root().display());
    vec![
        "the network stays until Ctrl-C; look around with:".to_owned(),
        format!("  warren tunnels --root {root}"),
        format!("  warren why --root {root}"),
        format!("  ip netns exec {namespace} ip -6 route show table 197"),
        format!("  ip netns exec {namespace} curl -s http://127.0.0.1:9197/metrics"),
        format!("  tail -f {}", node.log().display()),
    ]
}

/// Waits for a signal, whose handler takes the lab down.
///
/// # Errors
/// Never; it does not return.
pub fn stay() -> Result<()> {
    loop {
        thread::park();
    }
}
