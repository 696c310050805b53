//! Asks each query of each board in a network of one node, and in one of many synthetic nodes.
//!
//! Synthetic nodes are copies of what one real node of a small network exports, with prefixes, names and peers of their own. A real
//! Prometheus scrapes all of them, and evaluates the shipped rules.

use crate::{
    Lab, Options,
    boards::queries::{Query, Selection, all_queries, empty_with_one_node},
    netns,
    progress::{progress, round},
    prometheus::{NODES_JOB, Prometheus, node_target, shipped_rules},
    wait::pause,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Nodes of the real network whose figures are copied.
const REAL_NODES: usize = 6;
/// Where synthetic nodes are scraped, inside the namespace of the internet.
const SYNTHETIC_ADDRESS: &str = "127.0.0.1:9300";
/// Time in which Prometheus has scraped all often enough for rates and rules.
const SCRAPE_TIME: Duration = Duration::from_secs(70);
/// Time until the real node shows all figures of its tunnels.
const SETTLING_TIME: Duration = Duration::from_secs(10);
/// Growth of each counter of a synthetic node, a second.
const GROWTH_PER_SECOND: f64 = 100.0;

/// The output of `measure boards`.
#[derive(Clone, Debug, Serialize)]
pub struct BoardSizes {
    nodes: usize,
    queries: usize,
    /// Panels one of whose queries has no result.
    empty: BTreeSet<String>,
    /// Those of them that should not be empty: all, or on a network of one node those that `dashboards/README.md` does not list.
    unexpected: Vec<String>,
    /// Panels whose query fails.
    failed: Vec<String>,
    slowest_ms: f64,
    slowest: String,
    /// The most series that one panel shows.
    most_series: usize,
    most_series_panel: String,
}

/// Asks all queries in a network with this number of nodes: real if it is one, otherwise synthetic.
///
/// # Errors
/// Fails if the lab or Prometheus cannot be started.
pub fn measure(nodes: usize) -> Result<BoardSizes> {
    let real = if nodes == 1 { 1 } else { REAL_NODES };
    let lab = Lab::build_joined(Options::with_nodes(real))?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let first = lab.node(0)?;
    if nodes == 1 {
        let prometheus = Prometheus::start(&lab, &shipped_rules())?;
        pause(SCRAPE_TIME / 2);
        let selection = Selection {
            targets: vec![node_target(0)],
            shown: node_target(0),
            prefix: first.prefix()?.to_owned(),
            peer: "none".to_owned(),
            rate_interval: "15s",
        };
        return ask_all(&prometheus, &selection, nodes);
    }
    // Round trips and routes of all tunnels are known after some readings.
    pause(SETTLING_TIME);
    let template = Template::new(first.scrape()?, first.prefix()?);
    let peer = prefix(1);
    serve(&lab, template)?;
    let targets: Vec<_> = (0..nodes).map(target).collect();
    let prometheus = Prometheus::start_with_jobs(&lab, &shipped_rules(), &jobs(nodes))?;
    pause(SCRAPE_TIME);
    let selection = Selection {
        shown: target(0),
        targets,
        prefix: prefix(0),
        peer,
        rate_interval: "60s",
    };
    ask_all(&prometheus, &selection, nodes)
}

fn ask_all(prometheus: &Prometheus, selection: &Selection, nodes: usize) -> Result<BoardSizes> {
    let queries = all_queries()?;
    let may_be_empty = match nodes {
        1 => empty_with_one_node()?,
        _ => BTreeSet::new(),
    };
    let is_expected = |board: &str, panel: &str| {
        let is_listed = |panel: &str| may_be_empty.contains(&(board.to_owned(), panel.to_owned()));
        is_listed(panel) || is_listed("all")
    };
    let mut sizes = BoardSizes {
        nodes,
        queries: queries.len(),
        empty: BTreeSet::new(),
        unexpected: Vec::new(),
        failed: Vec::new(),
        slowest_ms: 0.0,
        slowest: String::new(),
        most_series: 0,
        most_series_panel: String::new(),
    };
    let mut series: BTreeMap<String, usize> = BTreeMap::new();
    for query in &queries {
        let Query { board, panel, .. } = query;
        let place = format!("{board}: {panel}");
        let start = Instant::now();
        let answer = prometheus.query(&selection.fill_in(query));
        let took_ms = round(start.elapsed().as_secs_f64() * 1_000.0, 1);
        match answer {
            Ok(samples) if samples.is_empty() => {
                let is_new = sizes.empty.insert(place.clone());
                if is_new && !is_expected(board, panel) {
                    sizes.unexpected.push(place.clone());
                }
            }
            Ok(samples) => *series.entry(place.clone()).or_default() += samples.len(),
            Err(error) => sizes.failed.push(format!("{place}: {error:#}")),
        }
        if took_ms > sizes.slowest_ms {
            (sizes.slowest_ms, sizes.slowest) = (took_ms, place);
        }
    }
    if let Some((panel, most)) = series.into_iter().max_by_key(|(_, count)| *count) {
        (sizes.most_series, sizes.most_series_panel) = (most, panel);
    }
    progress(format!("{sizes:?}"));
    Ok(sizes)
}

/// The prefix of a synthetic node.
fn prefix(index: usize) -> String {
    format!("{}/16", index + 1_000)
}

fn target(index: usize) -> String {
    format!("synthetic-{index}:9197")
}

/// The scrape configuration of all synthetic nodes, which one server answers for.
fn jobs(nodes: usize) -> String {
    let job = |index: usize| {
        format!(
            "  - {{ targets: ['{SYNTHETIC_ADDRESS}'], labels: {{ __metrics_path__: '/{index}', instance: '{}' }} }}\n",
            target(index)
        )
    };
    let targets: String = (0..nodes).map(job).collect();
    format!("- job_name: {NODES_JOB}\n  scrape_interval: 15s\n  static_configs:\n{targets}")
}

/// What a real node exports, and whose prefixes are in it.
struct Template {
    text: String,
    own: String,
    peers: Vec<String>,
    started_at: Instant,
}

impl Template {
    fn new(text: String, own: &str) -> Self {
        let mut peers: Vec<_> = text
            .split("peer=\"")
            .skip(1)
            .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
            .collect();
        peers.sort();
        peers.dedup();
        Self {
            text,
            own: own.to_owned(),
            peers,
            started_at: Instant::now(),
        }
    }

    /// What the synthetic node with this number exports now.
    fn text_of(&self, index: usize) -> String {
        let growth = self.started_at.elapsed().as_secs_f64() * GROWTH_PER_SECOND;
        let mut text = self.text.replace(
            &format!("prefix=\"{}\"", self.own),
            &format!("prefix=\"{}\"", prefix(index)),
        );
        text = text.replace("name=\"node-0\"", &format!("name=\"node-{index}\""));
        for (offset, peer) in self.peers.iter().enumerate() {
            // Each is the other's peer, so that both ends of a tunnel are among the nodes.
            let other = prefix(index ^ (offset + 1));
            text = text.replace(&format!("peer=\"{peer}\""), &format!("peer=\"{other}\""));
        }
        let grown = |line: &str| match line.rsplit_once(' ') {
            Some((sample, value)) if sample.contains("_total") && !line.starts_with('#') => {
                let value = value.parse::<f64>().unwrap_or(0.0) + growth.floor();
                format!("{sample} {value}\n")
            }
            Some(_) | None => format!("{line}\n"),
        };
        text.lines().map(grown).collect()
    }
}

/// Answers for all synthetic nodes, until the lab's process ends.
fn serve(lab: &Lab, template: Template) -> Result<()> {
    let listener = netns::run_inside(&lab.internet_namespace(), || {
        TcpListener::bind(SYNTHETIC_ADDRESS).context("cannot listen for Prometheus")
    })?;
    let template = Arc::new(template);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let template = Arc::clone(&template);
            // A connection that breaks is one failed scrape.
            thread::spawn(move || answer(&template, stream).ok());
        }
    });
    Ok(())
}

fn answer(template: &Template, mut stream: TcpStream) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().context("no request")??;
    let index = request
        .split(' ')
        .nth(1)
        .and_then(|path| path.trim_matches('/').parse().ok());
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let body = template.text_of(index.context("no such node")?);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}
