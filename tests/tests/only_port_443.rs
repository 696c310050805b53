//! Two nodes whose networks let out TCP to port 443 alone reach each other through a node that accepts tunnels there.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Options, is_skipped_without_root, netns, node::Node, progress::progress, wait::wait_until,
};
use std::{net::TcpListener, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument};

/// Longest wait until a node reports something.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Drops what a strict firewall of a network drops; the registry has a port of its own in the lab.
const FIREWALL: &str = "add table inet test; \
     add chain inet test out { type filter hook output priority 0; }; \
     add rule inet test out oifname eth0 meta l4proto { tcp, udp } th sport 1194 drop; \
     add rule inet test out oifname eth0 meta l4proto { tcp, udp } th dport 1194 drop";

/// Returns whether all of the node's connections to servers of other nodes are to port 443, and there is one.
fn uses_port_443(node: &Node) -> Option<()> {
    let connections = ["-Htn", "state", "established", "dport = :443"];
    let sockets = node.command("ss", &connections).ok()?;
    let document: TunnelsDocument = node.control_document(TUNNELS_PATH).ok()?;
    let tunnels = document.tunnels.iter();
    let dialled = tunnels.filter(|tunnel| tunnel.role == "dialled" && tunnel.phase == "up");
    let dialled = dialled.count();
    (dialled > 0 && sockets.lines().count() == dialled).then_some(())
}

#[test]
fn nodes_that_may_send_to_port_443_only_reach_each_other_by_a_node_that_listens_there() -> Result<()>
{
    if is_skipped_without_root("only_port_443") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options::with_nodes(3))?;
    let (open, closed) = (lab.node(0)?, [lab.node(1)?, lab.node(2)?]);
    for node in lab.nodes() {
        node.configure("listen", "{ udp: 1194, tcp: [1194, 443] }")?;
    }
    let privileged = lab.node(2)?;
    privileged.configure("listen", "{ udp: 1194, tcp: 443 }")?;
    for node in closed {
        node.command("nft", &[FIREWALL])?;
    }
    // A web server has the port already.
    let web_server = netns::run_inside(lab.node(1)?.namespace(), || {
        TcpListener::bind("0.0.0.0:443").context("cannot listen at port 443")
    })?;
    let elapsed = lab.start_and_converge()?;
    progress(format!("whole after {:.2} s", elapsed.as_secs_f64()));
    wait_until(TIMEOUT, || uses_port_443(lab.node(2).ok()?)).context("no tunnel to port 443")?;

    let is_held = netns::run_inside(open.namespace(), || {
        Ok(TcpListener::bind("0.0.0.0:443").is_err())
    })?;
    ensure!(is_held, "another program can take the port from the node");
    let listeners = privileged.command("ss", &["-Hltnp", "sport = :443"])?;
    ensure!(listeners.contains("openvpn"), "{listeners}");
    let finding = || {
        let status: StatusDocument = lab.node(1).ok()?.control_document(STATUS_PATH).ok()?;
        let mut findings = status.health.findings.into_iter();
        findings.find(|finding| finding.id == "port_unused")
    };
    let finding = wait_until(TIMEOUT, finding).context("the web server's port is not reported")?;
    ensure!(finding.seen.contains("tcp port 443"), "{}", finding.seen);
    drop(web_server);
    Ok(())
}
