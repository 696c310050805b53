//! Reads the samples of metrics that count what happened: probes, set-ups, processes, routes.

use super::samples::{Sample, s};
use crate::sinks::telemetry::{ChildTotals, ROLES, Snapshot, float};
use os::process::ProcessKind;
use policies::{histogram::Histogram, names::Transport, probe_history::ProbeTotals};

/// One sample of a histogram: the values of the labels, in the order of their names, and the durations.
pub(super) type HistogramSample = (Vec<String>, Histogram);

/// Converts a signed number to the nearest floating-point number.
pub(super) fn signed_float(number: i64) -> f64 {
    let size = float(number.unsigned_abs());
    if number < 0 { -size } else { size }
}

/// Returns when each reading was last taken.
pub(super) fn reading_times(node: &Snapshot) -> Vec<Sample> {
    let times = &node.read_times;
    let times = [
        ("links", times.links),
        ("routes", times.routes),
        ("probes", times.probes),
        ("processes", times.processes),
    ];
    times
        .into_iter()
        .filter_map(|(reading, at)| Some((vec![s(reading)], node.unix(at?).as_secs_f64())))
        .collect()
}

/// Returns a count of the probes of each role.
pub(super) fn probes(node: &Snapshot, value: fn(&ProbeTotals) -> u64) -> Vec<Sample> {
    let sample_of = |role| {
        let count = node.probe_totals.get(&role).map_or(0, value);
        (vec![s(role)], float(count))
    };
    ROLES.map(sample_of).into()
}

pub(super) fn probe_rtts(node: &Snapshot) -> Vec<HistogramSample> {
    let sample_of = |role| {
        let totals = node.probe_totals.get(&role).cloned().unwrap_or_default();
        (vec![s(role)], totals.rtt)
    };
    ROLES.map(sample_of).into()
}

pub(super) fn setup_times(node: &Snapshot) -> Vec<HistogramSample> {
    let times = node.counts.setup.iter();
    times
        .map(|(role, times)| (vec![s(role)], times.clone()))
        .collect()
}

/// Returns one sample for each kind of process.
pub(super) fn children(node: &Snapshot, value: fn(&ChildTotals) -> f64) -> Vec<Sample> {
    let totals = node.children.totals();
    totals
        .map(|(kind, totals)| (vec![s(kind)], value(totals)))
        .collect()
}

pub(super) fn exits(node: &Snapshot) -> Vec<Sample> {
    let samples_of = |(process, totals): (ProcessKind, &ChildTotals)| {
        let exits = totals.exits;
        [
            ("ordered", exits.ordered),
            ("failed", exits.failed),
            ("unexpected", exits.unexpected),
        ]
        .map(|(kind, count)| (vec![s(process), s(kind)], float(count)))
    };
    node.children.totals().flat_map(samples_of).collect()
}

/// Returns the dropped datagrams of the processes that have UDP sockets.
pub(super) fn udp_drops(node: &Snapshot) -> Vec<Sample> {
    let has_udp = |kind: ProcessKind| {
        matches!(
            kind,
            ProcessKind::Server(Transport::Udp) | ProcessKind::Client
        )
    };
    let totals = node.children.totals();
    totals
        .filter(|(kind, _)| has_udp(*kind))
        .map(|(kind, totals)| (vec![s(kind)], float(totals.udp_dropped)))
        .collect()
}
