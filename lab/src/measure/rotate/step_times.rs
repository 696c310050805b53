//! Times one step of a change at each node: until it has the new document, its new certificate, and only processes that run
//! with the new files.

use crate::{
    Lab, Node,
    progress::{progress, seconds},
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Longest time that one step may take.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(600);
/// Interval between two readings of the nodes' metrics.
const READ_INTERVAL: Duration = Duration::from_millis(250);
/// The metrics show a process with old files up to 3 s late, so nodes must be ready for longer than that.
const CONFIRMATION_TIME: Duration = Duration::from_secs(4);

/// One step of a change, in seconds after the registry accepted the command, or after the start if there is no command.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepTimes {
    /// The change, and the registry's name of the step.
    pub step: String,
    /// Time before that in which the registry rejected the command, since nodes were not ready for it.
    pub rejected_s: f64,
    /// Until the last node was ready.
    pub ready_s: f64,
    /// Each node's part of it.
    pub nodes: Vec<NodeTimes>,
}

/// The times of one node, in seconds after the start of the step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeTimes {
    /// The node's prefix.
    pub node: String,
    /// Until it had the new network document.
    pub document_s: f64,
    /// Until it had a new certificate; absent in steps that need none.
    pub certificate_s: Option<f64>,
    /// Until no process ran with old files any more.
    pub ready_s: f64,
}

/// What every node must have at the end of a step.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    /// The version of the network document.
    pub(super) network_version: u64,
    /// When the certificate of each node expired before the step, if the step renews it.
    pub(super) old_expiries: Option<Vec<u64>>,
}

impl Target {
    /// The present network document of the registry.
    ///
    /// # Errors
    /// Fails if the registry does not print its rollout.
    pub(super) fn current_document(lab: &Lab) -> Result<Self> {
        #[derive(Deserialize)]
        struct Rollout {
            network_version: u64,
        }
        let rollout = lab.registry_command("rollout", &["--json"])?;
        let rollout: Rollout = serde_json::from_str(&rollout)
            .with_context(|| format!("the registry printed {rollout:?}"))?;
        Ok(Self {
            network_version: rollout.network_version,
            old_expiries: None,
        })
    }
}

/// When each node's certificate expires.
pub(super) fn certificate_expiries(lab: &Lab) -> Result<Vec<u64>> {
    lab.nodes().iter().map(Node::certificate_expiry).collect()
}

/// The metrics of one node that show how far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    network_version: u64,
    certificate_expiry: u64,
    has_stale_process: bool,
}

