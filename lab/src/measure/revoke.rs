//! Measures how soon a revoked node has left the network, what the other nodes lose by it, and whether a node that was
//! revoked while it was absent can return.

use crate::{
    Lab, Node, Options, Pinger,
    kernel_routes::KernelRoutes,
    ping_record::{LOST_AFTER, PingRecord},
    pinger::{PingSchedule, pairs_with},
    progress::{progress, seconds},
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{collections::BTreeSet, fs, time::Duration};

/// Connected nodes that are revoked, one after the other.
const RUNS: usize = 3;
/// Interval between two pings of a pair. Sixteen nodes at 50 ms send 4,800 pings a second over two hops each, which two
/// cores cannot carry: a third of the pings was lost, and tunnels were closed because of it.
const PING_INTERVAL: Duration = Duration::from_millis(250);
/// Pause between convergence and the first revocation, and between two revocations.
const SETTLING_TIME: Duration = Duration::from_secs(10);
/// Longest wait until all other nodes have the list, and until the revoked node is silent.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(60);
/// A node has left the network if it has had no reply, and has sent none, for this time.
const SILENCE: Duration = Duration::from_secs(3);
/// By this time the revoked node's tunnels, which drain for the sake of the other nodes, are closed.
const TUNNELS_CLOSED: Duration = Duration::from_secs(12);
/// Time for which a node that was absent when it was revoked tries to return.
const RETURN_ATTEMPTS: Duration = Duration::from_secs(20);
/// Part of the line that a daemon logs if it rejects a revoked node's connection.
const REJECTION: &str = "client rejected: its certificate is revoked";

/// The output of `measure revoke`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Revocations {
    /// Nodes of the lab.
    pub nodes: usize,
    /// Connected nodes that were revoked.
    pub runs: usize,
    /// The longest time from the operator's command until the last answered ping to or from the revoked node.
    pub seconds_max: f64,
    /// The longest time from the command until every other node had the list of revocations.
    pub rollout_seconds_max: f64,
    /// Pings between the other nodes that were lost meanwhile.
    pub others_lost: u64,
    /// Pings that the other nodes sent meanwhile.
    pub others_sent: u64,
    /// Answered pings to or from a node that was revoked while it was absent, and then started again.
    pub absent_answered: u64,
    /// The number of times other nodes rejected that node.
    pub absent_rejections: usize,
}

/// Measures once.
///
/// # Errors
/// Fails if the lab cannot be built, or if a revoked node does not leave the network.
pub fn measure(nodes: usize) -> Result<Revocations> {
    let lab = Lab::build_converged(Options::with_nodes(nodes))?;
    pause(SETTLING_TIME);
    let mut measurement = Measurement {
        pinger: lab.start_pings(PingSchedule::Every(PING_INTERVAL))?,
        lab: &lab,
        revoked: BTreeSet::new(),
        result: Revocations {
            nodes,
            ..Revocations::default()
        },
    };
    for run in 0..RUNS {
        let routes = if run == 0 {
            lab.wait_for_complete_routes()?
        } else {
            KernelRoutes::read(&lab)?
        };
        measurement.revoke_connected(&routes)?;
        pause(SETTLING_TIME);
    }
    measurement.revoke_absent()?;
    Ok(measurement.result)
}

struct Measurement<'a> {
    lab: &'a Lab,
    pinger: Pinger,
    /// The nodes that have been revoked so far.
    revoked: BTreeSet<usize>,
    result: Revocations,
}

