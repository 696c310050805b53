//! Two nodes behind port-restricted NATs without port mappings get a tunnel to each other, since a node on the internet sees from where
//! their datagrams come. Behind symmetric NATs they get none, and say why.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, is_skipped_without_root,
    measure::punch::{failed_attempts, has_punched_tunnel, measure_pair},
    nat_router::NatKind,
    wait::{pause, wait_until},
};
use std::{collections::BTreeSet, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument};

/// Longest wait for the tunnel.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time after a restart in which processes would be restarted that run with other arguments than the new program uses.
const AFTERMATH: Duration = Duration::from_secs(8);

#[test]
fn nodes_behind_port_restricted_nats_get_a_tunnel_with_the_help_of_a_third_node() -> Result<()> {
    if is_skipped_without_root("hole_punching") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 3,
        tunnels_to_dial: Some(2),
        nodes_behind_nat: [1, 2].into(),
        ..Options::default()
    })?;
    for router in lab.nat_routers() {
        router.set_kind(NatKind::PortRestricted)?;
    }
    lab.start_and_converge()?;
    let (first, second) = (lab.node(1)?, lab.node(2)?);
    wait_until(TUNNEL_TIMEOUT, || {
        has_punched_tunnel(first, second).ok()?.then_some(())
    })
    .with_context(|| {
        let failed = [first, second].map(|node| failed_attempts(node).ok());
        format!("no tunnel within a minute: {failed:?}")
    })?;
    for node in [first, second] {
        let status: StatusDocument = node.control_document(STATUS_PATH)?;
        ensure!(status.leases.is_empty(), "{:?}", status.leases);
        check_restart(node, [first, second])?;
    }
    // The packets between the two take the tunnel, not the way by the third node.
    lab.node(0)?.kill();
    let target = second.identity()?.address.to_string();
    let ping = ["-6", "-c3", "-i0.2", "-W1", &target];
    wait_until(TUNNEL_TIMEOUT, || first.command("ping", &ping).ok())
        .context("the two nodes do not reach each other without the third one")?;
    Ok(())
}

/// Restarts the daemon in place, and checks that the tunnel between the two runs on as one that came by hole punching.
fn check_restart(node: &Node, both: [&Node; 2]) -> Result<()> {
    let before: BTreeSet<u32> = node.children().into_keys().collect();
    node.warren_command(&["restart"])?;
    pause(AFTERMATH);
    let lost: Vec<_> = before
        .into_iter()
        .filter(|child| !node.children().contains_key(child))
        .collect();
    let [first, second] = both;
    ensure!(
        lost.is_empty() && has_punched_tunnel(first, second)?,
        "{}",
        node.describe(&format!("lost the tunnel or its children {lost:?}"))
    );
    Ok(())
}

/// Whether an attempt ended with this result because one of its few datagrams was lost, or since a node was busy.
fn is_accidental(result: &str) -> bool {
    matches!(result, "no_answer" | "declined" | "not_observed")
}

#[test]
fn nodes_behind_symmetric_nats_get_no_tunnel_and_name_the_reason() -> Result<()> {
    if is_skipped_without_root("hole_punching") {
        return Ok(());
    }
    let mut cell = measure_pair([NatKind::Symmetric; 2], 1)?;
    if cell.failures.keys().all(|result| is_accidental(result)) {
        ensure!(cell.tunnels_up == 0, "{cell:?}");
        cell = measure_pair([NatKind::Symmetric; 2], 1)?;
    }
    ensure!(cell.tunnels_up == 0, "{cell:?}");
    ensure!(
        cell.failures == [("endpoint_dependent_nat".to_owned(), 1)].into(),
        "{cell:?}"
    );
    Ok(())
}
