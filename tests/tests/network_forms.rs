//! Nodes that are started at the same time find each other and form one network.

use anyhow::{Context, Result};
use lab::{Lab, Options, is_skipped_without_root, wait::wait_until};
use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument};

/// Longest wait until both ends of every tunnel list it; what a node lists may be a second old.
const LISTING_TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn six_nodes_that_dial_two_each_reach_each_other_and_their_children_are_not_root() -> Result<()> {
    if is_skipped_without_root("network_forms") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(6))?;
    let routes = lab.wait_for_complete_routes()?;
    let mean_hops = routes
        .mean_hops()
        .context("a routing table is incomplete")?;
    assert!(mean_hops >= 1.0, "{mean_hops}");
    for node in lab.nodes() {
        let status: StatusDocument = node.control_document(STATUS_PATH)?;
        let identity = node.identity()?;
        assert_eq!(status.prefix, identity.prefix);
        assert_eq!(status.address.to_string(), identity.address.to_string());
        // A child that has not executed its program yet is still root's, and one may end now.
        let are_limited = || are_limited(&node.children()).then_some(());
        assert!(
            wait_until(LISTING_TIMEOUT, are_limited).is_some(),
            "{:?}",
            node.children()
        );
    }
    let are_complete = |listings: &BTreeMap<_, usize>| {
        listings.len() >= 5 && listings.values().all(|count| *count >= 2)
    };
    let complete_listings = wait_until(LISTING_TIMEOUT, || {
        count_listings(&lab).ok().filter(are_complete)
    });
    assert!(complete_listings.is_some(), "{:?}", count_listings(&lab)?);
    assert_eq!(lab.stop_nodes(), [0; 0]);
    Ok(())
}

/// Whether all children are OpenVPN and babeld, at least three, and none is root's.
fn are_limited(children: &BTreeMap<u32, String>) -> bool {
    let is_limited = |(pid, command): (&u32, &String)| {
        let is_known = command.contains("openvpn") || command.contains("babeld");
        let owner = fs::metadata(format!("/proc/{pid}")).map(|process| process.uid());
        is_known && owner.is_ok_and(|owner| owner != 0)
    };
    children.len() >= 3 && children.iter().all(is_limited)
}

/// How often tunnels that are up are listed between each pair of nodes; each end lists a tunnel once.
fn count_listings(lab: &Lab) -> Result<BTreeMap<[String; 2], usize>> {
    let mut listings = BTreeMap::new();
    for node in lab.nodes() {
        let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
        let tunnels = document.tunnels.into_iter();
        for tunnel in tunnels.filter(|tunnel| tunnel.phase == "up") {
            let mut pair = [node.prefix()?.to_owned(), tunnel.peer];
            pair.sort();
            *listings.entry(pair).or_default() += 1;
        }
    }
    Ok(listings)
}
