//! Compares docs/METRICS.md with the metrics that a node exports: names, kinds, labels and label values.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of it is tests, helpers included; they start promtool and Prometheus"
)]

mod exporting_node;
mod snapshot;

use actors::sinks::{exporter, health::FindingId};
use exporting_node::*;
use policies::orders::Order;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Reads the five cells of each row in the first table of `docs/METRICS.md`, without back quotes.
fn documented_metrics() -> Vec<[String; 5]> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (table, _) = text.split_once("| label |").unwrap();
    let cells = |line: &str| {
        let cells = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().replace('`', ""));
        <[String; 5]>::try_from(cells.collect::<Vec<_>>()).unwrap()
    };
    table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(cells)
        .collect()
}

#[test]
fn the_document_lists_each_metric_with_its_kind_labels_and_help() {
    let registered: Vec<_> = exporter::FAMILIES
        .iter()
        .map(|family| {
            let kind = format!("{:?}", family.kind).to_lowercase();
            [
                family.name.to_owned(),
                kind,
                family.labels.join(", "),
                family.help.to_owned(),
            ]
        })
        .collect();
    let documented: Vec<_> = documented_metrics()
        .into_iter()
        .map(|[name, kind, _, labels, help]| [name, kind, labels, help])
        .collect();
    assert_eq!(documented, registered);
}

/// Reads the values that `docs/METRICS.md` lists for a label: for each clause, the text before the colon and the values after
/// it.
///
/// A cell reads "`a`, `b`" or "of `x`: `a`, `b`; of `y`, `z`: `c`".
fn documented_values(label: &str) -> Vec<(String, BTreeSet<String>)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, table) = text.split_once("| label |").unwrap();
    let start = format!("| `{label}` |");
    let row = table.lines().find_map(|line| line.strip_prefix(&start));
    let row = row.unwrap_or_else(|| panic!("no row for the label {label}"));
    let clause = |clause: &str| {
        let (scope, values) = clause.split_once(':').unwrap_or(("", clause));
        let values = values.split('`').skip(1).step_by(2);
        let values = values.filter(|value| !value.starts_with("warren_"));
        let values = values.map(str::to_owned);
        (scope.trim().replace('`', ""), values.collect())
    };
    row.split(';').map(clause).collect()
}

/// Returns the labels of each sample of a metric; of all samples if `metric` is `None`.
fn sample_labels(text: &str, metric: Option<&str>) -> Vec<BTreeMap<String, String>> {
    let labels = |line: &str| {
        let (name, labels) = line.split_once('{')?;
        let (labels, _) = labels.split_once('}')?;
        let pairs = labels.split("\",").filter_map(|pair| {
            let (label, value) = pair.split_once("=\"")?;
            Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        metric
            .is_none_or(|metric| metric == name)
            .then(|| pairs.collect())
    };
    text.lines().filter_map(labels).collect()
}

#[actix::test]
async fn the_document_lists_every_value_that_a_label_can_take() {
    let node = Node::start().await;
    let (_, text) = node.get("/metrics").await;
    let all = sample_labels(&text, None);
    for label in [
        "order",
        "reason",
        "role",
        "outcome",
        "state",
        "direction",
        "transport",
        "phase",
        "kind",
        "change",
        "result",
        "reading",
        "finding",
        "severity",
    ] {
        let values = all.iter().filter_map(|sample| sample.get(label));
        let values = values.filter(|value| !value.is_empty()).cloned();
        let documented = documented_values(label);
        let documented = documented.into_iter().flat_map(|(_, values)| values);
        assert_eq!(
            values.collect::<BTreeSet<_>>(),
            documented.collect(),
            "values of the label {label}, and what docs/METRICS.md lists"
        );
    }
}

#[actix::test]
async fn the_document_lists_the_reasons_of_each_order_and_of_closed_tunnels() {
    let node = Node::start().await;
    let (_, text) = node.get("/metrics").await;
    let documented = documented_values("reason");
    let listed = |word: &str| {
        let is_named = |scope: &str| {
            let mut words = scope.split(|c: char| !c.is_alphanumeric());
            words.any(|other| other == word)
        };
        let clause = documented.iter().find(|(scope, _)| is_named(scope));
        clause
            .unwrap_or_else(|| panic!("no reasons of {word}"))
            .1
            .clone()
    };
    let reasons = |samples: &[BTreeMap<String, String>], order: Option<&str>| {
        let of_order = samples
            .iter()
            .filter(|sample| order.is_none_or(|order| sample["order"] == order));
        of_order
            .map(|sample| sample["reason"].clone())
            .collect::<BTreeSet<_>>()
    };
    let decisions = sample_labels(&text, Some("warren_decisions_total"));
    for order in Order::LABELS {
        assert_eq!(reasons(&decisions, Some(order)), listed(order), "{order}");
    }
    let closed = sample_labels(&text, Some("warren_tunnels_closed_total"));
    assert_eq!(reasons(&closed, None), listed("close"));
}

#[actix::test]
async fn a_full_snapshot_has_a_sample_of_every_metric() {
    let node = Node::start().await;
    let (_, text) = node.get("/metrics").await;
    for family in exporter::FAMILIES {
        let type_line = format!("# TYPE {} ", family.name);
        assert!(text.contains(&type_line), "{} has no sample", family.name);
    }
}

#[test]
fn the_operations_manual_lists_each_finding_with_its_severity_and_what_to_do() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, section) = text.split_once("| finding | severity |").unwrap();
    let rows = section
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("| `"));
    let documented: Vec<_> = rows
        .map(|row| {
            let cells: Vec<_> = row.trim_end_matches(" |").split(" | ").collect();
            [cells[0].trim_end_matches('`'), cells[1], cells[3]].map(str::to_owned)
        })
        .collect();
    let known: Vec<_> = FindingId::ALL
        .iter()
        .map(|id| [id.label(), id.severity().label(), id.advice()].map(str::to_owned))
        .collect();
    assert_eq!(documented, known);
}
