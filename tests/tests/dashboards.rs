//! The Grafana boards: their form, and each of their queries asked of a real Prometheus that scrapes a real network.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use anyhow::{Context, Result, bail, ensure};
use lab::{
    Lab, Options, PingSchedule,
    boards::oldest_tunnel,
    boards::queries::{BOARDS, Query, Selection, all_queries, board, panels},
    is_skipped_without_root,
    progress::progress,
    prometheus::{Prometheus, node_target, shipped_rules},
    wait::{pause, wait_until},
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument};

/// Nodes of the lab.
const NODES: usize = 6;
/// The node whose board is asked.
const SHOWN: usize = 1;
/// The node that is killed and started again.
const KILLED: usize = 5;
/// Queries are asked again until they are all good, or for this long.
const DEADLINE: Duration = Duration::from_secs(90);
/// Panels that are empty while nothing has happened that they show.
const MAY_BE_EMPTY: &[(&str, &str)] = &[("policy", "Drains that succeed")];
/// Panels whose newest value must be above zero.
const ABOVE_ZERO: &[(&str, &str)] = &[
    ("network", "Islands"),
    ("network", "Up"),
    ("network", "Tunnels"),
    ("network", "Carried"),
    ("network", "Traffic, the ten busiest nodes"),
    ("node", "Ready"),
    ("node", "babeld"),
    ("node", "Registry"),
    ("node", "Reaches"),
    ("node", "Received by tunnel"),
    ("node", "Sent by tunnel"),
    ("node", "Nodes served by tunnel"),
    ("node", "Round trip by tunnel"),
    ("node", "Memory"),
    ("tunnel", "From here to the peer"),
    ("tunnel", "From the peer to here"),
    ("tunnel", "Round trip"),
    ("policy", "Opened, 1 h"),
    ("policy", "Median age"),
    ("registry", "Answers"),
    ("registry", "Nodes"),
    ("registry", "Database"),
    ("registry", "Responses by call"),
];

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[test]
fn boards_have_the_form_that_operators_expect() {
    for name in BOARDS {
        let board = board(name).unwrap();
        assert_eq!(board["uid"], format!("warren-{name}"));
        assert!(board["id"].is_null());
        assert!((39..=41).contains(&board["schemaVersion"].as_u64().unwrap()));
        assert!(list(&board["tags"]).contains(&"warren".into()));
        assert_eq!(board["links"][0]["includeVars"], true);
        assert!(!list(&board["annotations"]["list"]).is_empty(), "{name}");
        let variables = list(&board["templating"]["list"]);
        let names: Vec<_> = variables
            .iter()
            .map(|v| v["name"].as_str().unwrap())
            .collect();
        assert!(
            names.starts_with(&["datasource", "job"]),
            "{name}: {names:?}"
        );
        let has_all_value = |v: &Value| v.get("allValue").is_some_and(|all| !all.is_null());
        assert!(
            !variables.iter().any(has_all_value),
            "{name} shows other jobs, too"
        );
        let mut ids = BTreeSet::new();
        let mut places = BTreeSet::new();
        for panel in panels(&board) {
            let title = format!("{name}: {}", panel["title"].as_str().unwrap());
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{title}: its id is taken"
            );
            assert!(
                !panel["description"].as_str().unwrap().is_empty(),
                "{title}: no description"
            );
            assert!(
                panel["fieldConfig"]["defaults"]["unit"].is_string(),
                "{title}: no unit"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            let (x, y) = (place("x"), place("y"));
            assert!(x + place("w") <= 24, "{title}: too wide");
            for cell in (x..x + place("w")).flat_map(|x| (y..y + place("h")).map(move |y| (x, y))) {
                assert!(places.insert(cell), "{title} lies on another panel");
            }
        }
    }
}

#[test]
fn queries_show_the_selected_nodes_only_and_count_events_exactly() {
    for query in all_queries().unwrap() {
        let (name, title, query) = (query.board, query.panel, query.expr);
        let place = format!("{name}: {title}: {query}");
        let is_of_all =
            query.contains("ALERTS{") || title == "Do nodes reach it" || title == "Oldest answers";
        let selector = if name == "node" {
            "instance=\"$instance\""
        } else {
            "$job"
        };
        assert!(
            is_of_all || query.contains(selector),
            "{place} shows other nodes, too"
        );
        assert!(!query.contains("$instance\",instance"), "{place}");
        // One event would be shown as several, spread over the interval.
        assert!(
            !query.contains("increase(") || !query.contains("[$__rate_interval]"),
            "{place}"
        );
        assert!(
            !query.contains("nodes_known"),
            "{place} counts nodes that cannot be reached"
        );
    }
}

/// Names of our metrics and recording rules in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = words.filter(|word| word.contains("warren_") || word.starts_with("process_"));
    // Prometheus appends this to the name of a histogram.
    ours.map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .collect()
}

#[test]
fn the_boards_use_documented_metrics_only() {
    let read = |path: &str| {
        fs::read_to_string(
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("..")
                .join(path),
        )
        .unwrap()
    };
    let documents = read("docs/METRICS.md") + &read("docs/REGISTRY.md");
    let rules = read("dashboards/prometheus/warren.rules.yml");
    let recorded = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "));
    let mut known = metrics(&documents);
    known.extend(recorded);
    for query in all_queries().unwrap() {
        let (name, title, query) = (query.board, query.panel, query.expr);
        let unknown: Vec<_> = metrics(&query).difference(&known).copied().collect();
        assert_eq!(unknown, [""; 0], "{name}: {title}: {query}");
        let is_other = query.contains("ALERTS{") || query.contains("up{");
        assert!(
            is_other || !metrics(&query).is_empty(),
            "{name}: {title}: {query}"
        );
    }
}

