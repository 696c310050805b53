//! What a daemon changes on its host is as before after an orderly stop, and after a kill followed by a start and a
//! stop.

use anyhow::{Context, Result};
use lab::{
    Lab, Node, Options, host_snapshot::HostSnapshot, is_skipped_without_root, wait::wait_until,
};
use std::time::Duration;

#[test]
fn a_host_is_as_before_after_a_stop_and_after_a_kill_a_start_and_a_stop() -> Result<()> {
    if is_skipped_without_root("host_restored") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 3,
        ..Options::default()
    })?;
    let node = lab.node(0)?;
    let before = HostSnapshot::take(node.namespace())?;
    let changes =
        || Ok::<_, anyhow::Error>(before.changes_to(&HostSnapshot::take(node.namespace())?));
    lab.start_and_converge()?;
    assert!(!changes()?.is_empty());
    node.stop_cleanly()?;
    assert_eq!(changes()?, [""; 0]);

    node.start()?;
    lab.wait_for_convergence()?;
    node.kill();
    let all_gone = || node.processes().is_empty().then_some(());
    wait_until(Duration::from_secs(2), all_gone)
        .with_context(|| node.describe("was killed, but its children live on after 2 s"))?;
    node.start()?;
    lab.wait_for_convergence()?;
    node.stop_cleanly()?;
    assert_eq!(changes()?, [""; 0]);
    Ok(())
}

#[test]
fn a_host_with_a_default_route_from_router_advertisements_keeps_it() -> Result<()> {
    if is_skipped_without_root("host_restored: router advertisements") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 2,
        ..Options::default()
    })?;
    let node = lab.node(0)?;
    wait_for_advertised_route(&lab, node)
        .context("the advertisement created no default route before warren runs")?;
    lab.start_and_converge()?;
    let sysctls = [
        "net.ipv6.conf.eth0.accept_ra",
        "net.ipv6.conf.all.forwarding",
    ];
    let sysctls = node.command("sysctl", &sysctls)?;
    advertised_route(node)
        .with_context(|| format!("the default route is gone while warren runs: {sysctls}"))?;
    // The host must go on to accept advertisements, too, so that a lost route comes back.
    node.command("ip", &["-6", "route", "del", "default"])?;
    wait_for_advertised_route(&lab, node)
        .context("the host no longer accepts advertisements while warren runs")?;
    node.stop_cleanly()?;
    advertised_route(node).context("the default route is gone after the stop")?;
    Ok(())
}

/// The node's default route from a router advertisement.
fn advertised_route(node: &Node) -> Option<String> {
    let arguments = ["-6", "route", "show", "default", "proto", "ra"];
    let routes = node.command("ip", &arguments).ok()?;
    (!routes.trim().is_empty()).then_some(routes)
}

/// Sends router advertisements until the node has a default route from one.
fn wait_for_advertised_route(lab: &Lab, node: &Node) -> Result<String> {
    let route = wait_until(Duration::from_secs(10), || {
        lab.send_router_advertisement().ok()?;
        advertised_route(node)
    });
    route.context("no default route within 10 s")
}
