//! The Grafana board: its form, and each of its queries asked of a real Prometheus that scrapes a real network.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

use anyhow::{Context, Result, bail, ensure};
use lab::{
    Lab, Options, PingSchedule, http, is_skipped_without_root, process::Process,
    progress::progress, wait::wait_until,
};
use serde_json::Value;
use std::{collections::BTreeSet, fmt::Write, fs, net::SocketAddr, path::PathBuf, time::Duration};

/// Nodes of the lab; each is scraped over the network itself.
const NODES: usize = 6;
/// Where Prometheus answers, inside the namespace of node 0.
const PROMETHEUS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);
/// Where nodes serve their metrics here: on all addresses, the one in the network among them.
const METRICS_PORT: u16 = 9197;
/// Queries are asked again until they are all good, or for this long.
const DEADLINE: Duration = Duration::from_secs(90);
/// Panels whose newest value must be above zero.
const ABOVE_ZERO: &[&str] = &[
    "Ready",
    "Nodes reporting",
    "Tunnels up",
    "Nodes reachable",
    "Routes installed",
    "Traffic of all tunnels",
    "Received by tunnel",
    "Sent by tunnel",
    "Frames by tunnel",
    "Nodes served by tunnel",
    "Round trip by tunnel",
    "Decisions since the start",
    "Memory of the daemon",
];

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn board() -> Value {
    let text = fs::read_to_string(repository().join("dashboards/warren.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// All panels but the rows.
fn panels(board: &Value) -> Vec<&Value> {
    board["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|panel| panel["type"] != "row")
        .collect()
}

/// The title of the panel and the query, for each query of the board.
fn queries(board: &Value) -> Vec<(String, String)> {
    let of = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets
            .into_iter()
            .map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    panels(board).into_iter().flat_map(of).collect()
}

/// Names of our metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("warren_") || word.starts_with("process_"))
        .collect()
}

#[test]
fn the_board_has_the_form_that_operators_expect() {
    let board = board();
    assert_eq!(board["uid"], "warren");
    assert!(board["id"].is_null());
    assert!((39..=41).contains(&board["schemaVersion"].as_u64().unwrap()));
    let variables: Vec<_> = board["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["name"])
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance", "tunnel"]);
    let mut seen = BTreeSet::new();
    for panel in panels(&board) {
        let title = panel["title"].as_str().unwrap();
        assert!(
            seen.insert(panel["id"].as_u64().unwrap()),
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
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expr = target["expr"].as_str().unwrap();
            assert!(
                expr.contains(r#"instance=~"$instance""#),
                "{title}: {expr} shows other nodes too"
            );
        }
        let place = &panel["gridPos"];
        assert!(
            place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24,
            "{title}: too wide"
        );
    }
    for title in ABOVE_ZERO {
        assert!(
            panels(&board).iter().any(|panel| panel["title"] == *title),
            "no panel {title}"
        );
    }
}

#[test]
fn the_board_and_the_rules_use_documented_metrics_only() {
    let document = fs::read_to_string(repository().join("docs/METRICS.md")).unwrap();
    let documented = metrics(&document);
    let board = board();
    for (title, query) in queries(&board) {
        assert!(metrics(&query).is_subset(&documented), "{title}: {query}");
        assert!(
            !metrics(&query).is_empty() || query.starts_with("sum(up{"),
            "{title}: {query}"
        );
    }
    let rules =
        fs::read_to_string(repository().join("dashboards/prometheus/warren.rules.yml")).unwrap();
    let rules: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .collect();
    assert!(!rules.is_empty());
    for rule in rules {
        assert!(metrics(rule).is_subset(&documented), "{rule}");
    }
}

/// Grafana's variables as it would fill them in for "All" and a scrape each second.
fn filled_in(query: &str) -> String {
    query
        .replace("$__rate_interval", "15s")
        .replace("$job", ".*")
        .replace("$instance", ".*")
        .replace("$tunnel", ".*")
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02X}").ok();
        encoded
    })
}

/// The newest values that Prometheus has for a query.
fn ask(namespace: &str, query: &str) -> Result<Vec<f64>> {
    let path = format!("/api/v1/query?query={}", percent_encoded(&filled_in(query)));
    let answer: Value = serde_json::from_str(&http::get_inside(namespace, PROMETHEUS, &path)?)?;
    ensure!(answer["status"] == "success", "{query}: {answer}");
    let results = answer["data"]["result"].as_array().context("no result")?;
    let value = |result: &Value| {
        result["value"][1]
            .as_str()
            .and_then(|text| text.parse().ok())
    };
    results
        .iter()
        .map(value)
        .collect::<Option<Vec<f64>>>()
        .with_context(|| format!("{query}: {answer}"))
}

/// What is wrong with the answers; nothing when all is as it should be.
fn complaints(namespace: &str, queries: &[(String, String)]) -> Vec<String> {
    let complaint = |(title, query): &(String, String)| match ask(namespace, query) {
        Err(error) => Some(format!("{title}: {error:#}")),
        Ok(values) if values.is_empty() => Some(format!("{title}: empty: {query}")),
        Ok(values)
            if ABOVE_ZERO.contains(&title.as_str()) && !values.iter().any(|value| *value > 0.0) =>
        {
            Some(format!("{title}: nothing above zero: {query}: {values:?}"))
        }
        Ok(_) => None,
    };
    queries.iter().filter_map(complaint).collect()
}

/// Prometheus on node 0, which scrapes all nodes once a second at their addresses in the network.
fn start_prometheus(lab: &Lab) -> Result<Process> {
    let folder = lab.folder().join("prometheus");
    fs::create_dir_all(&folder)?;
    let addresses = lab.nodes().iter().map(|node| Ok(node.identity()?.address));
    let targets: Vec<_> = addresses
        .map(|address: Result<_>| Ok(format!("'[{}]:{METRICS_PORT}'", address?)))
        .collect::<Result<_>>()?;
    let file = folder.join("prometheus.yml");
    let job = format!(
        "- job_name: warren\n  static_configs: [{{ targets: [{}] }}]\n",
        targets.join(", ")
    );
    fs::write(
        &file,
        format!("global: {{ scrape_interval: 1s }}\nscrape_configs:\n{job}"),
    )?;
    let arguments = [
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", folder.join("data").display()),
        format!("--web.listen-address={PROMETHEUS}"),
    ];
    Process::start(
        lab.node(0)?.namespace(),
        "prometheus".as_ref(),
        arguments,
        &folder.join("log"),
    )
}

#[test]
fn no_query_of_the_board_is_in_error_or_empty_on_a_network_under_load() -> Result<()> {
    if is_skipped_without_root("dashboards") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: NODES,
        tunnels_to_dial: Some(2),
        ..Options::default()
    })?;
    for node in lab.nodes() {
        node.configure("metrics", &format!("'[::]:{METRICS_PORT}'"))?;
    }
    lab.start_and_converge()?;
    let _load = lab.start_pings(PingSchedule::STEADY)?;
    let prometheus = start_prometheus(&lab)?;
    let (namespace, board) = (lab.node(0)?.namespace(), board());
    let queries = queries(&board);
    let mut last = vec!["nothing was asked".to_owned()];
    let good = wait_until(DEADLINE, || {
        last = complaints(namespace, &queries);
        last.is_empty().then_some(())
    });
    if good.is_none() {
        let log = prometheus.log_tail(20);
        bail!(
            "{} complaints:\n{}\nthe last words of Prometheus:\n{log}",
            last.len(),
            last.join("\n")
        );
    }
    let nodes = ask(namespace, "sum(up{job=\"warren\"})")?;
    let (shown, asked) = (panels(&board).len(), queries.len());
    let nodes_scraped = nodes.first().copied().unwrap_or_default();
    progress(format!(
        "board: {shown} panels, {asked} queries, empty 0, errors 0; {nodes_scraped} nodes scraped"
    ));
    ensure!(
        nodes_scraped > 5.5,
        "only {nodes_scraped} of {NODES} nodes are scraped"
    );
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
    let rules = repository().join("dashboards/prometheus");
    for (verb, name) in [("check", "warren.rules.yml"), ("test", "warren.tests.yml")] {
        node.command(
            "promtool",
            &[verb, "rules", &rules.join(name).to_string_lossy()],
        )?;
    }
    Ok(())
}