impl Measurement<'_> {
    /// The nodes that have not been revoked.
    fn remaining(&self) -> impl Iterator<Item = &Node> {
        let nodes = self.lab.nodes().iter();
        nodes.filter(|node| !self.revoked.contains(&node.index()))
    }

    /// Revokes the node that most pairs need, and measures how soon it has left the network.
    fn revoke_connected(&mut self, routes: &KernelRoutes) -> Result<()> {
        let victim = self
            .remaining()
            .max_by_key(|node| routes.pairs_through(node.index()).len())
            .context("no node is left to revoke")?;
        let (index, prefix) = (victim.index(), victim.prefix()?);
        progress(format!(
            "revoking node {index}, {prefix}, which {} pairs need",
            routes.pairs_through(index).len()
        ));
        let others: Vec<&Node> = self
            .remaining()
            .filter(|node| node.index() != index)
            .collect();
        let first_other = others.first().context("no other node is left")?;
        let version_before = revocations_version(first_other)?;
        let start = self.pinger.now();
        self.lab.revoke(prefix)?;
        let rollout = wait_until(REVOCATION_TIMEOUT, || {
            let has_list =
                |node: &&Node| revocations_version(node).is_ok_and(|now| now > version_before);
            others.iter().all(has_list).then(|| self.pinger.now())
        });
        let rollout = rollout
            .context("the list of revocations did not reach all other nodes in 60 s")?
            .saturating_sub(start);
        let last_answered = self.wait_until_silent(index)?;
        self.revoked.insert(index);
        let since_start = self.pinger.now().saturating_sub(start);
        pause(TUNNELS_CLOSED.saturating_sub(since_start) + LOST_AFTER + SILENCE);
        self.add_run(start, last_answered.saturating_sub(start), rollout);
        Ok(())
    }

    /// Waits until a revoked node neither answers nor is answered, and returns when its last answered ping was sent.
    fn wait_until_silent(&self, index: usize) -> Result<Duration> {
        let is_pair = |from: usize, to: usize| {
            let other = if from == index { to } else { from };
            pairs_with(index)(from, to) && !self.revoked.contains(&other)
        };
        let last_answered = || {
            let moments = self.pinger.read_records(is_pair, PingRecord::last_answered);
            let last = moments.into_iter().filter_map(|(.., moment)| moment).max();
            last.unwrap_or_default()
        };
        wait_until(REVOCATION_TIMEOUT, || {
            let silence = self.pinger.now().saturating_sub(last_answered());
            (silence >= SILENCE).then(last_answered)
        })
        .with_context(|| format!("the revoked node {index} still answers after 60 s"))
    }

    /// Adds the figures of one run, and the pings of the remaining nodes since its start.
    fn add_run(&mut self, start: Duration, left_after: Duration, rollout: Duration) {
        let revoked = &self.revoked;
        let remains = |from: usize, to: usize| !revoked.contains(&from) && !revoked.contains(&to);
        let summary = self.pinger.summarize(start, self.pinger.now(), remains);
        progress(format!(
            "it had left after {:.2} s; all others had the list after {:.2} s, and lost {} of {} pings",
            left_after.as_secs_f64(),
            rollout.as_secs_f64(),
            summary.lost,
            summary.sent
        ));
        for line in self
            .pinger
            .describe_losses(start, self.pinger.now(), remains)
        {
            progress(line);
        }
        let result = &mut self.result;
        result.runs += 1;
        result.seconds_max = result.seconds_max.max(seconds(left_after));
        result.rollout_seconds_max = result.rollout_seconds_max.max(seconds(rollout));
        result.others_lost += summary.lost;
        result.others_sent += summary.sent;
    }

    /// Stops a node, revokes it while it is absent, and starts it again with everything that it remembers.
    fn revoke_absent(&mut self) -> Result<()> {
        let node = self.remaining().next().context("no node is left")?;
        let (index, prefix) = (node.index(), node.prefix()?);
        node.stop();
        progress(format!(
            "revoking node {index}, {prefix}, while it is absent"
        ));
        self.lab.revoke(prefix)?;
        pause(SETTLING_TIME);
        let start = self.pinger.now();
        node.start()?;
        pause(RETURN_ATTEMPTS);
        let summary = self
            .pinger
            .summarize(start, self.pinger.now(), pairs_with(index));
        let others = self.remaining().filter(|node| node.index() != index);
        let rejections = others.map(|node| count_rejections(node, prefix)).sum();
        progress(format!(
            "it was rejected {rejections} times; {} of its pings were answered",
            summary.answered
        ));
        self.result.absent_answered = summary.answered;
        self.result.absent_rejections = rejections;
        Ok(())
    }
}

/// Lines of a node's log that show that the peer with this prefix was rejected.
fn count_rejections(node: &Node, prefix: &str) -> usize {
    let text = fs::read_to_string(node.log_file()).unwrap_or_default();
    text.lines()
        .filter(|line| line.contains(REJECTION) && line.contains(prefix))
        .count()
}

/// The version of the list of revocations that a node has.
fn revocations_version(node: &Node) -> Result<u64> {
    node.metric("warren_document_version{document=\"revocations\"}")
}
