//! Six nodes, split three from three: Grafana's own components draw the board in a real Chromium, and the page shows what
//! Prometheus says.
//!
//! The test fails if the packages that draw cannot be installed from npm, unless `WARREN_WITHOUT_NPM=1` is set.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Options, PingSchedule, boards, is_skipped_without_root,
    progress::progress,
    prometheus::{Prometheus, shipped_rules},
    wait::wait_until,
};
use serde_json::Value;
use std::{
    fs,
    process::Command,
    time::{Duration, SystemTime},
};
use warren_tests::{is_skipped_without_npm, root};

/// Nodes of the lab, and those of them that are split from the others.
const NODES: usize = 6;
const SPLIT_PART: std::ops::Range<usize> = 3..6;
/// The least number of islands in the last five seconds, by the shipped rules: the figure is in motion just after the split.
const ISLANDS: &str = "round(min_over_time(network:warren_islands:sum[5s]), 0.01)";
/// Longest wait until the metrics of all nodes show the split.
const SPLIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Least figures that the board shows as plain numbers.
const MIN_COMPARED: usize = 4;

#[test]
fn variables_steps_and_places_are_as_in_grafana() -> Result<()> {
    if is_skipped_without_npm() {
        return Ok(());
    }
    boards::install()?;
    let tests = root().join("lab/boards/src/drawing.test.js");
    let output = Command::new("node").arg("--test").arg(tests).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "node --test: {printed}");
    Ok(())
}

/// What the page shows of the panels of one board: panel by panel, as `lab/boards/draw --report` writes it.
fn drawn_panels(prometheus: &Prometheus, lab: &Lab, at: u64) -> Result<Vec<Value>> {
    let report = lab.folder().join("report.json");
    let board = root().join("dashboards/grafana/boards/network.json");
    let (at, report_path) = (at.to_string(), report.to_string_lossy());
    let options = ["--at", &at, "--last", "90s", "--report", &report_path];
    progress(boards::draw(prometheus, &[board], lab.folder(), &options)?.trim());
    let report: Value = serde_json::from_str(&fs::read_to_string(report)?)?;
    let panels = report.pointer("/0/panels").and_then(Value::as_array);
    panels.cloned().context("the report has no panels")
}

fn text<'a>(panel: &'a Value, key: &str) -> &'a str {
    panel.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The numbers on the page that the panel of one figure shows, and what Prometheus says; `None` if there is another number of
/// results than one, or if the page shows a text or a unit with the figure.
fn figures(panel: &Value, prometheus: &Prometheus, at: u64) -> Result<Option<(Vec<f64>, f64)>> {
    let query = panel
        .pointer("/queries/0")
        .context("a panel without a query")?;
    let samples = prometheus.query_at(text(query, "query"), at)?;
    let lines = text(panel, "text").lines();
    let shown: Vec<f64> = lines.filter_map(|line| line.parse().ok()).collect();
    Ok(match samples.as_slice() {
        [only] if !shown.is_empty() => Some((shown, only.value)),
        _ => None,
    })
}

#[test]
fn the_board_of_a_split_network_is_drawn_and_shows_what_prometheus_says() -> Result<()> {
    if is_skipped_without_root("boards_drawn") || is_skipped_without_npm() {
        return Ok(());
    }
    boards::install()?;
    let lab = Lab::build_joined(Options::with_nodes(NODES))?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let _load = lab.start_pings(PingSchedule::STEADY)?;
    let prometheus = Prometheus::start(&lab, &shipped_rules())?;
    lab.split(SPLIT_PART)?;
    // The page asks for a whole second, at which the first samples must be there.
    let is_split = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let at = now.ok()?.as_secs();
        let islands = prometheus.query_at(ISLANDS, at).ok()?;
        let is_shown = matches!(islands.as_slice(), [only] if only.value == 2.0);
        is_shown.then_some(at)
    };
    let at = wait_until(SPLIT_TIMEOUT, is_split).context("the metrics do not show two islands")?;
    let panels = drawn_panels(&prometheus, &lab, at)?;
    ensure!(!panels.is_empty(), "no panel was drawn");
    let undrawn: Vec<_> = panels
        .iter()
        .filter(|panel| !text(panel, "error").is_empty() || text(panel, "text").is_empty())
        .collect();
    ensure!(undrawn.is_empty(), "not drawn: {undrawn:?}");
    let mut compared = Vec::new();
    for panel in panels.iter().filter(|panel| text(panel, "type") == "stat") {
        let Some((shown, value)) = figures(panel, &prometheus, at)? else {
            continue;
        };
        let title = text(panel, "title");
        ensure!(
            shown == [value],
            "{title}: the page shows {shown:?}, Prometheus says {value}"
        );
        ensure!(
            title != "Islands" || shown == [2.0],
            "the page shows {shown:?} islands"
        );
        compared.push(title);
    }
    progress(format!(
        "{} panels drawn; equal to what Prometheus says: {}",
        panels.len(),
        compared.join(", ")
    ));
    ensure!(
        compared.contains(&"Islands") && compared.len() >= MIN_COMPARED,
        "the page does not show the number of islands, or too few figures"
    );
    Ok(())
}
