//! Nodes that are started at once find each other and become one network.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, is_left_out,
    measure::{start_whole, wait_routes},
};
use std::{collections::BTreeMap, fs};
use wire::control::{STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument};

#[test]
fn six_nodes_that_dial_two_each_reach_each_other_and_their_children_have_no_root() -> Result<()> {
    if is_left_out("network_forms") {
        return Ok(());
    }
    let lab = Lab::joined(Options { nodes: 6, dial: Some(2), ..Options::default() })?;
    start_whole(&lab)?;
    let hops = wait_routes(&lab)?.mean_hops().context("a table is not whole")?;
    assert!(hops >= 1.0, "{hops}");
    let mut both_ends = BTreeMap::<(String, String), usize>::new();
    for node in lab.nodes() {
        let status: StatusDocument = node.ask(STATUS_PATH)?;
        let identity = node.identity()?;
        assert_eq!(
            (&status.prefix, status.address.to_string()),
            (&identity.prefix, identity.address.to_string())
        );
        let tunnels: TunnelsDocument = node.ask(TUNNELS_PATH)?;
        let up = tunnels.tunnels.iter().filter(|tunnel| tunnel.phase == "up");
        for tunnel in up {
            let mut ends = [identity.prefix.clone(), tunnel.peer.clone()];
            ends.sort();
            let [left, right] = ends;
            *both_ends.entry((left, right)).or_default() += 1;
        }
        for (pid, command) in node.children() {
            assert!(command.contains("openvpn") || command.contains("babeld"), "{command}");
            let of = fs::metadata(format!("/proc/{pid}"))?;
            assert_ne!(std::os::unix::fs::MetadataExt::uid(&of), 0, "{command}");
        }
        assert!(node.children().len() >= 3, "{:?}", node.children());
    }
    // Each tunnel is seen at both of its ends.
    assert!(both_ends.len() >= 5, "{both_ends:?}");
    assert!(both_ends.values().all(|seen| *seen >= 2), "{both_ends:?}");
    assert_eq!(lab.stop_all(), [0; 0]);
    Ok(())
}