/// What is wrong with the answers; nothing when all is as it should be.
fn complaints(prometheus: &Prometheus, selection: &Selection) -> Vec<String> {
    let complaint = |query: Query| {
        let (name, title) = (query.board, query.panel.clone());
        let place = format!("{name}: {title}");
        let query = selection.fill_in(&query);
        let samples = match prometheus.query(&query) {
            Ok(samples) => samples,
            Err(error) => return Some(format!("{place}: {error:#}")),
        };
        let is_above_zero = samples.iter().any(|sample| sample.value > 0.0);
        let key = (name, title.as_str());
        if samples.is_empty() && MAY_BE_EMPTY.contains(&key) {
            None
        } else if samples.is_empty() {
            Some(format!("{place}: empty: {query}"))
        } else if ABOVE_ZERO.contains(&key) && !is_above_zero {
            Some(format!("{place}: nothing above zero: {query}: {samples:?}"))
        } else {
            None
        }
    };
    all_queries()
        .unwrap()
        .into_iter()
        .filter_map(complaint)
        .collect()
}

/// Compares figures of the boards with what the nodes say of themselves.
fn differences(lab: &Lab, prometheus: &Prometheus, selection: &Selection) -> Result<Vec<String>> {
    let mut dialled = 0;
    for node in lab.nodes() {
        dialled += node
            .control_document::<StatusDocument>(STATUS_PATH)?
            .tunnels_up
            .dialled;
    }
    let expected = [
        ("network", "Islands", 1),
        ("network", "Up", 6),
        ("network", "Down", 0),
        ("network", "Not ready", 0),
        ("network", "Tunnels", dialled),
        ("node", "Reaches", 5),
        ("node", "Misses", 0),
        ("registry", "Nodes", 6),
    ];
    let mut wrong = Vec::new();
    let queries = all_queries()?;
    for (name, title, value) in expected {
        let is_it = |query: &&Query| query.board == name && query.panel == title;
        let query = queries.iter().find(is_it).context(title)?;
        let shown = prometheus.value(&selection.fill_in(query))?;
        if format!("{shown}") != value.to_string() {
            wrong.push(format!("{name}: {title}: {shown} instead of {value}"));
        }
    }
    Ok(wrong)
}

#[test]
fn no_query_of_the_boards_is_in_error_or_empty_on_a_network_under_load() -> Result<()> {
    if is_skipped_without_root("dashboards") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options::with_nodes(NODES))?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let prometheus = Prometheus::start(&lab, &shipped_rules())?;
    let _load = lab.start_pings(PingSchedule::STEADY)?;
    // Others lose their tunnels to a node, and dial again, while Prometheus looks.
    pause(Duration::from_secs(3));
    lab.node(KILLED)?.kill();
    pause(Duration::from_secs(3));
    lab.node(KILLED)?.start()?;
    lab.wait_for_convergence()?;
    let node = lab.node(SHOWN)?;
    let prefix = node.prefix()?;
    let mut last = vec!["nothing was asked".to_owned()];
    let good = wait_until(DEADLINE, || {
        let selection = Selection {
            targets: (0..NODES).map(node_target).collect(),
            shown: node_target(SHOWN),
            // A tunnel may close while its board is asked.
            peer: oldest_tunnel(node).ok()?,
            prefix: prefix.to_owned(),
            rate_interval: "15s",
        };
        last = complaints(&prometheus, &selection);
        last.extend(differences(&lab, &prometheus, &selection).ok()?);
        last.is_empty().then_some(())
    });
    if good.is_none() {
        bail!(
            "{} complaints:\n{}\nthe last words of Prometheus:\n{}",
            last.len(),
            last.join("\n"),
            prometheus.log_tail()
        );
    }
    let count = |name: &&str| panels(&board(name).unwrap()).len();
    let shown: usize = BOARDS.iter().map(count).sum();
    let asked = all_queries()?.len();
    progress(format!(
        "boards: 5, {shown} panels, {asked} queries, empty 0, errors 0"
    ));
    Ok(())
}

#[test]
fn promtool_has_no_complaint_about_a_live_node_and_the_rules() -> Result<()> {
    if is_skipped_without_root("dashboards") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 2,
        tunnels_to_dial: Some(1),
        ..Options::default()
    })?;
    lab.start_and_converge()?;
    let file = lab.folder().join("scrape.txt");
    fs::write(&file, lab.node(0)?.scrape()?)?;
    let node = lab.node(0)?;
    // promtool reads metrics from its standard input only.
    let output = node.command(
        "sh",
        &[
            "-c",
            "promtool check metrics < \"$0\" 2>&1",
            &file.to_string_lossy(),
        ],
    )?;
    ensure!(output.is_empty(), "promtool check metrics: {output}");
    let rules = shipped_rules();
    let tests = rules.with_file_name("warren.tests.yml");
    for (verb, file) in [("check", rules), ("test", tests)] {
        node.command("promtool", &[verb, "rules", &file.to_string_lossy()])?;
    }
    Ok(())
}