impl Reading {
    fn parse(metrics: &str) -> Self {
        let mut reading = Self::default();
        for line in metrics.lines() {
            let Some((sample, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let number = || value.parse().unwrap_or_default();
            match sample {
                "warren_document_version{document=\"network\"}" => {
                    reading.network_version = number();
                }
                "warren_certificate_expiry_timestamp_seconds" => {
                    reading.certificate_expiry = number();
                }
                sample if sample.starts_with("warren_process_stale{") => {
                    reading.has_stale_process |= value != "0";
                }
                _ => {}
            }
        }
        reading
    }
}

/// How far one node is: when it reached each part of the target, for the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NodeProgress {
    document: Option<Duration>,
    certificate: Option<Duration>,
    ready: Option<Duration>,
}

impl NodeProgress {
    fn take(&mut self, reading: Reading, target: &Target, node: usize, elapsed: Duration) {
        let has_document = reading.network_version >= target.network_version;
        let old_expiry = target.old_expiries.as_ref();
        let old_expiry = old_expiry.and_then(|expiries| expiries.get(node));
        let has_certificate = old_expiry.is_none_or(|old| reading.certificate_expiry > *old);
        let is_ready = has_document && has_certificate && !reading.has_stale_process;
        let since =
            |held: bool, earlier: Option<Duration>| held.then(|| earlier.unwrap_or(elapsed));
        self.document = since(has_document, self.document);
        self.certificate = since(has_certificate, self.certificate);
        self.ready = since(is_ready, self.ready);
    }
}

/// Waits until every node has reached the target, and returns when each did. `rejected` is the time for which the registry
/// rejected the command of the step.
///
/// # Errors
/// Fails if some node does not reach it in time.
pub(super) fn time_step(
    lab: &Lab,
    step: &str,
    target: &Target,
    rejected: Duration,
    start: Instant,
) -> Result<StepTimes> {
    let mut nodes = vec![NodeProgress::default(); lab.nodes().len()];
    let all_ready = || {
        pause(READ_INTERVAL);
        for (index, (node, progress)) in lab.nodes().iter().zip(&mut nodes).enumerate() {
            if let Ok(metrics) = node.scrape() {
                progress.take(Reading::parse(&metrics), target, index, start.elapsed());
            }
        }
        let ready: Option<Vec<_>> = nodes.iter().map(|node| node.ready).collect();
        let last = ready?.into_iter().max()?;
        (start.elapsed() >= last + CONFIRMATION_TIME).then_some(last)
    };
    let last = wait_until(STEP_TIMEOUT, all_ready)
        .ok_or_else(|| anyhow!("{step}: some node is not ready: {nodes:?}"))?;
    let in_seconds = |span: Option<Duration>| span.map(seconds).unwrap_or_default();
    let node_times = |(node, times): (&Node, &NodeProgress)| {
        let certificate_s = target.old_expiries.is_some();
        Ok(NodeTimes {
            node: node.prefix()?.to_owned(),
            document_s: in_seconds(times.document),
            certificate_s: certificate_s.then(|| in_seconds(times.certificate)),
            ready_s: in_seconds(times.ready),
        })
    };
    let times = StepTimes {
        step: step.to_owned(),
        rejected_s: seconds(rejected),
        ready_s: seconds(last),
        nodes: lab
            .nodes()
            .iter()
            .zip(&nodes)
            .map(node_times)
            .collect::<Result<_>>()?,
    };
    report(&times);
    Ok(times)
}

fn report(times: &StepTimes) {
    progress(format!(
        "{}: all nodes ready after {:.1} s; the registry had rejected the command for {:.1} s",
        times.step, times.ready_s, times.rejected_s
    ));
    for node in &times.nodes {
        let certificate = node.certificate_s;
        let certificate = certificate.map(|after| format!("certificate after {after:.1} s, "));
        progress(format!(
            "  {}: document after {:.1} s, {}ready after {:.1} s",
            node.node,
            node.document_s,
            certificate.unwrap_or_default(),
            node.ready_s
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE warren_process_stale gauge\n\
        warren_process_stale{process=\"server-udp\"} 0\n\
        warren_process_stale{process=\"client\"} 1\n\
        warren_document_version{document=\"network\"} 7\n\
        warren_document_version{document=\"revocations\"} 3\n\
        warren_certificate_expiry_timestamp_seconds 1900000000\n";

    #[test]
    fn metrics_show_version_expiry_and_stale_processes() {
        let reading = Reading {
            network_version: 7,
            certificate_expiry: 1_900_000_000,
            has_stale_process: true,
        };
        assert_eq!(Reading::parse(METRICS), reading);
    }

    #[test]
    fn a_node_is_ready_from_the_moment_on_at_which_it_last_became_so() {
        let target = Target {
            network_version: 7,
            old_expiries: Some(vec![100]),
        };
        let reading = |certificate_expiry, has_stale_process| Reading {
            network_version: 7,
            certificate_expiry,
            has_stale_process,
        };
        let mut node = NodeProgress::default();
        for (second, reading, expected) in [
            (1, reading(100, false), None),
            (2, reading(200, false), Some(2)),
            (3, reading(200, true), None),
            (9, reading(200, false), Some(9)),
            (10, reading(200, false), Some(9)),
        ] {
            node.take(reading, &target, 0, Duration::from_secs(second));
            assert_eq!(node.ready, expected.map(Duration::from_secs), "{second}");
        }
        assert_eq!(node.document, Some(Duration::from_secs(1)));
        assert_eq!(node.certificate, Some(Duration::from_secs(2)));
    }
}
