//! Nodes with private addresses find each other in one LAN without any setting, and dial nobody in their LAN because a stranger
//! announced it to the registry.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Options, is_skipped_without_root, nat_router,
    wait::{pause, wait_until},
};
use std::{collections::BTreeSet, time::Duration};
use wire::control::{PEERS_PATH, PeersDocument, STATUS_PATH, StatusDocument};

/// Longest wait until a node has heard of another one, or of the number of hidden ones.
const NEWS_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for which a node is watched that must not dial.
const WATCH_TIME: Duration = Duration::from_secs(10);

#[test]
fn nodes_of_one_lan_form_a_network_without_any_setting() -> Result<()> {
    if is_skipped_without_root("private_endpoints") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options {
        nodes: 3,
        has_private_addresses: true,
        ..Options::default()
    })?;
    for node in lab.nodes() {
        // A network may be whole before a node has published that it is ready.
        let ready = || {
            let status: StatusDocument = node.control_document(STATUS_PATH).ok()?;
            status.ready.then_some(status)
        };
        let status = wait_until(NEWS_TIMEOUT, ready).context("a node is not ready")?;
        ensure!(status.unused_endpoints == 0, "{status:?}");
        ensure!(status.registry.hidden_nodes == 0, "{status:?}");
        let peers: PeersDocument = node.control_document(PEERS_PATH)?;
        let is_private = |endpoint: &String| endpoint.contains(":192.168.1.");
        ensure!(
            peers
                .peers
                .iter()
                .all(|peer| peer.endpoints.iter().all(is_private)),
            "{peers:?}"
        );
    }
    Ok(())
}

/// The number of the node behind NAT.
const INSIDE: usize = 1;
/// The number of the node that announces an address in the LAN of [`INSIDE`].
const STRANGER: usize = 2;

#[test]
fn a_stranger_makes_nobody_dial_into_a_lan() -> Result<()> {
    if is_skipped_without_root("private_endpoints: stranger") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 3,
        nodes_behind_nat: BTreeSet::from([INSIDE]),
        ..Options::default()
    })?;
    let (inside, stranger) = (lab.node(INSIDE)?, lab.node(STRANGER)?);
    let victim = format!("tcp:{}:80", nat_router::ROUTER_ADDRESS);
    stranger.configure("endpoints", &format!("[\"{victim}\"]"))?;
    lab.start_and_converge()?;
    // Without the rule of the registry, the endpoint would be dialled: it is in the subnet of the node.
    let name = stranger.prefix()?;
    let known = wait_until(NEWS_TIMEOUT, || {
        let peers: PeersDocument = inside.control_document(PEERS_PATH).ok()?;
        peers.peers.into_iter().find(|peer| peer.prefix == name)
    });
    known.context("the node behind NAT has not heard of the stranger")?;
    pause(WATCH_TIME);
    for node in [lab.node(0)?, inside] {
        let peers: PeersDocument = node.control_document(PEERS_PATH)?;
        let text = serde_json::to_string(&peers.peers)?;
        ensure!(!text.contains(&victim), "{text}");
        ensure!(!text.contains("192.168."), "{text}");
    }
    // The registry keeps it, and shows it to nodes of the stranger's own site.
    let listing = lab.registry_command("list", &["--json"])?;
    ensure!(listing.contains(&victim), "{listing}");
    Ok(())
}
