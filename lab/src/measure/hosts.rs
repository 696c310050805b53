//! Measures what a node does about other programs on its host: how soon it restores what they take away, and whether it
//! reports what it cannot change.

mod firewall;
mod meddling;
mod starts;
pub(super) mod surroundings;

use crate::{ip, node::Node, progress::progress, progress::seconds, wait::wait_until};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    fs,
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument};

/// Longest wait until something is restored or reported.
const TIMEOUT: Duration = Duration::from_secs(40);

/// One thing that another program did, and what the node did about it.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// What the other program did.
    name: String,
    /// Time until all was as before, or the node did its work; `null` if it never was.
    repaired_seconds: Option<f64>,
    /// The line of the log or the finding by which the node reported it; `null` if it reported nothing.
    report: Option<String>,
    /// Whether the node did what it should.
    passed: bool,
}

/// The output of `measure hosts`.
#[derive(Clone, Debug, Serialize)]
pub struct Hosts {
    /// Load of the machine over the last minute, after the measurement.
    load_average: String,
    scenarios: Vec<Scenario>,
    /// Scenarios in which the node did not do what it should.
    failed: usize,
    /// Failed scenarios of which the node reported nothing.
    silent: usize,
    repaired_seconds_max: f64,
}

/// Which scenarios are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All scenarios are measured.
    Full,
    /// One of each kind, without those that take long.
    Short,
}

/// The groups of scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// Another program deletes or changes what a running node has.
    Meddling,
    /// A node starts on a host with unusual settings.
    Starts,
    /// Other programs have rules, bridges or a babeld beside the node, or an uplink goes away.
    Surroundings,
    /// A firewall drops what a node should forward.
    Firewall,
}

/// Measures the scenarios of these groups, each on a network of its own or on one that is whole again.
///
/// # Errors
/// Fails if a lab cannot be built, or a node does not answer at its control socket.
pub fn measure(groups: &[Group], extent: Extent) -> Result<Hosts> {
    let mut scenarios = Vec::new();
    for group in groups {
        scenarios.extend(match group {
            Group::Meddling => meddling::measure(extent)?,
            Group::Starts => starts::measure(extent)?,
            Group::Surroundings => surroundings::measure(extent)?,
            Group::Firewall => firewall::measure(extent)?,
        });
    }
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    let failed = scenarios.iter().filter(|scenario| !scenario.passed);
    let silent = failed.clone().filter(|scenario| scenario.report.is_none());
    let times = scenarios
        .iter()
        .filter_map(|scenario| scenario.repaired_seconds);
    Ok(Hosts {
        load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        failed: failed.count(),
        silent: silent.count(),
        repaired_seconds_max: times.fold(0.0, f64::max),
        scenarios,
    })
}

impl Hosts {
    /// The scenarios in which the node did not do what it should.
    pub fn failures(&self) -> Vec<&Scenario> {
        let scenarios = self.scenarios.iter();
        scenarios.filter(|scenario| !scenario.passed).collect()
    }
}

impl Scenario {
    /// Records a scenario, and prints it.
    fn new(
        name: impl Into<String>,
        repaired: Option<Duration>,
        report: Option<String>,
        passed: bool,
    ) -> Self {
        let scenario = Self {
            name: name.into(),
            repaired_seconds: repaired.map(seconds),
            report,
            passed,
        };
        progress(format!("{scenario:?}"));
        scenario
    }
}

/// The time until `is_done` returns true; `None` if it takes too long.
fn time_until(timeout: Duration, mut is_done: impl FnMut() -> bool) -> Option<Duration> {
    let start = Instant::now();
    wait_until(timeout, || is_done().then(|| start.elapsed()))
}

/// Whether one node gets an answer from another one.
fn reaches(from: &Node, to: &Node) -> bool {
    let Ok(identity) = to.identity() else {
        return false;
    };
    let address = identity.address.to_string();
    from.command("ping", &["-6", "-c1", "-W1", &address])
        .is_ok()
}

/// Runs `ip` once for each line, with the line's words: unlike a batch, a line may choose the address family.
fn run_ip(namespace: &str, lines: &str) -> Result<()> {
    lines.lines().try_for_each(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        ip::output(namespace, &words).map(drop)
    })
}

/// The first line of the node's log that contains all these words, without colours.
fn log_line(node: &Node, words: &[&str]) -> Option<String> {
    let text = fs::read(node.log_file()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut lines = text.lines().map(without_colours);
    lines.find(|line| words.iter().all(|word| line.contains(word)))
}

/// The line without the escape sequences of a terminal.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('m').map_or("", |(_, rest)| rest)
    })
}

/// Waits for a finding, and returns what the node says of it.
fn finding(node: &Node, id: &str, timeout: Duration) -> Option<String> {
    wait_until(timeout, || {
        let status: StatusDocument = node.control_document(STATUS_PATH).ok()?;
        let mut findings = status.health.findings.into_iter();
        findings
            .find(|finding| finding.id == id)
            .map(|finding| format!("{id}: {}", finding.seen))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_compared_without_its_colours() {
        assert_eq!(
            without_colours("\u{1b}[2mnow\u{1b}[0m kind\u{1b}[2m=\u{1b}[0mrule"),
            "now kind=rule"
        );
    }
}
