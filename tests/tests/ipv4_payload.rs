//! A network that carries IPv6 gets an IPv4 range as well while it runs; its nodes have prefixes of several lengths.

use anyhow::{Context, Result, bail};
use lab::{Lab, Node, Options, ip, is_skipped_without_root, netns, wait::wait_until};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use wire::control::{STATUS_PATH, StatusDocument};

/// Lengths of the nodes' prefixes: the network's usual one, a longer and a shorter one.
const PREFIX_LENGTHS: [&str; 5] = ["16", "16", "16", "20", "12"];
/// The port at which each node is reached.
const PORT: u16 = 4321;
/// Longest wait until a node has an IPv4 address.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for routes: nodes restart their babeld within half a minute, one after the other.
const ROUTES_TIMEOUT: Duration = Duration::from_secs(90);

#[test]
fn nodes_reach_each_other_by_ipv4_while_the_network_has_a_range_and_no_longer_after() -> Result<()>
{
    if is_skipped_without_root("ipv4_payload") {
        return Ok(());
    }
    let lab = Lab::build(Options {
        nodes: PREFIX_LENGTHS.len(),
        tunnels_to_dial: Some(1),
        ..Options::default()
    })?;
    lab.init_registry()?;
    lab.start_registry()?;
    for (node, length) in lab.nodes().iter().zip(PREFIX_LENGTHS) {
        node.join(&lab.invite(&["--prefix-length", length])?)?;
    }
    lab.start_and_converge()?;
    lab.registry_command("set", &["ipv4", "10.0.0.0/8"])?;
    all_reach_each_other(&lab)?;

    lab.registry_command("set", &["ipv4", ""])?;
    for node in lab.nodes() {
        wait_until(ROUTES_TIMEOUT, || has_no_ipv4(node).ok()?.then_some(()))
            .with_context(|| node.describe("still has IPv4"))?;
    }
    assert_eq!(lab.stop_nodes(), [0; 0]);
    Ok(())
}

fn all_reach_each_other(lab: &Lab) -> Result<()> {
    let mut addresses = Vec::new();
    for node in lab.nodes() {
        let address = wait_until(ADDRESS_TIMEOUT, || ipv4_address(node).ok().flatten());
        addresses.push(address.with_context(|| node.describe("has no IPv4 address"))?);
    }
    let listeners = lab.nodes().iter().map(listen).collect::<Result<Vec<_>>>()?;
    for (node, own_address) in lab.nodes().iter().zip(&addresses) {
        for (address, listener) in addresses.iter().zip(&listeners) {
            if address == own_address {
                continue;
            }
            let seen = wait_until(ROUTES_TIMEOUT, || connect(node, *address, listener).ok());
            assert_eq!(
                seen,
                Some(IpAddr::V4(*own_address)),
                "from {own_address} to {address}"
            );
        }
    }
    Ok(())
}

fn ipv4_address(node: &Node) -> Result<Option<Ipv4Addr>> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    Ok(status.address4)
}

fn has_no_ipv4(node: &Node) -> Result<bool> {
    let routes = ip::output(node.namespace(), &["-4", "route", "show", "table", "all"])?;
    Ok(!routes.contains("10.") && ipv4_address(node)?.is_none())
}

fn listen(node: &Node) -> Result<TcpListener> {
    netns::run_inside(node.namespace(), || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
}

/// Connects from `node` to the address, and returns the address that the other end sees.
fn connect(node: &Node, address: Ipv4Addr, listener: &TcpListener) -> Result<IpAddr> {
    let target = SocketAddr::from((address, PORT));
    let _connection = netns::run_inside(node.namespace(), || {
        Ok(TcpStream::connect_timeout(&target, Duration::from_secs(1))?)
    })?;
    match wait_until(Duration::from_secs(1), || listener.accept().ok()) {
        Some((_, from)) => Ok(from.ip()),
        None => bail!("the other end accepted no connection"),
    }
}
