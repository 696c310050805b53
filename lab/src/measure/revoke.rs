//! Measures how long a revoked node stays in the network, what the others lose by it, and whether one that was
//! away is let in again.

use super::{dial, pause, prepare, seconds, start_whole, tell, wait_routes};
use crate::{
    Lab, Options, Pace, Pinger, kernel_routes::Routes, ping_record::LOST_AFTER, process::wait_until,
};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::{collections::BTreeSet, time::Duration};

/// Connected nodes that are revoked, one after the other.
const RUNS: usize = 3;
/// Sixteen nodes at 50 ms are 4,800 pings a second over two hops each, which two cores do not carry: a third
/// was lost, and tunnels died of it.
const PACE: Pace = Pace::Every(Duration::from_millis(250));
/// Between convergence and the first revocation, and between two.
const REST: Duration = Duration::from_secs(10);
/// A node that still answers after this long is not gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Gone is who has answered nobody, and got no answer, for so long.
const SILENT: Duration = Duration::from_secs(3);
/// By then its tunnels, which drained for the sake of the others, have been cut off.
const CUT: Duration = Duration::from_secs(12);
/// So long a node that was away when it was revoked tries to get in.
const KNOCKS: Duration = Duration::from_secs(20);

/// What `measure revoke` prints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Revoke {
    /// Nodes of the lab.
    pub nodes: usize,
    /// Connected nodes that were revoked.
    pub runs: usize,
    /// From the operator's command until the last ping to or from the node that was answered.
    pub seconds_max: f64,
    /// From the command until every other node holds the list.
    pub spread_seconds_max: f64,
    /// Pings between the others that were lost meanwhile.
    pub others_lost: u64,
    /// And how many they sent.
    pub others_sent: u64,
    /// A node that was away when it was revoked, and came back: pings of it that anybody answered.
    pub away_answered: u64,
    /// How often it was refused.
    pub away_refused: usize,
}

/// Measures once.
///
/// # Errors
/// Where the lab cannot be built, or a revoked node does not go.
pub fn measure(nodes: usize) -> Result<Revoke> {
    let lab = prepare(Options {
        nodes,
        dial: Some(dial(nodes)),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    pause(REST);
    let pinger = lab.ping(PACE)?;
    let mut told = Revoke {
        nodes,
        runs: 0,
        seconds_max: 0.0,
        spread_seconds_max: 0.0,
        others_lost: 0,
        others_sent: 0,
        away_answered: 0,
        away_refused: 0,
    };
    let mut gone = BTreeSet::new();
    while told.runs < RUNS {
        let victim =
            needed(&wait_routes_without(&lab, &gone)?, &lab, &gone).context("no node is left")?;
        run(&lab, &pinger, victim, &mut gone, &mut told)?;
        pause(REST);
    }
    away(&lab, &pinger, &mut gone, &mut told)?;
    Ok(told)
}

/// The node that most pairs need, of those that are left.
fn needed(routes: &Routes, lab: &Lab, gone: &BTreeSet<usize>) -> Option<usize> {
    let left = (0..lab.nodes().len()).filter(|node| !gone.contains(node));
    left.max_by_key(|node| routes.pairs_through(*node).len())
}

fn wait_routes_without(lab: &Lab, gone: &BTreeSet<usize>) -> Result<Routes> {
    if gone.is_empty() {
        return wait_routes(lab);
    }
    Routes::read(lab)
}

fn run(
    lab: &Lab,
    pinger: &Pinger,
    victim: usize,
    gone: &mut BTreeSet<usize>,
    told: &mut Revoke,
) -> Result<()> {
    let through = Routes::read(lab)?.pairs_through(victim).len();
    let others: Vec<usize> = (0..lab.nodes().len())
        .filter(|node| *node != victim && !gone.contains(node))
        .collect();
    let before = held(lab, *others.first().context("nobody is left")?)?;
    let prefix = lab.node(victim)?.identity()?.prefix.clone();
    tell(format!(
        "revoking node {victim}, {prefix}, which {through} pairs need"
    ));
    let begun = pinger.now();
    lab.revoke(&prefix)?;
    let spread = wait_until(PATIENCE, || {
        let all = others
            .iter()
            .all(|node| held(lab, *node).is_ok_and(|version| version > before));
        all.then(|| pinger.now())
    });
    let spread = spread
        .context("the list did not reach all others")?
        .saturating_sub(begun);
    let touches = |from: usize, to: usize| {
        (from == victim && !gone.contains(&to)) || (to == victim && !gone.contains(&from))
    };
    let last = || {
        let pairs = pinger.ask(touches, crate::ping_record::Pair::last_answered);
        pairs
            .into_iter()
            .filter_map(|(.., last)| last)
            .max()
            .unwrap_or_default()
    };
    let silent = || (pinger.now().saturating_sub(last()) >= SILENT).then(last);
    let Some(last) = wait_until(PATIENCE, silent) else {
        bail!("node {victim} is still there")
    };
    gone.insert(victim);
    pause(CUT.saturating_sub(pinger.now().saturating_sub(begun)) + LOST_AFTER + SILENT);
    let survives = |from: usize, to: usize| !gone.contains(&from) && !gone.contains(&to);
    let sum = pinger.sum_up(begun, pinger.now(), survives);
    let span = last.saturating_sub(begun);
    told.runs += 1;
    told.seconds_max = told.seconds_max.max(seconds(span));
    told.spread_seconds_max = told.spread_seconds_max.max(seconds(spread));
    told.others_lost += sum.lost;
    told.others_sent += sum.sent;
    tell(format!(
        "gone after {:.2} s; all others held the list after {:.2} s, and lost {} of {} pings",
        span.as_secs_f64(),
        spread.as_secs_f64(),
        sum.lost,
        sum.sent
    ));
    for line in pinger.losses(begun, pinger.now(), survives) {
        tell(line);
    }
    Ok(())
}

/// A node stops, is revoked while it is away, and comes back with all that it remembers.
fn away(lab: &Lab, pinger: &Pinger, gone: &mut BTreeSet<usize>, told: &mut Revoke) -> Result<()> {
    let victim = (0..lab.nodes().len())
        .find(|node| !gone.contains(node))
        .context("nobody is left")?;
    let node = lab.node(victim)?;
    node.stop();
    let prefix = node.identity()?.prefix.clone();
    tell(format!(
        "revoking node {victim}, {prefix}, while it is away"
    ));
    lab.revoke(&prefix)?;
    pause(REST);
    let begun = pinger.now();
    node.start()?;
    pause(KNOCKS);
    let touches = |from: usize, to: usize| from == victim || to == victim;
    told.away_answered = pinger.sum_up(begun, pinger.now(), touches).answered;
    let others = lab
        .nodes()
        .iter()
        .filter(|node| node.index() != victim && !gone.contains(&node.index()));
    told.away_refused = others.map(|node| refusals(node, &prefix)).sum();
    tell(format!(
        "it was refused {} times; {} answers",
        told.away_refused, told.away_answered
    ));
    gone.insert(victim);
    Ok(())
}

/// Lines of a node's log that say that OpenVPN or the daemon refused that peer.
fn refusals(node: &crate::node::Node, prefix: &str) -> usize {
    let text = std::fs::read_to_string(node.log()).unwrap_or_default();
    let refused =
        |line: &&str| line.contains("revoked certificate refused") && line.contains(prefix);
    text.lines().filter(refused).count()
}

/// Version of the revocations that a node holds.
fn held(lab: &Lab, node: usize) -> Result<u64> {
    super::metric(
        lab.node(node)?,
        "warren_document_version{document=\"revocations\"}",
    )
}
