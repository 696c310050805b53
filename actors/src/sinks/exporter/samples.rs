//! Reads the samples of each metric from a snapshot.

use crate::messages::{LanOutcome, MissingReason};
use crate::sinks::{
    health::{FindingId, Health},
    telemetry::{ROLES, Row, Snapshot, float},
};
use membership::{certificate::ca_name_and_expiry, documents::is_private};
use os::process_usage::OwnUsage;
use policies::{
    endpoint_checks::Reachability,
    hole_punching::PunchResult,
    names::{Endpoint, Role, Transport},
    observation::{Candidate, LinkCounters, Phase},
};
use std::collections::BTreeMap;

/// The source of all samples of one scrape.
pub(super) struct Source<'a> {
    /// The snapshot of the node.
    pub(super) node: &'a Snapshot,
    /// The health of the node.
    pub(super) health: Health,
    /// Frames to clients that were dropped on the TAP of a server, by transport.
    pub(super) server_drops: Vec<(Transport, u64)>,
    /// The daemon's own process; `None` if /proc cannot be read.
    pub(super) process: Option<OwnUsage>,
}

/// One sample: the values of the labels, in the order of their names, and the number.
pub(super) type Sample = (Vec<String>, f64);

/// Converts the value of a label to text.
pub(super) fn s(text: impl ToString) -> String {
    text.to_string()
}

/// Returns 1 for true, and 0 for false.
pub(super) fn truth(is_true: bool) -> f64 {
    if is_true { 1.0 } else { 0.0 }
}

/// Returns the one sample of a metric.
pub(super) fn one<const N: usize>(labels: [&str; N], value: f64) -> Vec<Sample> {
    vec![(labels.into_iter().map(s).collect(), value)]
}

/// Returns the one sample of a metric without labels, or none.
pub(super) fn maybe(value: Option<f64>) -> Vec<Sample> {
    value.into_iter().map(|value| (Vec::new(), value)).collect()
}

pub(super) fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    items.fold(0, |count, _| count + 1)
}

pub(super) fn map<K>(counts: &BTreeMap<K, u64>, labels: impl Fn(&K) -> Vec<String>) -> Vec<Sample> {
    counts
        .iter()
        .map(|(key, count)| (labels(key), float(*count)))
        .collect()
}

pub(super) fn findings(health: &Health) -> Vec<Sample> {
    let sample = |id: &FindingId| {
        let shown = health.findings.iter().find(|finding| finding.id == *id);
        let severity = shown.map_or(id.severity(), |finding| finding.severity);
        let labels = vec![s(id.label()), s(severity.label())];
        (labels, truth(shown.is_some()))
    };
    FindingId::ALL.iter().map(sample).collect()
}

pub(super) fn cas(node: &Snapshot) -> Vec<Sample> {
    let ends: BTreeMap<_, _> = node
        .documents
        .cas()
        .iter()
        .filter_map(ca_name_and_expiry)
        .collect();
    let seconds = |end: i64| u64::try_from(end).map_or(0.0, float);
    ends.into_iter()
        .map(|(name, end)| (vec![name], seconds(end)))
        .collect()
}

pub(super) fn node_info(node: &Snapshot) -> Vec<Sample> {
    let identity = &node.identity;
    let address = identity.network.node_address(identity.prefix);
    let name = node.names.get(identity.prefix);
    vec![(
        vec![
            s(identity.prefix),
            name.map(s).unwrap_or_default(),
            s(address),
            s(identity.network.range()),
        ],
        1.0,
    )]
}

pub(super) fn tunnel(row: &Row) -> Vec<String> {
    vec![s(row.tunnel.slot), s(row.tunnel.peer), s(row.tunnel.role())]
}

/// Returns one sample for each tunnel, including those that closed lately.
pub(super) fn rows(node: &Snapshot, value: impl Fn(&Row) -> Option<f64>) -> Vec<Sample> {
    node.rows
        .all()
        .filter_map(|row| Some((tunnel(row), value(row)?)))
        .collect()
}

/// Returns one sample for each tunnel that exists.
pub(super) fn live(node: &Snapshot, value: impl Fn(&Row) -> Option<f64>) -> Vec<Sample> {
    node.rows
        .live()
        .filter_map(|row| Some((tunnel(row), value(row)?)))
        .collect()
}

pub(super) fn tunnels(node: &Snapshot) -> Vec<Sample> {
    let sample_of = |role: Role, state: &'static str| {
        let matching = |row: &&Row| row.tunnel.role() == role && row.tunnel.phase.label() == state;
        (
            vec![s(role), s(state)],
            float(count(node.rows.live().filter(matching))),
        )
    };
    ROLES
        .into_iter()
        .flat_map(|role| Phase::LABELS.map(|state| sample_of(role, state)))
        .collect()
}

pub(super) fn states(node: &Snapshot) -> Vec<Sample> {
    let sample_of = |row: &Row| {
        let mut labels = tunnel(row);
        labels.push(s(row.tunnel.phase.label()));
        (labels, 1.0)
    };
    node.rows.live().map(sample_of).collect()
}

pub(super) fn tunnel_info(node: &Snapshot) -> Vec<Sample> {
    let sample_of = |row: &Row| {
        let mut labels = tunnel(row);
        labels.push(row.transport().map(s).unwrap_or_default());
        labels.push(node.names.get(row.tunnel.peer).map(s).unwrap_or_default());
        (labels, 1.0)
    };
    node.rows.all().map(sample_of).collect()
}

