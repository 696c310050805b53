//! The queries of the shipped boards, with Grafana's variables filled in as Grafana would.

use crate::prometheus::{NODES_JOB, REGISTRY_JOB};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

/// The names of all boards.
pub const BOARDS: [&str; 5] = ["network", "node", "tunnel", "policy", "registry"];

/// One query of a panel.
#[derive(Clone, Debug)]
pub struct Query {
    /// The name of the board.
    pub board: &'static str,
    /// The title of the panel.
    pub panel: String,
    /// The query, with Grafana's variables.
    pub expr: String,
}

/// Reads a board.
///
/// # Errors
/// Fails if there is no such board, or if it is no JSON.
pub fn board(name: &str) -> Result<Value> {
    let file = format!("../dashboards/grafana/boards/{name}.json");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file));
    serde_json::from_str(&text.context(file)?).with_context(|| format!("{name} is no JSON"))
}

/// All panels of a board but the rows.
pub fn panels(board: &Value) -> Vec<&Value> {
    let panels = board.get("panels").and_then(Value::as_array);
    let is_row = |panel: &&Value| panel.get("type").is_some_and(|kind| kind == "row");
    panels
        .into_iter()
        .flatten()
        .filter(|panel| !is_row(panel))
        .collect()
}

/// All queries of all boards.
///
/// # Errors
/// Fails if a board cannot be read, or if a panel has no title.
pub fn all_queries() -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for name in BOARDS {
        let board = board(name)?;
        for panel in panels(&board) {
            let title = panel
                .get("title")
                .and_then(Value::as_str)
                .context("no title")?;
            let targets = panel.get("targets").and_then(Value::as_array);
            let exprs = targets
                .into_iter()
                .flatten()
                .filter_map(|target| target.get("expr")?.as_str());
            queries.extend(exprs.map(|expr| Query {
                board: name,
                panel: title.to_owned(),
                expr: expr.to_owned(),
            }));
        }
    }
    Ok(queries)
}

/// The panels that may be empty on a network of one node, as `dashboards/README.md` lists them: board and title, or `all`.
///
/// # Errors
/// Fails if the file cannot be read, or if it has no such table.
pub fn empty_with_one_node() -> Result<BTreeSet<(String, String)>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/README.md");
    let text = fs::read_to_string(file)?;
    let (_, table) = text
        .split_once("| board | panels | why |\n")
        .context("dashboards/README.md lists no empty panels")?;
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| {
        let mut cells = row.split('|').skip(1).map(str::trim);
        Some((cells.next()?.to_owned(), cells.next()?))
    });
    let panels = |(board, titles): (String, &str)| {
        let titles: Vec<_> = titles.split("; ").map(str::to_owned).collect();
        titles.into_iter().map(move |title| (board.clone(), title))
    };
    Ok(cells.flat_map(panels).collect())
}

/// What is selected on the boards.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Prometheus' targets of all nodes.
    pub targets: Vec<String>,
    /// The target of the node whose board is shown.
    pub shown: String,
    /// The prefix of that node, and of another end of one of its tunnels.
    pub prefix: String,
    /// The other end of that tunnel.
    pub peer: String,
    /// The span that Grafana would use as `$__rate_interval`, such as `15s`.
    pub rate_interval: &'static str,
}

impl Selection {
    /// Fills in Grafana's variables as it would.
    pub fn fill_in(&self, query: &Query) -> String {
        let job = if query.board == "registry" {
            REGISTRY_JOB
        } else {
            NODES_JOB
        };
        // Grafana escapes a value for a regular expression in a query.
        let all: Vec<_> = self
            .targets
            .iter()
            .map(|target| target.replace('.', r"\\."))
            .collect();
        query
            .expr
            .replace("$__rate_interval", self.rate_interval)
            .replace("$__interval", "10s")
            .replace("$__range", "60s")
            .replace("$job", job)
            .replace("=~\"$instance\"", &format!("=~\"({})\"", all.join("|")))
            .replace("$instance", &self.shown)
            .replace("$peer", &self.peer)
            .replace("$prefix", &self.prefix)
    }
}
