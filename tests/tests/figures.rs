//! Compares metrics with what the kernel and babeld say: in faults, and for datagrams that a server did not read in time.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, is_skipped_without_root,
    measure::figures::{FigureRecord, MAX_DELAY, kernel_drops, observe},
    node::SERVER_PORT,
    progress::progress,
    wait::{pause, wait_until},
};
use std::time::Duration;

/// Datagrams that are sent to a server while it does not read: more than its receive buffer holds.
const FLOOD: usize = 6_000;
/// For how long figures are compared in a fault.
const FAULT_SPAN: Duration = Duration::from_secs(8);
/// Longest wait until a node that was disconnected is not ready.
/// It gives its last tunnel up after 4.7 s at most, and another test runs beside this one.
const NOT_READY_TIMEOUT: Duration = Duration::from_secs(8);
/// Nodes of the network whose figures are compared in a fault, and the node that is disconnected.
const NODES: usize = 3;
const CUT: std::ops::Range<usize> = 0..1;

/// Waits until a sample has this value; fails with the sample's last value.
fn await_value(node: &Node, sample: &str, expected: u64, timeout: Duration) -> Result<Duration> {
    let started_at = std::time::Instant::now();
    let is_right = || (node.metric(sample).ok()? == expected).then_some(());
    wait_until(timeout, is_right).with_context(|| {
        let shown = node.metric(sample);
        node.describe(&format!("shows {sample} {shown:?} instead of {expected}"))
    })?;
    Ok(started_at.elapsed())
}

/// Fails if a figure differed from the truth for too long.
fn check(records: &[FigureRecord]) -> Result<()> {
    ensure!(!records.is_empty(), "nothing was compared");
    for record in records {
        let (fault, metric) = (record.fault, record.metric);
        let longest = record.longest_difference_s;
        progress(format!(
            "{fault}: {metric}differed for {longest:.1} s at most"
        ));
        ensure!(longest <= MAX_DELAY.as_secs_f64(), "{record:?}");
    }
    Ok(())
}

#[test]
fn figures_are_true_within_five_seconds_after_a_node_is_disconnected_and_is_back() -> Result<()> {
    if is_skipped_without_root("figures") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    lab.split(CUT)?;
    let took = await_value(lab.node(0)?, "warren_ready ", 0, NOT_READY_TIMEOUT)?;
    progress(format!(
        "not ready {:.1} s after it was disconnected",
        took.as_secs_f64()
    ));
    check(&observe(&lab, "disconnected", FAULT_SPAN)?)?;
    lab.join_parts(CUT)?;
    check(&observe(&lab, "back", FAULT_SPAN)?)?;
    assert_eq!(lab.stop_nodes(), [0; 0]);
    Ok(())
}

#[test]
fn datagrams_that_a_server_did_not_read_in_time_are_counted() -> Result<()> {
    if is_skipped_without_root("figures") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options {
        nodes: 2,
        tunnels_to_dial: Some(1),
        ..Options::default()
    })?;
    let (node, other) = (lab.node(0)?, lab.node(1)?);
    let drops = "warren_openvpn_receive_dropped_total{process=\"server-udp\"}";
    let clients = "warren_openvpn_receive_dropped_total{process=\"client\"}";
    let lost_before = kernel_drops(node, SERVER_PORT)?;
    await_value(node, drops, lost_before, MAX_DELAY)?;
    let lost_by_clients = node.metric(clients)?;
    node.overflow_server(other.namespace(), "45.67.1.1", FLOOD)?;
    pause(Duration::from_secs(1));
    let lost = kernel_drops(node, SERVER_PORT)?;
    ensure!(lost > lost_before, "the flood was too small");
    let took = await_value(node, drops, lost, MAX_DELAY)?;
    progress(format!(
        "{} dropped datagrams are shown {:.1} s after the kernel counted them",
        lost - lost_before,
        took.as_secs_f64() + 1.0
    ));
    let lost_later = node.metric(clients)?;
    ensure!(
        lost_later == lost_by_clients,
        "drops of the server are counted for clients: {lost_by_clients}, then {lost_later}"
    );
    assert_eq!(lab.stop_nodes(), [0; 0]);
    Ok(())
}