pub(super) fn probe<'a>(
    node: &'a Snapshot,
    row: &Row,
) -> Option<&'a policies::observation::ProbeReading> {
    node.probes.get(&row.tunnel.slot)
}

pub(super) fn loss(node: &Snapshot, row: &Row) -> Option<f64> {
    probe(node, row)?.loss_ratio()
}

pub(super) fn traffic(
    node: &Snapshot,
    rx: fn(&LinkCounters) -> u64,
    tx: fn(&LinkCounters) -> u64,
) -> Vec<Sample> {
    let sample_of = |role: Role| {
        let total = node.rows.total(role);
        [("receive", rx(&total)), ("transmit", tx(&total))]
            .map(|(direction, value)| (vec![s(direction), s(role)], float(value)))
    };
    ROLES.into_iter().flat_map(sample_of).collect()
}

pub(super) fn neighbours(node: &Snapshot) -> u64 {
    count(node.babel.iter().flat_map(|table| &table.neighbours))
}

pub(super) fn neighbour(
    node: &Snapshot,
    value: fn(&policies::observation::Neighbour) -> Option<f64>,
) -> Vec<Sample> {
    // A map keeps one entry for each slot and peer: if babeld reported a neighbour twice, Prometheus would reject the
    // whole scrape.
    let all = node.babel.iter().flat_map(|table| &table.neighbours);
    let all: BTreeMap<_, _> = all
        .filter_map(|n| Some(((n.slot, n.peer), value(n)?)))
        .collect();
    all.into_iter()
        .map(|((slot, peer), value)| (vec![s(slot), s(peer)], value))
        .collect()
}

pub(super) const TRANSPORTS: [Transport; 2] = [Transport::Udp, Transport::Tcp];

pub(super) fn leases(node: &Snapshot) -> Vec<Sample> {
    let sample_of = |transport: Transport| {
        let matching = node
            .leases
            .leases
            .iter()
            .filter(|lease| lease.transport == transport);
        (vec![s(transport)], float(count(matching)))
    };
    TRANSPORTS.map(sample_of).to_vec()
}

pub(super) fn lease_ends(node: &Snapshot) -> Vec<Sample> {
    let sample_of = |transport: Transport| {
        let matching = node
            .leases
            .leases
            .iter()
            .filter(|lease| lease.transport == transport);
        let first = matching.map(|lease| lease.until).min()?;
        Some((vec![s(transport)], node.unix(first).as_secs_f64()))
    };
    TRANSPORTS.into_iter().filter_map(sample_of).collect()
}

pub(super) fn missing_lease(node: &Snapshot) -> Vec<Sample> {
    let missing = node.leases.missing.as_ref().map(|missing| missing.reason);
    let sample = |reason: MissingReason| (vec![s(reason.label())], truth(missing == Some(reason)));
    MissingReason::ALL.map(sample).to_vec()
}

pub(super) fn own_endpoints(node: &Snapshot) -> Vec<Sample> {
    let checks = &node.endpoint_checks.endpoints;
    let state = |endpoint: &Endpoint| checks.get(endpoint).copied().unwrap_or_default();
    let sample_of = |wanted: Reachability| {
        let announced = node.own_endpoints.endpoints.iter().map(|(found, _)| found);
        let public = announced.filter(|endpoint| !is_private(**endpoint));
        let matching = public.filter(|endpoint| state(endpoint) == wanted);
        (vec![s(wanted.label())], float(count(matching)))
    };
    Reachability::ALL.map(sample_of).to_vec()
}

pub(super) fn lan_messages(node: &Snapshot) -> Vec<Sample> {
    let sample_of = |label: &str| {
        let messages = node.lan.messages.iter();
        let matching = messages.filter(|(outcome, _)| outcome.label() == label);
        (
            vec![s(label)],
            float(matching.map(|(_, count)| count).sum()),
        )
    };
    LanOutcome::LABELS.map(sample_of).to_vec()
}

pub(super) fn pinholes(node: &Snapshot) -> Vec<Sample> {
    let sample_of = |transport: Transport| {
        let pinholes = node.pinholes.pinholes.iter();
        let matching = pinholes.filter(|pinhole| pinhole.transport == transport);
        (vec![transport.to_string()], float(count(matching)))
    };
    [Transport::Udp, Transport::Tcp].map(sample_of).to_vec()
}

pub(super) fn hole_punches(node: &Snapshot) -> Vec<Sample> {
    let sample_of = |result: PunchResult| {
        let total = node.hole_punches.totals.get(&result);
        let total = total.copied().unwrap_or_default();
        (vec![s(result.label())], float(total))
    };
    PunchResult::ALL.map(sample_of).to_vec()
}

pub(super) fn cache(node: &Snapshot) -> Vec<Sample> {
    let failing = |peer: &Candidate| peer.failures > 0;
    let state = |peer: &Candidate| match (failing(peer), peer.confirmed_at) {
        (true, _) => "failing",
        (false, Some(_)) => "confirmed",
        (false, None) => "remembered",
    };
    let sample_of = |name: &str| {
        let matching = node
            .peers
            .candidates
            .iter()
            .filter(|peer| state(peer) == name);
        (vec![s(name)], float(count(matching)))
    };
    ["confirmed", "failing", "remembered"]
        .map(sample_of)
        .to_vec()
}

/// Returns a figure of the daemon's own process.
pub(super) fn own_process(
    source: &Source,
    value: impl Fn(&OwnUsage) -> Option<f64>,
) -> Vec<Sample> {
    maybe(source.process.as_ref().and_then(value))
}
