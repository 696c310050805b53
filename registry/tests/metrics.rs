//! Scrapes the metrics of a real registry, and compares them with what happened, and with docs/REGISTRY.md.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

mod support;

use registry::http::admin::{InviteRequest, RevokeRequest};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
};
use support::{Registry, claim_with, joined};

/// Sends a request to the server of metrics; returns head and body of the response.
fn ask(registry: &Registry, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(registry.metrics).unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Returns the value of a sample; panics if it is missing.
fn value(text: &str, sample: &str) -> f64 {
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    found
        .unwrap_or_else(|| panic!("no sample {sample}"))
        .parse()
        .unwrap()
}

#[test]
fn each_call_is_counted_with_its_status_and_duration_and_counters_only_grow() {
    let registry = Registry::start();
    let node = registry.member();
    for _ in 0..3 {
        let _: serde_json::Value = registry.ask(&node, "GET", "/v1/network", &());
    }
    let (head, before) = ask(&registry, "GET", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let call = r#"call="/v1/network""#;
    let responses = format!("warren_registry_responses_total{{{call},status=\"200\"}}");
    assert_eq!(value(&before, &responses), 3.0);
    let count = format!("warren_registry_response_seconds_count{{{call}}}");
    assert_eq!(value(&before, &count), 3.0);
    let longest = format!("warren_registry_response_seconds_bucket{{{call},le=\"5\"}}");
    assert_eq!(value(&before, &longest), 3.0);
    assert_eq!(
        value(&before, r#"warren_registry_nodes{state="live"}"#),
        1.0
    );
    assert_eq!(value(&before, "warren_registry_requests_waiting"), 0.0);
    assert!(value(&before, "warren_registry_database_bytes") > 4_096.0);
    assert!(value(&before, "process_resident_memory_bytes") > 1e6);
    assert!(value(&before, "process_open_fds") > 5.0);
    let started = value(&before, "process_start_time_seconds");
    assert!((os::clock::wall().as_secs_f64() - started).abs() < 600.0);
    let build = format!(
        "warren_registry_build_info{{revision=\"test\",version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(value(&before, &build), 1.0);
    registry.member();
    let (_, after) = ask(&registry, "GET", "/metrics");
    for counter in [
        "warren_registry_requests_total",
        "warren_registry_transactions_total",
    ] {
        assert!(
            value(&after, counter) > value(&before, counter),
            "{counter}"
        );
    }
}

#[test]
fn a_registry_whose_database_is_locked_shows_the_last_figures_at_once_and_counts_the_failures() {
    let registry = Registry::start();
    let node = registry.member();
    let (_, before) = ask(&registry, "GET", "/metrics");
    let path = registry.paths.state_dir.join("registry.sqlite");
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked_at = os::clock::runtime_now();
    let (head, during) = ask(&registry, "GET", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(asked_at.elapsed() < std::time::Duration::from_secs(1));
    let live = r#"warren_registry_nodes{state="live"}"#;
    assert_eq!(value(&during, live), value(&before, live));
    let read_at = "warren_registry_reading_timestamp_seconds";
    assert_eq!(value(&during, read_at), value(&before, read_at));
    assert_eq!(
        registry.call(Some(&node), "GET", "/v1/bootstrap", "").0,
        500
    );
    let failures = r#"warren_registry_responses_total{call="/v1/bootstrap",status="500"}"#;
    assert_eq!(value(&ask(&registry, "GET", "/metrics").1, failures), 1.0);
}

#[test]
fn a_page_links_to_the_metrics_and_head_has_the_status_of_get() {
    let registry = Registry::start();
    let (head, page) = ask(&registry, "GET", "/");
    assert!(head.starts_with("HTTP/1.1 200") && page.contains("href=\"/metrics\""));
    let (head, body) = ask(&registry, "HEAD", "/metrics");
    assert!(
        head.starts_with("HTTP/1.1 200") && body.is_empty(),
        "{head}"
    );
}

#[test]
fn prometheus_discovers_each_node_with_its_name_until_it_is_revoked() {
    let registry = Registry::start();
    let named = InviteRequest {
        ttl_s: 60,
        name: Some("printer".into()),
        ..InviteRequest::default()
    };
    let printer = joined(&claim_with(&registry, &named));
    let other = registry.member();
    let targets = |path: &str| -> Vec<(String, String, String)> {
        let (head, body) = ask(&registry, "GET", path);
        assert!(head.contains("content-type: application/json"), "{head}");
        let groups: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let target = |group: &serde_json::Value| {
            let labels = &group["labels"];
            (
                text(&group["targets"][0]),
                text(&labels["__meta_warren_prefix"]),
                text(&labels["__meta_warren_name"]),
            )
        };
        groups.iter().map(target).collect()
    };
    let all = targets("/targets");
    assert_eq!(all.len(), 2);
    let own = all.iter().find(|(_, _, name)| name == "printer").unwrap();
    assert_eq!(own.1, printer.prefix.to_string());
    assert!(
        own.0.starts_with("[fd12:3456:789a:") && own.0.ends_with("]:9197"),
        "{}",
        own.0
    );
    assert!(
        targets("/targets?port=80")
            .iter()
            .all(|(address, ..)| address.ends_with("]:80"))
    );
    let (head, _) = ask(&registry, "GET", "/targets?port=x");
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    let request = RevokeRequest {
        node: "printer".into(),
    };
    let _: serde_json::Value = registry.order("POST", "/v1/revocations", &request);
    let left = targets("/targets");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].1, other.claimed.prefix.to_string());
}

#[test]
fn the_map_shows_which_nodes_announce_themselves() {
    let registry = Registry::start();
    let named = InviteRequest {
        ttl_s: 60,
        name: Some("printer".into()),
        ..InviteRequest::default()
    };
    let silent = joined(&claim_with(&registry, &named));
    let (head, page) = ask(&registry, "GET", "/map");
    assert!(
        head.contains("content-security-policy: default-src 'none'; script-src 'sha256-"),
        "{head}"
    );
    assert!(page.contains("<h1>warren map</h1>"), "{page}");
    let svg = || {
        let (_, update) = ask(&registry, "GET", "/map/update?after=0");
        let update: serde_json::Value = serde_json::from_str(&update).unwrap();
        update["svg"].as_str().unwrap().to_owned()
    };
    let drawn = svg();
    assert!(
        drawn.contains("0 nodes announce themselves, 1 are silent"),
        "{drawn}"
    );
    assert!(
        drawn.contains(&format!("printer ({})", silent.prefix)),
        "{drawn}"
    );
}

/// Names, kinds, labels and help as docs/REGISTRY.md lists them.
fn documented() -> BTreeSet<(String, String)> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/REGISTRY.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, section) = text.split_once("\n## Metrics\n").unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<_> = line
            .split('|')
            .map(|cell| cell.trim().replace('`', ""))
            .collect();
        (cells[1].clone(), cells[2].clone())
    };
    rows.take_while(|line| line.starts_with("| `"))
        .map(row)
        .collect()
}

#[test]
fn the_document_lists_each_metric_with_its_kind() {
    let registry = Registry::start();
    registry.member();
    let (_, text) = ask(&registry, "GET", "/metrics");
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let kinds = kinds.filter_map(|line| line.split_once(' '));
    let exported: BTreeSet<_> = kinds
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    assert_eq!(documented(), exported);
}
