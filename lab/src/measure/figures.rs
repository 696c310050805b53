//! Compares what nodes show in their metrics with what the kernel and babeld themselves say, during faults and after transfers.

mod faults;
mod transfers;
mod truth;

use crate::{Lab, node::Node, progress::seconds, wait::pause};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
pub use transfers::TransferRecord;
pub use truth::{Truth, babeld_dump, kernel_drops};

/// A figure is true after this time at the latest.
pub const MAX_DELAY: Duration = Duration::from_secs(5);
/// Interval between two comparisons.
const COMPARE_INTERVAL: Duration = Duration::from_millis(200);

/// Which figures are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Routes, neighbours, processes and dropped datagrams in ten faults.
    Faults,
    /// Bytes, frames and lost frames of transfers of 100 MB.
    Transfers,
}

/// One metric during one fault.
#[derive(Clone, Debug, Serialize)]
pub struct FigureRecord {
    /// What was done to the network.
    pub fault: &'static str,
    /// The name of the metric, with its labels.
    pub metric: &'static str,
    /// The last value at each running node, and that of the kernel or of babeld.
    pub shown_and_true: Vec<(u64, u64)>,
    /// The longest time for which both differed at any node.
    pub longest_difference_s: f64,
    /// Nodes at which both differ at the end.
    pub different_at_end: usize,
}

/// The output of `measure figures`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Metrics that differed for longer than five seconds, or differ at the end.
    wrong: Vec<String>,
    figures: Vec<FigureRecord>,
    transfers: Vec<TransferRecord>,
}

/// Compares these figures, each part in networks of its own.
///
/// # Errors
/// Fails if a lab cannot be built, if a fault cannot be injected, or if a node that runs does not answer.
pub fn measure(parts: &[Part]) -> Result<Figures> {
    let mut figures = Figures::default();
    for part in parts {
        match part {
            Part::Faults => figures.figures = faults::measure()?,
            Part::Transfers => figures.transfers = transfers::measure()?,
        }
    }
    let is_wrong = |record: &&FigureRecord| {
        record.different_at_end > 0 || record.longest_difference_s > MAX_DELAY.as_secs_f64()
    };
    let described = |record: &FigureRecord| format!("{}: {}", record.fault, record.metric);
    let wrong = figures.figures.iter().filter(is_wrong).map(described);
    figures.wrong = wrong.collect();
    Ok(figures)
}

impl Figures {
    /// Metrics that differed for longer than five seconds, or differ at the end.
    pub fn wrong(&self) -> &[String] {
        &self.wrong
    }
}

/// A node and a metric that differ: since when, the longest time so far, and the last two values.
#[derive(Clone, Copy, Default)]
struct Difference {
    since: Option<Instant>,
    longest: Duration,
    last: (u64, u64),
}

impl Difference {
    fn update(&mut self, shown: u64, truth: u64) {
        self.last = (shown, truth);
        if shown == truth {
            self.since = None;
        } else {
            let since = *self.since.get_or_insert_with(Instant::now);
            self.longest = self.longest.max(since.elapsed());
        }
    }
}

/// Compares all figures of the running nodes again and again, for this long, and as long as a difference may still pass.
///
/// # Errors
/// Fails if a node that runs does not answer.
pub fn observe(lab: &Lab, fault: &'static str, span: Duration) -> Result<Vec<FigureRecord>> {
    let started_at = Instant::now();
    let mut differences: BTreeMap<(&'static str, usize), Difference> = BTreeMap::new();
    let is_complete = |differences: &BTreeMap<_, Difference>| {
        let mut differences = differences.values();
        let may_pass = differences.any(|difference| {
            let since = difference.since.map(|since| since.elapsed());
            since.is_some_and(|lasted| lasted <= MAX_DELAY)
        });
        started_at.elapsed() >= span && !may_pass
    };
    while !is_complete(&differences) {
        for node in lab.nodes().iter().filter(|node| node.pid().is_some()) {
            compare(node, &mut differences)?;
        }
        pause(COMPARE_INTERVAL);
    }
    let mut records: BTreeMap<&'static str, FigureRecord> = BTreeMap::new();
    for ((metric, _), difference) in differences {
        let record = records.entry(metric).or_insert_with(|| FigureRecord {
            fault,
            metric,
            shown_and_true: Vec::new(),
            longest_difference_s: 0.0,
            different_at_end: 0,
        });
        record.shown_and_true.push(difference.last);
        let longest = seconds(difference.longest);
        record.longest_difference_s = record.longest_difference_s.max(longest);
        record.different_at_end += usize::from(difference.since.is_some());
    }
    Ok(records.into_values().collect())
}

/// Compares all figures of one node once. What is not true before and after the scrape alike is left out.
fn compare(
    node: &Node,
    differences: &mut BTreeMap<(&'static str, usize), Difference>,
) -> Result<()> {
    let Ok(text) = node.scrape() else {
        // The daemon starts, or is being stopped.
        return Ok(());
    };
    let truth = Truth::read(node)?;
    for (metric, truth) in truth.figures() {
        let line = text.lines().find_map(|line| line.strip_prefix(metric));
        let shown = line.with_context(|| format!("no sample {metric}"))?;
        let shown: u64 = shown
            .trim()
            .parse()
            .with_context(|| format!("{metric} {shown}"))?;
        let difference = differences.entry((metric, node.index())).or_default();
        difference.update(shown, truth);
    }
    Ok(())
}
