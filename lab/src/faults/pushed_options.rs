//! A member's server that pushes options to its clients: they take none that changes routes, addresses, names or timers.

use super::{Figure, Outcome, liar::credentials, square::LogWatch};
use crate::{
    Lab, Node, Options, ip,
    process::Process,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use std::{collections::BTreeSet, path::Path, time::Duration};
use wire::{
    control::{TUNNELS_PATH, TunnelsDocument},
    overlay,
};

/// Options that a server can push, and that change a client's routes, addresses, names, timers or environment.
const PUSHED: &[&str] = &[
    "route 0.0.0.0 128.0.0.0",
    "route 10.0.0.0 255.0.0.0",
    "route-ipv6 2000::/4",
    "route-ipv6 ::/1",
    "route-gateway 10.9.9.1",
    "route-metric 1",
    "route-delay 0",
    "redirect-gateway def1",
    "redirect-gateway ipv6",
    "redirect-private",
    "ifconfig 10.9.9.2 255.255.255.0",
    "ifconfig-ipv6 fd99::2/64 fd99::1",
    "topology subnet",
    "tun-mtu 1280",
    "dhcp-option DNS 10.9.9.1",
    "dhcp-option DNS6 fd99::1",
    "dhcp-option DOMAIN evil.example",
    "dhcp-option DOMAIN-SEARCH evil.example",
    "dhcp-option ADAPTER_DOMAIN_SUFFIX evil.example",
    "dhcp-option WINS 10.9.9.1",
    "dns server 0 address 10.9.9.1",
    "block-outside-dns",
    "block-ipv6",
    "register-dns",
    "ping 3600",
    "ping-exit 1",
    "ping-restart 1",
    "inactive 1",
    "session-timeout 2",
    "explicit-exit-notify 5",
    "persist-tun",
    "persist-key",
    "setenv-safe LD_PRELOAD /tmp/evil.so",
    "setenv PATH /tmp",
    "echo evil",
    "sndbuf 1024",
    "rcvbuf 1024",
    "socket-flags TCP_NODELAY",
    "comp-lzo yes",
    "compress lz4",
    "client-nat snat 10.0.0.0 255.0.0.0 10.9.9.0",
    "auth-token evil",
    "auth-retry interact",
];
/// Longest wait until a node has dialled the hostile server.
const DIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for which a tunnel to it must last, beyond the timers that it pushed.
const TIMER_SPAN: Duration = Duration::from_secs(6);
/// The TAP of the hostile server.
const TAP: &str = "hostile";

/// Addresses and routes of a node that no tunnel may change: all but those on slots, and babeld's.
pub(super) fn host_state(node: &Node) -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    for words in [
        &["-4", "-o", "addr"][..],
        &["-6", "-o", "addr"],
        &["-4", "route"],
        &["-6", "route"],
    ] {
        let listing = ip::output(node.namespace(), words)?;
        let kept = listing
            .lines()
            .filter(|line| !line.contains("wrn"))
            .map(|line| line.split(" valid_lft").next().unwrap_or_default());
        lines.extend(kept.map(str::to_owned));
    }
    Ok(lines)
}

pub(super) fn count_changes(before: &BTreeSet<String>, after: &BTreeSet<String>) -> u64 {
    let changes: Vec<_> = before.symmetric_difference(after).collect();
    changes.iter().for_each(progress);
    u64::try_from(changes.len()).unwrap_or(u64::MAX)
}

/// The peers of a node's tunnels that are up.
fn peers_up(node: &Node) -> Result<Vec<String>> {
    let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    let up = document.tunnels.into_iter();
    let up = up.filter(|tunnel| tunnel.phase == "up");
    Ok(up.map(|tunnel| tunnel.peer).collect())
}

/// Lets a node dial a server that pushes options.
pub(super) fn push_options() -> Result<Outcome> {
    let fault = "a member's server pushes 43 options: routes, addresses, names, timers, environment, buffers";
    progress(fault);
    let lab = Lab::build_joined(Options {
        nodes: 2,
        ..Options::default()
    })?;
    let (node, hostile) = (lab.node(0)?, lab.node(1)?);
    let peer = hostile.prefix()?.to_owned();
    node.configure("neighbours", &format!("[{peer}]"))?;
    // The node learns where the server is from the registry, to which the real one announces itself.
    lab.start_and_converge()?;
    hostile.stop_cleanly()?;
    let has_tunnel = || peers_up(node).is_ok_and(|peers| peers.contains(&peer));
    wait_until(DIAL_TIMEOUT, || (!has_tunnel()).then_some(()))
        .context("the tunnel to the stopped node stays")?;
    let before = host_state(node)?;
    let log = LogWatch::start(node);
    let _server = start_server(hostile)?;
    wait_until(DIAL_TIMEOUT, || has_tunnel().then_some(()))
        .with_context(|| node.describe("did not dial the hostile server"))?;
    pause(TIMER_SPAN);
    let closed = log.count(&["tunnel closed"]);
    let changes = count_changes(&before, &host_state(node)?);
    Ok(Outcome {
        id: "pushed-options",
        fault,
        tries: PUSHED.len(),
        figures: vec![
            Figure::count("changed routes and addresses", changes, 0),
            Figure::count("tunnels ended by pushed timers", u64::try_from(closed)?, 0),
        ],
    })
}

/// Starts a server at the port of the node's own, with its certificate.
fn start_server(node: &Node) -> Result<Process> {
    let prefix = node.prefix()?.parse()?;
    let address = overlay::link_local(prefix);
    ip::batch(
        Some(node.namespace()),
        &format!(
            "tuntap add dev {TAP} mode tap\nlink set {TAP} addrgenmode none mtu 1400\nlink set {TAP} up\n\
             addr add {address}/64 dev {TAP} nodad\n"
        ),
    )?;
    let mut arguments = credentials(node);
    let others = [
        "--mode",
        "server",
        "--tls-server",
        "--dh",
        "none",
        "--dev",
        TAP,
        "--dev-type",
        "tap",
        "--proto",
        "udp6",
        "--port",
        "1194",
        "--tun-mtu",
        "1400",
        "--data-ciphers",
        "AES-256-GCM:CHACHA20-POLY1305",
        "--keepalive",
        "2",
        "20",
    ];
    arguments.extend(others.map(str::to_owned));
    for option in PUSHED {
        arguments.extend(["--push".to_owned(), (*option).to_owned()]);
    }
    let log = node.root().join("hostile.log");
    Process::start(node.namespace(), Path::new("openvpn"), &arguments, &log)
}
