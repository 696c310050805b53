//! The registry goes away for good: a node that is killed comes back all the same, and nodes tell each other where
//! they can be dialled.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, is_left_out,
    measure::{CALM, start_whole},
    process::wait_until,
};
use std::time::Duration;
use wire::control::{TUNNELS_PATH, TunnelsDocument};

#[test]
fn without_the_registry_a_node_comes_back_and_dials_an_endpoint_that_a_peer_told() -> Result<()> {
    if is_left_out("registry_away") {
        return Ok(());
    }
    let lab = Lab::joined(Options {
        nodes: 6,
        dial: Some(2),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    lab.stop_registry();

    // This node's new address nobody can have from the registry.
    let moved = lab.node(5)?;
    let prefix = moved.identity()?.prefix.clone();
    moved.stop();
    let address = lab.renumber(5)?;
    // Its two dials are spoken for, so that it dials nobody whom the test waits to be dialled by.
    let held = [
        lab.node(0)?.identity()?.prefix.clone(),
        lab.node(1)?.identity()?.prefix.clone(),
    ];
    moved.configure("neighbours", &format!("[{}]", held.join(", ")))?;
    moved.start()?;
    whole(&lab)?;

    let tunnels: TunnelsDocument = moved.ask(TUNNELS_PATH)?;
    let distant = lab.nodes().iter().take(5).skip(2).find(|node| {
        let prefix = node
            .identity()
            .map(|identity| identity.prefix.clone())
            .unwrap_or_default();
        tunnels.tunnels.iter().all(|tunnel| tunnel.peer != prefix)
    });
    let distant = distant.context("every node has a tunnel to the node that moved")?;
    distant.kill();
    // A pinned peer is always dialled; so this test needs no luck.
    distant.configure("neighbours", &format!("[{prefix}]"))?;
    distant.start()?;
    whole(&lab)?;

    let dialled = wait_until(Duration::from_secs(90), || {
        let tunnels: TunnelsDocument = distant.ask(TUNNELS_PATH).ok()?;
        let there = |endpoint: std::net::SocketAddr| endpoint.ip() == std::net::IpAddr::V4(address);
        let found = tunnels.tunnels.into_iter().find(|tunnel| {
            tunnel.peer == prefix
                && tunnel.role == "dialled"
                && tunnel.phase == "up"
                && tunnel.endpoint.is_some_and(there)
        });
        found.map(drop)
    });
    dialled.with_context(|| format!("{address} was not dialled: {}", distant.log_tail(20)))?;
    Ok(())
}

fn whole(lab: &Lab) -> Result<()> {
    let pinger = lab.ping(CALM)?;
    let start = pinger.now();
    lab::measure::wait_whole(lab, &pinger, start).map(drop)
}
