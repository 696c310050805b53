//! Five nodes, one of which shows its map in a real Chromium: all nodes are there, a tunnel that closed disappears, and names cannot
//! become anything but text.
//!
//! The test fails if the packages that draw cannot be installed from npm, unless `WARREN_WITHOUT_NPM=1` is set.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, boards, is_skipped_without_root, map_page, process::Process,
    progress::progress, wait::wait_until,
};
use map::samples::sample;
use std::{
    collections::BTreeSet,
    fs,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use warren_tests::is_skipped_without_npm;
use wire::{
    control::{EVENTS_PATH, Event, EventEntry, EventsDocument, TUNNELS_PATH, TunnelsDocument},
    map::{MAP_DOCUMENT_PATH, MapDocument},
};

/// Nodes of the network.
const NODES: usize = 5;
/// Longest time from the end of a tunnel to its disappearance from the page, in seconds.
const MAX_DELAY_S: f64 = 2.0;
/// Least contrast of normal text (WCAG 2.2, section 1.4.3).
const MIN_CONTRAST: f64 = 4.5;
/// Longest wait for the browser, and for all nodes on the map.
const WAIT_TIMEOUT: Duration = Duration::from_secs(90);
/// Both tests drive a Chromium, and the first measures a delay, so that they run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits until a node's map has every node of the network, each once: no tunnel is a duplicate any more.
fn wait_for_complete_map(lab: &Lab, node: &Node) -> Result<()> {
    let all: BTreeSet<_> = lab
        .nodes()
        .iter()
        .map(Node::prefix)
        .collect::<Result<_>>()?;
    let is_complete = || {
        let map: MapDocument = node.control_document(MAP_DOCUMENT_PATH).ok()?;
        let peers = map.groups.iter().filter_map(|group| group.tunnel.as_ref());
        let peers = peers.map(|tunnel| tunnel.peer.as_str());
        let far = map.groups.iter().flat_map(|group| &group.nodes);
        let far = far.map(|node| node.prefix.as_str());
        let drawn: Vec<_> = [map.viewer.prefix.as_str()]
            .into_iter()
            .chain(peers)
            .chain(far)
            .collect();
        let known: BTreeSet<_> = drawn.iter().copied().collect();
        (known == all && drawn.len() == all.len()).then_some(())
    };
    wait_until(WAIT_TIMEOUT, is_complete).context("the map lacks nodes")
}

/// The wall clock's time at which the tunnel on a slot closed, in milliseconds since 1970.
fn closed_at_ms(node: &Node, slot: &str) -> Result<i128> {
    let document: EventsDocument = node.control_document(EVENTS_PATH)?;
    let is_close = |entry: &&EventEntry| {
        matches!(entry.event, Event::TunnelClosed(_)) && entry.tunnel.as_deref() == Some(slot)
    };
    let close = document.events.iter().rev().find(is_close);
    let close = close.context("no event of a closed tunnel is logged")?;
    Ok(close.at.unix_timestamp_nanos() / 1_000_000)
}

/// Opens the map, kills the peer of a tunnel once the page shows it, and returns the seconds from the tunnel's end to its
/// disappearance.
fn disappearance(lab: &Lab, node: &Node) -> Result<f64> {
    let tunnels: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    let tunnel = tunnels.tunnels.first().context("the node has no tunnel")?;
    let peer = lab
        .nodes()
        .iter()
        .find(|other| other.prefix().is_ok_and(|prefix| prefix == tunnel.peer));
    let log = lab.folder().join("map.log");
    let url = map_page::url(node);
    let arguments = ["--url", &url, "--until-gone", &tunnel.slot];
    let browser = Process::start(node.namespace(), &map_page::program(), arguments, &log)?;
    let is_ready = || {
        fs::read_to_string(&log)
            .ok()?
            .contains("ready\n")
            .then_some(())
    };
    wait_until(WAIT_TIMEOUT, is_ready).with_context(|| browser.log_tail(20))?;
    peer.context("the peer is no node of the lab")?.kill();
    let exit = browser
        .wait_for_exit(WAIT_TIMEOUT)
        .context("the browser does not exit")?;
    let shown = map_page::parse(&fs::read_to_string(&log)?)?;
    ensure!(exit.success() && shown.complaints.is_empty(), "{shown:?}");
    let gone_at = shown.gone_at_ms.context("the tunnel did not disappear")?;
    let delay_ms = i128::from(gone_at) - closed_at_ms(node, &tunnel.slot)?;
    Ok(f64::from(i32::try_from(delay_ms)?) / 1000.0)
}

/// Opens the registry's map, which shows itself and all nodes that announce themselves.
fn check_registry_map(lab: &Lab) -> Result<()> {
    let (url, count) = (map_page::registry_url(lab), (NODES + 1).to_string());
    let arguments = ["--url", &url, "--nodes", &count];
    let shown = map_page::open(&lab.internet_namespace(), &arguments)?;
    ensure!(shown.complaints.is_empty(), "{:?}", shown.complaints);
    ensure!(shown.contrast >= MIN_CONTRAST, "{shown:?}");
    for node in lab.nodes() {
        let prefix = node.prefix()?;
        let mut names = shown.names.iter();
        ensure!(
            names.any(|name| name.contains(prefix)),
            "the registry's map lacks {prefix}: {shown:?}"
        );
    }
    progress(format!(
        "the registry's map: drawn after {} ms, least contrast {:.1}",
        shown.loaded_ms, shown.contrast
    ));
    Ok(())
}

#[test]
fn the_map_shows_all_nodes_and_a_tunnel_that_closed_disappears() -> Result<()> {
    if is_skipped_without_root("map_drawn") || is_skipped_without_npm() {
        return Ok(());
    }
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    boards::install()?;
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    check_registry_map(&lab)?;
    let node = lab.node(0)?;
    lab.wait_for_settled_tunnels()?;
    wait_for_complete_map(&lab, node)?;
    let count = NODES.to_string();
    let shown = map_page::open(
        node.namespace(),
        &["--url", &map_page::url(node), "--nodes", &count],
    )?;
    ensure!(shown.complaints.is_empty(), "{:?}", shown.complaints);
    ensure!(
        shown.contrast >= MIN_CONTRAST,
        "contrast {}",
        shown.contrast
    );
    for other in lab.nodes() {
        let prefix = other.prefix()?;
        ensure!(
            shown.names.iter().any(|name| name.contains(prefix)),
            "{prefix} is missing in {:?}",
            shown.names
        );
    }
    let is_whole = || {
        let svg = node.warren_command(&["map"]).ok()?;
        (svg.matches("tabindex=\"0\"").count() == shown.nodes).then_some(())
    };
    wait_until(WAIT_TIMEOUT, is_whole).context("the written map differs from the page")?;
    let delay = disappearance(&lab, node)?;
    progress(format!(
        "map of {NODES} nodes: drawn after {} ms, least contrast {:.1}, a closed tunnel disappeared after {delay:.2} s",
        shown.loaded_ms, shown.contrast
    ));
    ensure!(
        delay <= MAX_DELAY_S,
        "the tunnel disappeared after {delay} s"
    );
    Ok(())
}

#[test]
fn names_stay_text_in_the_browser_and_500_nodes_are_drawn() -> Result<()> {
    if is_skipped_without_root("map_drawn") || is_skipped_without_npm() {
        return Ok(());
    }
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    boards::install()?;
    let lab = Lab::build(Options::with_nodes(1))?;
    let files = lab.folder().join("map.json");
    let mut document = sample(500);
    let hostile =
        "</title><script>alert(1)</script><img src=x onerror=\"alert(2)\">\" onfocus=\"alert(3)";
    document.viewer.name = Some(hostile.to_owned());
    for group in &mut document.groups {
        for node in &mut group.nodes {
            node.name = Some(format!("{hostile}{}", node.prefix));
        }
    }
    map_page::write_files(&document, &files)?;
    let namespace = lab.node(0)?.namespace().to_owned();
    let shown = map_page::open(
        &namespace,
        &["--files", &files.to_string_lossy(), "--nodes", "500"],
    )?;
    ensure!(shown.complaints.is_empty(), "{:?}", shown.complaints);
    ensure!(
        shown.names.iter().any(|name| name.starts_with(hostile)),
        "the names are changed"
    );
    progress(format!("500 nodes drawn after {} ms", shown.loaded_ms));
    Ok(())
}
