//! A node behind NAT gets a port mapping from a real router, is dialled through it, and leaves no mapping behind.

use anyhow::{Context, Result};
use lab::{Lab, Node, Options, is_skipped_without_root, wait::wait_until};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument};

/// The number of the node behind NAT.
const INSIDE: usize = 3;
/// The address of its router on the internet.
const ROUTER_ADDRESS: &str = "45.67.2.4";
/// Longest wait until the node has a lease of a port mapping.
const LEASE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until another node dials it.
const DIAL_TIMEOUT: Duration = Duration::from_secs(90);

#[test]
fn a_node_behind_nat_is_dialled_through_its_mapping_which_disappears_with_the_node() -> Result<()> {
    if is_skipped_without_root("behind_nat") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 4,
        tunnels_to_dial: Some(3),
        nodes_behind_nat: BTreeSet::from([INSIDE]),
        ..Options::default()
    })?;
    let node = lab.node(INSIDE)?;
    let router = lab.nat_routers().first().context("there is no router")?;
    // It dials only one node, so that the two others must dial it.
    node.configure("tunnels-to-dial", "1")?;
    assert_eq!(router.mappings()?, [""; 0]);
    lab.start_and_converge()?;

    let leases = wait_for_leases(node)?;
    let mappings = router.mappings()?;
    assert_eq!(mappings.len(), leases, "{mappings:?}");
    wait_until(DIAL_TIMEOUT, || is_dialled(&lab, node).ok()?.then_some(()))
        .context("no node dialled the node behind NAT within 90 s")?;

    wait_until(DIAL_TIMEOUT, || is_confirmed(node).ok()?.then_some(()))
        .context("no other node confirmed the mapped port within 90 s")?;

    node.kill();
    node.start()?;
    assert_eq!(wait_for_leases(node)?, leases);
    let mappings = router.mappings()?;
    assert_eq!(mappings.len(), leases, "{mappings:?}");

    node.stop_cleanly()?;
    assert_eq!(router.mappings()?, [""; 0]);
    Ok(())
}

/// Waits until the node has leases, all of them on its router, and returns their number.
fn wait_for_leases(node: &Node) -> Result<usize> {
    let router: IpAddr = ROUTER_ADDRESS.parse()?;
    let leases = wait_until(LEASE_TIMEOUT, || {
        let status: StatusDocument = node.control_document(STATUS_PATH).ok()?;
        let leases = status.leases;
        let are_on_router = leases.iter().all(|lease| lease.external.ip() == router);
        (!leases.is_empty() && are_on_router).then_some(leases.len())
    });
    leases.with_context(|| node.describe("got no lease within a minute"))
}

/// Whether another node got an answer at a mapped port.
fn is_confirmed(node: &Node) -> Result<bool> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    let mut mapped = status
        .endpoints
        .iter()
        .filter(|entry| entry.source == "port-mapping");
    Ok(mapped.any(|entry| entry.reachability == "confirmed"))
}

/// Whether another node has dialled this one through its router.
fn is_dialled(lab: &Lab, node: &Node) -> Result<bool> {
    let (prefix, router) = (node.prefix()?, ROUTER_ADDRESS.parse::<IpAddr>()?);
    for other in lab.nodes().iter().filter(|other| other.index() != INSIDE) {
        let tunnels: TunnelsDocument = other.control_document(TUNNELS_PATH)?;
        let has_dialled = tunnels.tunnels.iter().any(|tunnel| {
            tunnel.peer == prefix
                && tunnel.role == "dialled"
                && tunnel.phase == "up"
                && tunnel
                    .endpoint
                    .is_some_and(|endpoint| endpoint.ip() == router)
        });
        if has_dialled {
            return Ok(true);
        }
    }
    Ok(false)
}
