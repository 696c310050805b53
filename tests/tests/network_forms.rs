//! Nodes that are started at once find each other and become one network.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, is_left_out,
    measure::{start_whole, wait_routes},
    process::wait_until,
};
use std::{collections::BTreeMap, fs, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument};

#[test]
fn six_nodes_that_dial_two_each_reach_each_other_and_their_children_have_no_root() -> Result<()> {
    if is_left_out("network_forms") {
        return Ok(());
    }
    let lab = Lab::joined(Options {
        nodes: 6,
        dial: Some(2),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    let hops = wait_routes(&lab)?
        .mean_hops()
        .context("a table is not whole")?;
    assert!(hops >= 1.0, "{hops}");
    for node in lab.nodes() {
        let status: StatusDocument = node.ask(STATUS_PATH)?;
        let identity = node.identity()?;
        assert_eq!(
            (&status.prefix, status.address.to_string()),
            (&identity.prefix, identity.address.to_string())
        );
        for (pid, command) in node.children() {
            assert!(
                command.contains("openvpn") || command.contains("babeld"),
                "{command}"
            );
            let of = fs::metadata(format!("/proc/{pid}"))?;
            assert_ne!(std::os::unix::fs::MetadataExt::uid(&of), 0, "{command}");
        }
        assert!(node.children().len() >= 3, "{:?}", node.children());
    }
    // Each tunnel is seen at both of its ends; what a node tells may be a second old.
    let seen = |ends: &BTreeMap<_, usize>| ends.len() >= 5 && ends.values().all(|seen| *seen >= 2);
    let both = wait_until(Duration::from_secs(10), || {
        both_ends(&lab).ok().filter(seen)
    });
    assert!(both.is_some(), "{:?}", both_ends(&lab)?);
    assert_eq!(lab.stop_all(), [0; 0]);
    Ok(())
}

/// How many tunnels that are up each pair of nodes tells of, both ends counted.
fn both_ends(lab: &Lab) -> Result<BTreeMap<[String; 2], usize>> {
    let mut ends = BTreeMap::new();
    for node in lab.nodes() {
        let own = node.identity()?.prefix.clone();
        let tunnels: TunnelsDocument = node.ask(TUNNELS_PATH)?;
        for tunnel in tunnels
            .tunnels
            .into_iter()
            .filter(|tunnel| tunnel.phase == "up")
        {
            let mut pair = [own.clone(), tunnel.peer];
            pair.sort();
            *ends.entry(pair).or_default() += 1;
        }
    }
    Ok(ends)
}
