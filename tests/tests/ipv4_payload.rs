//! A network that carries IPv6 gets IPv4 beside it while it runs; nodes have prefixes of several lengths.

use anyhow::{Context, Result, bail};
use lab::{Lab, Node, Options, ip, is_left_out, measure::start_whole, process::wait_until};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use wire::control::{STATUS_PATH, StatusDocument};

/// The network's usual, a longer and a shorter one.
const LENGTHS: [&str; 5] = ["16", "16", "16", "20", "12"];
const PORT: u16 = 4321;

#[test]
fn each_node_reaches_each_other_by_ipv4_once_the_network_has_a_range_and_none_after_it_was_taken()
-> Result<()> {
    if is_left_out("ipv4_payload") {
        return Ok(());
    }
    let lab = Lab::new(Options {
        nodes: LENGTHS.len(),
        dial: Some(1),
        ..Options::default()
    })?;
    lab.init_registry()?;
    lab.start_registry()?;
    for (node, length) in lab.nodes().iter().zip(LENGTHS) {
        node.join(&lab.invite_with(&["--prefix-length", length])?)?;
    }
    start_whole(&lab)?;
    lab.registry_command("set", &["ipv4".to_owned(), "10.0.0.0/8".to_owned()])?;
    let mut addresses = Vec::new();
    for node in lab.nodes() {
        let address = wait_until(Duration::from_secs(30), || ipv4(node).ok().flatten());
        addresses
            .push(address.with_context(|| format!("node {} has no IPv4 address", node.index()))?);
    }
    let listeners = lab.nodes().iter().map(listen).collect::<Result<Vec<_>>>()?;
    for (node, own) in lab.nodes().iter().zip(&addresses) {
        for (address, listener) in addresses
            .iter()
            .zip(&listeners)
            .filter(|(address, _)| *address != own)
        {
            // Nodes start their babeld anew within half a minute, one after the other.
            let seen = wait_until(Duration::from_secs(90), || {
                meet(node, *address, listener).ok()
            });
            assert_eq!(seen, Some(IpAddr::V4(*own)), "from {own} to {address}");
        }
    }

    lab.registry_command("set", &["ipv4".to_owned(), String::new()])?;
    for node in lab.nodes() {
        let gone = || {
            let routes =
                ip::read(node.namespace(), &["-4", "route", "show", "table", "all"]).ok()?;
            (!routes.contains("10.") && ipv4(node).ok()?.is_none()).then_some(())
        };
        wait_until(Duration::from_secs(90), gone).context("IPv4 stays")?;
    }
    assert_eq!(lab.stop_all(), [0; 0]);
    Ok(())
}

fn ipv4(node: &Node) -> Result<Option<Ipv4Addr>> {
    Ok(node.ask::<StatusDocument>(STATUS_PATH)?.address4)
}

fn listen(node: &Node) -> Result<TcpListener> {
    ip::inside(node.namespace(), || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
}

/// Connects to that address from `node`; the address that the other end sees.
fn meet(node: &Node, address: Ipv4Addr, listener: &TcpListener) -> Result<IpAddr> {
    let to = SocketAddr::from((address, PORT));
    let _open = ip::inside(node.namespace(), || {
        Ok(TcpStream::connect_timeout(&to, Duration::from_secs(1))?)
    })?;
    match wait_until(Duration::from_secs(1), || listener.accept().ok()) {
        Some((_, from)) => Ok(from.ip()),
        None => bail!("nobody came"),
    }
}
