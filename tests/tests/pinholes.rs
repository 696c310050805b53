//! A node behind a router without NAT for IPv6 has its firewall opened, by PCP or by UPnP: another node gets an answer there, and nothing is
//! left open.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, ip, is_skipped_without_root,
    nat_router::{LAN_IPV6, MappingProtocols, NatRouter, ROUTER_IPV6},
    wait::wait_until,
};
use std::time::Duration;
use wire::control::{STATUS_PATH, StatusDocument};

/// The number of the node behind the router.
const INSIDE: usize = 1;
/// The ports of the node, one of them a further one of its TCP server.
const LISTEN: &str = "{ udp: 1194, tcp: [1194, 8443] }";
/// The number of these ports.
const PORTS: usize = 3;
/// Longest wait until the firewall is open, and until another node has tried the endpoint.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// The protocols by which a router is asked, each by itself.
const PROTOCOLS: [MappingProtocols; 2] = [MappingProtocols::PcpOnly, MappingProtocols::UpnpOnly];

#[test]
fn the_routers_firewall_is_opened_for_ipv6_and_closed_at_the_stop() -> Result<()> {
    if is_skipped_without_root("pinholes") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 2,
        nodes_behind_nat: [INSIDE].into(),
        ..Options::default()
    })?;
    let (outside, inside) = (lab.node(0)?, lab.node(INSIDE)?);
    let router = lab.nat_routers().first().context("there is no router")?;
    let lines = format!(
        "addr add 2a0c:5c80::1:1/64 dev eth0 nodad\nroute add {LAN_IPV6}::/64 via {ROUTER_IPV6}\n"
    );
    ip::batch(Some(outside.namespace()), &lines)?;
    router.route_ipv6(inside.namespace(), PROTOCOLS[0])?;
    inside.configure("listen", LISTEN)?;
    outside.start()?;
    for protocols in PROTOCOLS {
        router.stop_miniupnpd();
        router.start_miniupnpd(protocols)?;
        check(inside, router).with_context(|| format!("with {protocols:?}"))?;
    }
    Ok(())
}

/// Starts the node, and checks that the firewall is open meanwhile, and closed after a crash and after a stop.
fn check(node: &Node, router: &NatRouter) -> Result<()> {
    ensure!(router.pinholes()?.is_empty(), "the router begins open");
    node.start()?;
    let opened = wait_until(OPEN_TIMEOUT, || {
        let status = status(node).ok()?;
        (status.pinholes.len() == PORTS).then_some(status)
    });
    let opened = opened.with_context(|| node.describe("got no opening of the firewall"))?;
    ensure!(router.pinholes()?.len() == PORTS, "{:?}", opened.pinholes);
    ensure!(opened.pinholes_missing.is_none(), "{opened:?}");
    let endpoint = format!("udp:[{}]:1194", "2a0c:5c80:77::2");
    wait_until(OPEN_TIMEOUT, || {
        let endpoints = status(node).ok()?.endpoints;
        let mut endpoints = endpoints.iter();
        let is_confirmed =
            endpoints.any(|entry| entry.endpoint == endpoint && entry.reachability == "confirmed");
        is_confirmed.then_some(())
    })
    .with_context(|| format!("no other node got an answer at {endpoint}"))?;

    node.kill();
    node.warren_command(&["cleanup"])?;
    ensure!(router.pinholes()?.is_empty(), "left after the cleanup");

    node.start()?;
    wait_until(OPEN_TIMEOUT, || {
        (router.pinholes().ok()?.len() == PORTS).then_some(())
    })
    .context("the firewall was not opened again")?;
    node.stop_cleanly()?;
    ensure!(router.pinholes()?.is_empty(), "left after the stop");
    Ok(())
}

fn status(node: &Node) -> Result<StatusDocument> {
    node.control_document(STATUS_PATH)
}
