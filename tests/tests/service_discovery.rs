//! Prometheus finds nodes by the registry's list, and scrapes them by their own addresses in the network; other nodes may not.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, is_skipped_without_root,
    progress::progress,
    prometheus::{Prometheus, REGISTRY_JOB},
    wait::wait_until,
};
use std::time::{Duration, Instant};

/// Nodes of the network; Prometheus runs on the first one.
const NODES: usize = 4;
/// All nodes are scraped within this time.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn the_registry_lists_all_nodes_and_they_are_scraped_by_their_own_addresses() -> Result<()> {
    if is_skipped_without_root("service_discovery") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options::with_nodes(NODES))?;
    for node in lab.nodes() {
        node.configure("metrics", "['127.0.0.1:9197', 'overlay:9197']")?;
        node.configure("metrics-from", &format!("[{}]", lab.node(0)?.name()))?;
    }
    lab.start_and_converge()?;
    let started_at = Instant::now();
    let prometheus = Prometheus::start_on_member(&lab, lab.node(0)?)?;
    let job = format!("job!=\"{REGISTRY_JOB}\"");
    let query = format!("sum(up{{{job}}})");
    let all = wait_until(DEADLINE, || {
        let up = prometheus.value(&query).ok()?;
        (format!("{up}") == NODES.to_string()).then_some(())
    });
    all.with_context(|| format!("not all nodes are scraped:\n{}", prometheus.log_tail()))?;
    let seconds = started_at.elapsed().as_secs_f64();
    progress(format!(
        "{NODES} nodes found and scraped {seconds:.0} s after the start"
    ));
    // Each node still answers on loopback, too.
    for node in lab.nodes() {
        node.scrape()?;
        let own = node.identity()?.address;
        let target = format!("count(up{{instance=\"[{own}]:9197\"}} == 1)");
        let scraped = prometheus.value(&target)?;
        anyhow::ensure!(format!("{scraped}") == "1", "{target} is {scraped}");
    }
    let url = format!("http://[{}]:9197/metrics", lab.node(2)?.identity()?.address);
    let answer = lab
        .node(1)?
        .command("curl", &["-s", "-g", "-w", "%{http_code}", &url])?;
    assert_eq!(
        answer,
        "this node's metrics-from does not list your node\n403"
    );
    Ok(())
}
