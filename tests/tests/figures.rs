//! Compares metrics with the kernel's own counts: datagrams that a server did not read in time.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, is_skipped_without_root, netns,
    progress::progress,
    wait::{pause, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument};

/// A figure is true after this time at the latest.
const MAX_DELAY: Duration = Duration::from_secs(5);
/// Time until a process runs after the start of its node.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The UDP port of the nodes' servers.
const SERVER_PORT: u16 = 1194;
/// Datagrams that are sent to a server while it does not read: more than its receive buffer holds.
const FLOOD: usize = 6_000;

/// Waits until a sample has this value; fails with the sample's last value.
fn await_value(node: &Node, sample: &str, expected: u64) -> Result<Duration> {
    let started_at = Instant::now();
    let is_right = || (node.metric(sample).ok()? == expected).then_some(());
    wait_until(MAX_DELAY, is_right).with_context(|| {
        let shown = node.metric(sample);
        node.describe(&format!("shows {sample} {shown:?} instead of {expected}"))
    })?;
    Ok(started_at.elapsed())
}

fn pid_of(node: &Node, name: &str) -> Result<u32> {
    let pid = wait_until(START_TIMEOUT, || {
        let status: StatusDocument = node.control_document(STATUS_PATH).ok()?;
        let mut processes = status.processes.into_iter();
        processes.find(|process| process.name == name)?.pid
    });
    pid.with_context(|| node.describe(&format!("does not run {name}")))
}

/// The drops of the UDP sockets with this local port, as the kernel of the node's namespace counts them.
fn kernel_drops(node: &Node, port: u16) -> Result<u64> {
    let suffix = format!(":{port:04X}");
    let mut sum = 0;
    for file in ["/proc/net/udp", "/proc/net/udp6"] {
        let text = node.command("cat", &[file])?;
        for line in text.lines() {
            let columns: Vec<_> = line.split_ascii_whitespace().collect();
            if columns.get(1).is_some_and(|local| local.ends_with(&suffix)) {
                sum += columns
                    .last()
                    .context("a line has no column")?
                    .parse::<u64>()?;
            }
        }
    }
    Ok(sum)
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
    ensure!(node.metric(drops)? == 0);
    let server = Pid::from_raw(i32::try_from(pid_of(node, "server-udp")?)?);
    kill(server, Signal::SIGSTOP)?;
    let to: SocketAddr = format!("45.67.1.1:{SERVER_PORT}").parse()?;
    let flood = netns::run_inside(other.namespace(), || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..FLOOD {
            // The sender's own buffer may be full for a moment.
            socket.send_to(&[0; 1_000], to).ok();
        }
        Ok(())
    });
    kill(server, Signal::SIGCONT)?;
    flood?;
    pause(Duration::from_secs(1));
    let lost = kernel_drops(node, SERVER_PORT)?;
    ensure!(lost > 0, "the flood was too small");
    let took = await_value(node, drops, lost)?;
    progress(format!(
        "{lost} dropped datagrams are shown {:.1} s after the kernel counted them",
        took.as_secs_f64() + 1.0
    ));
    let clients = "warren_openvpn_receive_dropped_total{process=\"client\"}";
    ensure!(node.metric(clients)? == 0);
    assert_eq!(lab.stop_nodes(), [0; 0]);
    Ok(())
}
