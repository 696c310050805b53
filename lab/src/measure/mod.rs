//! The measurements: each builds a lab, does one thing to it, and sums up what the pings and kernels say.
//!
//! Progress goes to stderr; results are values, which the command prints as one line of JSON.

pub mod accepting_slots;
pub mod claim_race;
pub mod converge;
pub mod drain;
pub mod idle;
pub mod join;
pub mod recover;
pub mod registry_crash;
pub mod registry_load;
pub mod registry_outage;
pub mod revoke;
pub mod rotate;
pub mod rtt;
pub mod token_guessing;

use crate::{Lab, Options, Pace, Pinger, kernel_routes::Routes, node::Node, process::wait_until};
use anyhow::{Context, Result, bail};
use std::{
    fmt::Display,
    io::Write,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// How often every pair is pinged where losses and gaps are measured.
pub const PACE: Pace = Pace::Every(Duration::from_millis(10));
/// How often until a pair answers where only that is waited for.
pub const CALM: Pace = Pace::UntilAnswered(Duration::from_millis(50));
/// A network that is not whole by then never will be.
const PATIENCE: Duration = Duration::from_secs(120);

/// One line of progress on stderr, with the seconds since the first.
pub fn tell(line: impl Display) {
    static START: OnceLock<Instant> = OnceLock::new();
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs_f64();
    // Nobody who closed our stderr wants to hear of it.
    writeln!(std::io::stderr(), "{seconds:7.1} s  {line}").ok();
}

/// Tunnels that each node of a lab dials, so that it is no full mesh: 2, and 3 from twelve nodes on.
pub fn dial(nodes: usize) -> u16 {
    if nodes < 12 { 2 } else { 3 }
}

/// Waits, and does nothing else.
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Seconds, rounded to milliseconds.
pub fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Builds a lab, lets all nodes join, and says what is not as shipped.
///
/// # Errors
/// As [`Lab::joined`].
pub fn prepare(options: Options) -> Result<Lab> {
    let nodes = options.nodes;
    tell(format!(
        "building a lab of {nodes} nodes; not as shipped: {}",
        options.differences().join(", ")
    ));
    let lab = Lab::joined(options)?;
    tell(format!(
        "{nodes} nodes have joined; files in {}",
        lab.folder().display()
    ));
    Ok(lab)
}

/// Starts all nodes at once and waits until all pairs have answered and every table is whole.
///
/// # Errors
/// Where that takes longer than two minutes: with who does not reach whom.
pub fn start_whole(lab: &Lab) -> Result<Duration> {
    let pinger = lab.ping(CALM)?;
    let start = pinger.now();
    lab.start_all()?;
    wait_whole(lab, &pinger, start)
}

/// Waits until all pairs have answered once, and returns how long after `start` the last first answer came. Then waits for whole routing tables and tells the mean hops.
///
/// # Errors
/// Where that takes longer than two minutes: with who does not reach whom.
pub fn wait_whole(lab: &Lab, pinger: &Pinger, start: Duration) -> Result<Duration> {
    // Whole, or never to be: with who died.
    let outcome = wait_until(PATIENCE, || {
        let dead = dead_nodes(lab);
        if dead.is_empty() {
            pinger.all_answered(Duration::ZERO, |_, _| true).map(Ok)
        } else {
            Some(Err(dead))
        }
    });
    if let Some(Err(dead)) = outcome {
        bail!("daemons ended by themselves:\n{}", dead.join("\n"));
    }
    let Some(Ok(last)) = outcome else {
        let silent = pinger.ask(|_, _| true, |pair| !pair.is_answered());
        let silent: Vec<String> = silent
            .iter()
            .filter(|(.., silent)| *silent)
            .map(|(from, to, _)| format!("{from}->{to}"))
            .collect();
        bail!(
            "after {} s these pairs had no answer: {}",
            PATIENCE.as_secs(),
            silent.join(" ")
        );
    };
    let routes = wait_routes(lab)?;
    tell(format!(
        "all pairs answer after {:.2} s",
        last.saturating_sub(start).as_secs_f64()
    ));
    tell(format!(
        "mean hops {:.2}",
        routes.mean_hops().unwrap_or_default()
    ));
    Ok(last.saturating_sub(start))
}

/// Waits until each node's table leads to each other node.
///
/// # Errors
/// Where that takes longer than two minutes.
pub fn wait_routes(lab: &Lab) -> Result<Routes> {
    let whole = || {
        Routes::read(lab)
            .ok()
            .filter(|routes| routes.mean_hops().is_some())
    };
    wait_until(PATIENCE, whole).context("the routing tables did not become whole")
}

/// The value of one sample of a node's metrics, by its name with its labels.
///
/// # Errors
/// Where the node does not answer, or has no such sample.
pub fn metric(node: &Node, sample: &str) -> Result<u64> {
    let text = node.scrape()?;
    let line = text.lines().find_map(|line| line.strip_prefix(sample));
    let value = line.with_context(|| format!("node {} has no {sample}", node.index()))?;
    value
        .trim()
        .parse()
        .with_context(|| format!("{sample} is {value}"))
}

/// When a node's certificate ends, seconds since 1970.
///
/// # Errors
/// As [`metric`].
pub fn certificate_end(node: &Node) -> Result<u64> {
    metric(node, "warren_certificate_expiry_timestamp_seconds")
}

/// A lab whose certificates live so long, and which forgets who does not announce itself for a minute.
pub fn short_lived(nodes: usize, life: Duration) -> Options {
    Options {
        nodes,
        dial: Some(dial(nodes)),
        certificate_life: Some(life),
        announcement_ttl: Some(Duration::from_secs(60)),
        ..Options::default()
    }
}

/// One line for each node whose daemon has ended by itself, with the end of its log.
fn dead_nodes(lab: &Lab) -> Vec<String> {
    let ended = lab
        .nodes()
        .iter()
        .filter_map(|node| Some((node, node.ended()?)));
    ended
        .map(|(node, status)| format!("node {}: {status}: {}", node.index(), node.log_tail(5)))
        .collect()
}
