//! Opens the map of a network in a real Chromium: to check the page as a user sees it, and to draw pictures of it.
//!
//! `lab/boards/draw-map` does both, in the namespace of the node that serves the page.

use crate::{
    Lab, Node, Options, boards, network::REGISTRY_METRICS_PORT, pinger::PingSchedule, process,
    progress::progress, terminal,
};
use anyhow::{Context, Result, ensure};
use map::{Update, page, samples};
use serde::Deserialize;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use wire::map::{MAP_PAGE_PATH, MapDocument};

/// Nodes of the living network whose map is drawn.
const NODES: usize = 5;
/// Numbers of nodes of the made-up networks whose maps are drawn.
const SAMPLES: [usize; 2] = [50, 500];
/// Longest time for a page to be opened, checked and drawn.
const DRAW_TIMEOUT: Duration = Duration::from_secs(120);

/// What the browser showed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Number of nodes, the viewer included; a node that is reached by two tunnels counts twice.
    pub nodes: usize,
    /// That number in the end.
    pub left: usize,
    /// Names and prefixes of the nodes.
    pub names: Vec<String>,
    /// What the page said of a node that was found by the keyboard alone.
    pub about: String,
    /// The least contrast of a text with what is behind it, 1 to 21.
    pub contrast: f64,
    /// Milliseconds from the request to the first drawing.
    pub loaded_ms: u64,
    /// When the node that was waited for was no longer drawn, in milliseconds since 1970.
    pub gone_at_ms: Option<u64>,
    /// Errors on the console of the browser, and dialogs.
    pub complaints: Vec<String>,
}

/// The program that opens the map.
pub fn program() -> PathBuf {
    boards::folder().join("draw-map")
}

/// The address of a node's map in its namespace.
pub fn url(node: &Node) -> String {
    format!("http://{}{MAP_PAGE_PATH}", node.metrics_address())
}

/// The address of the registry's map in the namespace of the internet.
pub fn registry_url(lab: &Lab) -> String {
    let address = lab.registry_address();
    format!("http://{address}:{REGISTRY_METRICS_PORT}{MAP_PAGE_PATH}")
}

/// Opens the map in a namespace, with options of `lab/boards/draw-map`.
///
/// # Errors
/// Fails if the page does not load, shows an error on the console, or cannot be used by the keyboard.
pub fn open(namespace: &str, options: &[&str]) -> Result<Shown> {
    let printed = process::run(namespace, &program(), options, DRAW_TIMEOUT)?;
    parse(&printed)
}

/// Returns what `lab/boards/draw-map` printed.
///
/// # Errors
/// Fails if its last line is no report.
pub fn parse(printed: &str) -> Result<Shown> {
    let last = printed.lines().last().context("draw-map printed nothing")?;
    serde_json::from_str(last).with_context(|| format!("draw-map printed {last:?}"))
}

/// Writes the page with the drawing of a document, for the option `--files`.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_files(document: &MapDocument, file: &Path) -> Result<()> {
    let page = page();
    let update = Update::new(document, 0, Vec::new());
    let files = json!({
        "html": page.html, "policy": page.content_security_policy, "update": update,
    });
    fs::write(file, files.to_string()).with_context(|| format!("cannot write {}", file.display()))
}

/// Draws the maps of a living network and of made-up larger ones into the folder `out`, and the screens of `warren status` and
/// `warren top` on a node of the living network.
///
/// # Errors
/// Fails as [`open`] does, or if the network cannot be built.
pub fn run(out: &Path) -> Result<()> {
    boards::install()?;
    fs::create_dir_all(out)?;
    let out = out.canonicalize()?;
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    let node = lab.node(0)?;
    let picture = |nodes: usize| out.join(format!("map-{nodes}.png"));
    let to = picture(NODES);
    let shown = open(
        node.namespace(),
        &["--url", &url(node), "--out", &to.to_string_lossy()],
    )?;
    ensure!(shown.nodes >= NODES, "the map shows {:?}", shown.names);
    progress(format!("{}: {} nodes", to.display(), shown.nodes));
    let pings = lab.start_pings(PingSchedule::STEADY)?;
    for (verb, wanted) in [("status", "process"), ("top", "Latest decisions")] {
        // Ten seconds of rates make the shapes of `top`.
        let is_complete = |shown: &str| {
            shown.contains(wanted)
                && (verb != "top" || shown.contains("▁") || shown.contains("████"))
        };
        let (shown, to) = (
            terminal::screen(node, verb, is_complete)?,
            out.join(format!("{verb}.png")),
        );
        terminal::draw(node, &shown, &to)?;
        progress(format!(
            "{}: warren {verb} in 80 columns and 24 lines",
            to.display()
        ));
    }
    drop(pings);
    for nodes in SAMPLES {
        let (files, to) = (lab.folder().join("map.json"), picture(nodes));
        write_files(&samples::sample(nodes), &files)?;
        let options = [
            "--files",
            &files.to_string_lossy(),
            "--out",
            &to.to_string_lossy(),
        ];
        let shown = open(node.namespace(), &options)?;
        ensure!(shown.nodes == nodes, "the map shows {} nodes", shown.nodes);
        progress(format!("{}: {nodes} nodes, made up", to.display()));
    }
    Ok(())
}
