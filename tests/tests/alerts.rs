//! Provokes alerts by their faults: a real Prometheus with the shipped rules scrapes a real network, and each alert fires by its
//! fault, and ends with it.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, is_skipped_without_root,
    measure::recover::{FatalSignal, kill_child},
    progress::progress,
    prometheus::{NODES_JOB, Prometheus, shipped_rules},
    wait::{pause, wait_until},
};
use std::{
    fs,
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument};

/// Nodes of the network: two groups of three.
const NODES: usize = 6;
/// An alert fires or ends within this time, with the shortened waiting times of [`short_rules`].
const MAX_DELAY: Duration = Duration::from_secs(45);
/// Longest wait until no alert fires on a network without a fault.
const QUIET_TIMEOUT: Duration = Duration::from_secs(90);
/// How often a process is killed, and a daemon restarted, until that counts as flapping.
const REPEATS: usize = 3;

/// Writes the shipped rules with a `for` of 5 s for each alert, so that the test is short; the expressions are as shipped.
fn short_rules(lab: &Lab) -> Result<std::path::PathBuf> {
    let shipped = fs::read_to_string(shipped_rules())?;
    let line = |line: &str| match line.trim_start().strip_prefix("for: ") {
        Some(_) => format!(
            "{}for: 5s\n",
            " ".repeat(line.len() - line.trim_start().len())
        ),
        None => format!("{line}\n"),
    };
    let file = lab.folder().join("short.rules.yml");
    fs::write(&file, shipped.lines().map(line).collect::<String>())?;
    Ok(file)
}

/// Waits until an alert fires, or ends; prints how long that took since `since`.
fn await_alert(prometheus: &Prometheus, alert: &str, fires: bool, since: Instant) -> Result<()> {
    let is_so = || (prometheus.fires(alert).ok()? == fires).then_some(());
    let word = if fires { "fires" } else { "has ended" };
    wait_until(MAX_DELAY, is_so)
        .with_context(|| format!("{alert}: not so within {MAX_DELAY:?}: it {word}"))?;
    let seconds = since.elapsed().as_secs_f64();
    progress(format!("{alert} {word} after {seconds:.0} s"));
    Ok(())
}

/// Drops all packets between a node and these others, but not those of Prometheus.
fn cut(node: &Node, others: impl Iterator<Item = usize>) -> Result<()> {
    let addresses: Vec<_> = others
        .map(|other| format!("45.67.1.{}", other + 1))
        .collect();
    let set = addresses.join(", ");
    let chain = |name: &str, hook: &str, end: &str| {
        format!(
            "chain {name} {{\ntype filter hook {hook} priority 0\nip {end} {{ {set} }} drop\n}}\n"
        )
    };
    let rules = format!(
        "table inet cut {{\n{}{}}}\n",
        chain("from_others", "input", "saddr"),
        chain("to_others", "output", "daddr")
    );
    node.command("nft", &[&rules]).map(drop)
}

fn heal(node: &Node) -> Result<()> {
    node.command("nft", &["delete table inet cut"]).map(drop)
}

/// A converged network that a Prometheus with shortened rules scrapes, and in which no alert fires.
fn quiet_network(nodes: usize) -> Result<(Lab, Prometheus)> {
    let lab = Lab::build_joined(Options::with_nodes(nodes))?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let prometheus = Prometheus::start(&lab, &short_rules(&lab)?)?;
    pause(Duration::from_secs(12));
    // Probes that were lost while the tunnels came up count for a minute, which the shipped waiting times outlast.
    let is_quiet = || {
        prometheus
            .firing()
            .is_ok_and(|firing| firing.is_empty())
            .then_some(())
    };
    wait_until(QUIET_TIMEOUT, is_quiet)
        .with_context(|| format!("alerts fire without a fault: {:?}", prometheus.firing()))?;
    Ok((lab, prometheus))
}

#[test]
fn a_split_a_disconnected_node_and_a_dead_daemon_raise_their_alerts() -> Result<()> {
    if is_skipped_without_root("alerts") {
        return Ok(());
    }
    let (lab, prometheus) = quiet_network(NODES)?;
    let halves = [0..NODES / 2, NODES / 2..NODES];
    let started_at = Instant::now();
    for index in halves[0].clone() {
        cut(lab.node(index)?, halves[1].clone())?;
    }
    for alert in ["WarrenSplit", "WarrenMissesNodes"] {
        await_alert(&prometheus, alert, true, started_at)?;
    }
    let islands = prometheus.value(&format!(
        "max(round(network:warren_islands:sum{{job=~\"{NODES_JOB}\"}}))"
    ))?;
    ensure!(format!("{islands}") == "2", "{islands} islands");
    let repaired = Instant::now();
    for index in halves[0].clone() {
        heal(lab.node(index)?)?;
    }
    lab.wait_for_convergence()?;
    for alert in ["WarrenSplit", "WarrenMissesNodes"] {
        await_alert(&prometheus, alert, false, repaired)?;
    }

    let node = lab.node(0)?;
    let started_at = Instant::now();
    cut(node, 1..NODES)?;
    for alert in ["WarrenNotReady", "WarrenSplit"] {
        await_alert(&prometheus, alert, true, started_at)?;
    }
    heal(node)?;
    lab.wait_for_convergence()?;

    let started_at = Instant::now();
    node.kill();
    await_alert(&prometheus, "WarrenDown", true, started_at)?;
    node.start()?;
    await_alert(&prometheus, "WarrenDown", false, Instant::now())?;
    Ok(())
}

/// Waits until a process of a node is ready, and has another pid than before.
fn await_process(node: &Node, name: &str, before: Option<u32>) -> Result<u32> {
    let found = wait_until(MAX_DELAY, || {
        let status: StatusDocument = node.control_document(STATUS_PATH).ok()?;
        let mut processes = status.processes.into_iter();
        let found = processes.find(|process| process.name == name && process.ready)?;
        found.pid.filter(|pid| Some(*pid) != before)
    });
    found.with_context(|| node.describe(&format!("does not run {name}")))
}

#[test]
fn processes_and_daemons_that_exit_again_and_again_raise_their_alerts() -> Result<()> {
    if is_skipped_without_root("alerts") {
        return Ok(());
    }
    let (lab, prometheus) = quiet_network(3)?;
    let (node, other) = (lab.node(0)?, lab.node(1)?);
    let (started_at, mut pid) = (Instant::now(), None);
    for _ in 0..REPEATS {
        pid = Some(await_process(node, "server-tcp", pid)?);
        kill_child(node, "server-tcp", FatalSignal::Kill)?;
    }
    await_alert(&prometheus, "WarrenProcessFlapping", true, started_at)?;

    let started_at = Instant::now();
    for _ in 0..REPEATS {
        other.stop_cleanly()?;
        other.start()?;
        pause(Duration::from_secs(4));
    }
    await_alert(&prometheus, "WarrenRestartLoop", true, started_at)?;

    let started_at = Instant::now();
    lab.stop_registry();
    await_alert(&prometheus, "WarrenRegistryDown", true, started_at)?;
    lab.start_registry()?;
    await_alert(&prometheus, "WarrenRegistryDown", false, Instant::now())?;

    let started_at = Instant::now();
    assert_eq!(lab.stop_nodes(), [0; 0]);
    await_alert(&prometheus, "WarrenNoData", true, started_at)
}
