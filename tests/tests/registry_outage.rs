//! The registry is stopped for good: a node that is killed comes back nevertheless, and nodes learn from each other at
//! which endpoints they can be dialled.

use anyhow::{Context, Result};
use lab::{Lab, Node, Options, is_skipped_without_root, wait::wait_until};
use std::{net::Ipv4Addr, time::Duration};
use wire::control::{TUNNELS_PATH, TunnelsDocument};

/// The node that gets another address.
const MOVED: usize = 5;
/// The nodes that the moved node dials.
const PINNED: [usize; 2] = [0, 1];

#[test]
fn without_the_registry_a_node_comes_back_and_dials_an_endpoint_that_it_learned_from_a_peer()
-> Result<()> {
    if is_skipped_without_root("registry_outage") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(6))?;
    lab.stop_registry();

    // No node can learn this new address from the registry.
    let moved = lab.node(MOVED)?;
    moved.stop();
    let address = lab.change_address(MOVED)?;
    // The moved node's two dials go to pinned peers, so that it does not dial the node that is to dial it.
    let pinned = PINNED
        .iter()
        .map(|index| lab.node(*index)?.prefix())
        .collect::<Result<Vec<_>>>()?;
    moved.configure("neighbours", &format!("[{}]", pinned.join(", ")))?;
    moved.start()?;
    lab.wait_for_convergence()?;

    let distant = find_distant_node(&lab, moved)?;
    distant.kill();
    // A pinned peer is always dialled, so the test does not depend on chance.
    distant.configure("neighbours", &format!("[{}]", moved.prefix()?))?;
    // No node with a tunnel of either direction is dialled.
    distant.admit_no_clients()?;
    distant.start()?;
    lab.wait_for_convergence()?;
    wait_until(Duration::from_secs(90), || {
        has_dialled(distant, moved, address).ok()?.then_some(())
    })
    .with_context(|| distant.describe(&format!("did not dial {address} within 90 s")))
}

/// A node that the moved node has no tunnel to.
fn find_distant_node<'a>(lab: &'a Lab, moved: &Node) -> Result<&'a Node> {
    let tunnels: TunnelsDocument = moved.control_document(TUNNELS_PATH)?;
    let has_tunnel_to = |node: &Node| {
        let mut peers = tunnels.tunnels.iter().map(|tunnel| tunnel.peer.as_str());
        peers.any(|peer| node.prefix().ok() == Some(peer))
    };
    lab.nodes()
        .iter()
        .filter(|node| node.index() != MOVED && !PINNED.contains(&node.index()))
        .find(|node| !has_tunnel_to(node))
        .context("every node has a tunnel to the node that moved")
}

fn has_dialled(node: &Node, peer: &Node, address: Ipv4Addr) -> Result<bool> {
    let prefix = peer.prefix()?;
    let tunnels: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    Ok(tunnels.tunnels.iter().any(|tunnel| {
        tunnel.peer == prefix
            && tunnel.role == "dialled"
            && tunnel.phase == "up"
            && tunnel
                .endpoint
                .is_some_and(|endpoint| endpoint.ip() == address)
    }))
}
