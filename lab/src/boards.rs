//! Draws the Grafana boards from a living network: real nodes, real faults, a real Prometheus.
//!
//! The drawing itself is `lab/boards/draw`, which runs in the namespace of Prometheus.

pub mod queries;

use crate::{
    Lab, Node, Options,
    bulk_transfer::measure_rate,
    pinger::PingSchedule,
    process,
    progress::progress,
    prometheus::{Prometheus, shipped_rules},
    wait::pause,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};
use wire::control::{TUNNELS_PATH, TunnelEntry, TunnelsDocument};

/// Nodes of the network whose boards are drawn.
const NODES: usize = 8;
/// The part of the network that is split off for a while.
const SPLIT_PART: std::ops::Range<usize> = 5..8;
/// The node that is killed and started again.
const KILLED_NODE: usize = 3;
/// Shorter than in a real network, so that the policy decides often enough to be seen.
const REFRESH: Duration = Duration::from_secs(15);
/// Shorter than in a real network, for the same reason.
const MIN_AGE: Duration = Duration::from_secs(20);
/// Interval of the pings between all pairs, which are the network's steady load.
const PING_INTERVAL: Duration = Duration::from_millis(100);
/// Length of a bulk transfer, and the pause after it.
const TRANSFER: Duration = Duration::from_secs(1);
const TRANSFER_PAUSE: Duration = Duration::from_secs(6);
/// Spans of what the pictures show, in this order.
const BEFORE_FAULTS: Duration = Duration::from_secs(25);
const SPLIT: Duration = Duration::from_secs(20);
const BETWEEN_FAULTS: Duration = Duration::from_secs(25);
const KILLED: Duration = Duration::from_secs(12);
const AFTER_FAULTS: Duration = Duration::from_secs(20);
/// The span that graphs show: from convergence on.
const SHOWN_SPAN: &str = "110s";
/// The board that shows one tunnel.
const TUNNEL_BOARD: &str = "tunnel.json";
/// Longest time that drawing all boards may take.
const DRAW_TIMEOUT: Duration = Duration::from_secs(120);

/// The folder with the programs that draw.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("boards")
}

/// Installs what draws boards, unless it is installed. Must run where the internet is reachable, so in no namespace of a lab.
///
/// # Errors
/// Fails if a package cannot be installed; the reason is on the standard error.
pub fn install() -> Result<()> {
    let status = Command::new(folder().join("install"))
        .stdout(Stdio::null())
        .status()
        .context("cannot run lab/boards/install")?;
    ensure!(status.success(), "lab/boards/install failed: {status}");
    Ok(())
}

/// All boards of the repository.
///
/// # Errors
/// Fails if a file below `dashboards/` cannot be read.
pub fn all() -> Result<Vec<PathBuf>> {
    let mut boards = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|is| is == "json") {
                let board: Value = serde_json::from_str(&fs::read_to_string(&path)?)
                    .with_context(|| format!("{} is no JSON", path.display()))?;
                boards.extend(board.get("panels").is_some().then_some(path));
            }
        }
    }
    boards.sort();
    Ok(boards)
}

/// Draws boards into a folder, with further options of `lab/boards/draw`. Returns a line for each board.
///
/// # Errors
/// Fails if a query or a panel fails; the error names them.
pub fn draw(
    prometheus: &Prometheus,
    boards: &[PathBuf],
    out: &Path,
    options: &[&str],
) -> Result<String> {
    let url = prometheus.url();
    let out = out.to_string_lossy();
    let mut arguments = vec!["--prometheus", &url, "--out", &out];
    arguments.extend(options);
    let paths: Vec<_> = boards.iter().map(|board| board.to_string_lossy()).collect();
    arguments.extend(paths.iter().map(AsRef::as_ref));
    let program = folder().join("draw");
    process::run(prometheus.namespace(), &program, arguments, DRAW_TIMEOUT)
}

/// Builds a network of eight nodes, lets it live through two faults, and draws boards into the folder `out`.
///
/// Takes less than three minutes once everything is installed.
///
/// # Errors
/// Fails if anything does not happen that shall be shown, and as [`draw`] does.
pub fn run(boards: &[PathBuf], out: &Path) -> Result<()> {
    install()?;
    let lab = Lab::build_joined(Options {
        refresh: Some(REFRESH),
        min_age: Some(MIN_AGE),
        ..Options::with_nodes(NODES)
    })?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let prometheus = Prometheus::start(&lab, &shipped_rules())?;
    let _pings = lab.start_pings(PingSchedule::Every(PING_INTERVAL))?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| transfer_until(&lab, &is_over));
        let faults = run_faults(&lab);
        is_over.store(true, Ordering::Relaxed);
        load.join()
            .map_err(|_| anyhow::anyhow!("the load panicked"))??;
        faults
    })?;
    progress("drawing");
    let mut options = vec!["--last".to_owned(), SHOWN_SPAN.to_owned()];
    if boards.iter().any(|board| board.ends_with(TUNNEL_BOARD)) {
        let peer = oldest_tunnel(lab.node(0)?)?;
        options.extend(["--set".to_owned(), format!("peer={peer}")]);
    }
    let options: Vec<_> = options.iter().map(AsRef::as_ref).collect();
    let lines = draw(&prometheus, boards, out, &options)?;
    for line in lines.lines() {
        progress(line);
    }
    Ok(())
}

/// Returns the peer of the node's tunnel that has been up for the longest time, which has most to show.
///
/// # Errors
/// Fails if the node does not answer, or has no tunnel that is up.
pub fn oldest_tunnel(node: &Node) -> Result<String> {
    let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    let up = document
        .tunnels
        .into_iter()
        .filter(|tunnel| tunnel.phase == "up");
    let age = |tunnel: &TunnelEntry| tunnel.age_seconds.unwrap_or_default();
    let oldest = up.max_by(|one, other| age(one).total_cmp(&age(other)));
    let oldest = oldest.context("no tunnel is up")?;
    Ok(oldest.peer)
}

fn run_faults(lab: &Lab) -> Result<()> {
    pause(BEFORE_FAULTS);
    progress("splitting the internet: three nodes on one side, five and the registry on the other");
    lab.split(SPLIT_PART)?;
    pause(SPLIT);
    progress("joining both parts again");
    lab.join_parts(SPLIT_PART)?;
    pause(BETWEEN_FAULTS);
    progress(format!("killing node {KILLED_NODE}"));
    lab.node(KILLED_NODE)?.kill();
    pause(KILLED);
    lab.node(KILLED_NODE)?.start()?;
    pause(AFTER_FAULTS);
    Ok(())
}

/// Sends as much as possible from one node to another for a second, again and again, each time between another pair.
fn transfer_until(lab: &Lab, is_over: &AtomicBool) -> Result<()> {
    let nodes = lab.ping_hosts(0..NODES)?;
    let pairs = (0..nodes.len())
        .cycle()
        .zip((0..nodes.len()).cycle().skip(3));
    for (from, to) in pairs {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        if let (Some(from), Some(to)) = (nodes.get(from), nodes.get(to)) {
            // A pair that is split or down carries nothing, which is part of the picture.
            measure_rate(
                (&from.namespace, from.address),
                (&to.namespace, to.address),
                TRANSFER,
            )
            .ok();
        }
        pause(TRANSFER_PAUSE);
    }
    Ok(())
}
