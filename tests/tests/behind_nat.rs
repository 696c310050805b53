//! A node behind NAT gets a port mapping from a real gateway, is dialled through it, and leaves none behind.

use anyhow::{Context, Result};
use lab::{Lab, Options, is_left_out, measure::start_whole, process::wait_until};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument};

#[test]
fn a_node_behind_nat_is_dialled_through_its_mapping_which_ends_with_it() -> Result<()> {
    if is_left_out("behind_nat") {
        return Ok(());
    }
    let inside = 3;
    let behind_nat = BTreeSet::from([inside]);
    let lab = Lab::joined(Options {
        nodes: 4,
        dial: Some(3),
        behind_nat,
        ..Options::default()
    })?;
    let node = lab.node(inside)?;
    let prefix = node.identity()?.prefix.clone();
    let router = lab.routers().first().context("no router")?;
    // It dials one only, so that two others must dial it.
    node.configure("tunnels-to-dial", "1")?;
    assert_eq!(router.mappings()?, [""; 0]);
    start_whole(&lab)?;

    let outside: IpAddr = "45.67.2.4".parse()?;
    let leased = wait_until(Duration::from_secs(60), || {
        let status: StatusDocument = node.ask(STATUS_PATH).ok()?;
        let good = !status.leases.is_empty()
            && status
                .leases
                .iter()
                .all(|lease| lease.external.ip() == outside);
        good.then_some(status.leases.len())
    });
    let leases =
        leased.with_context(|| format!("no lease within a minute: {}", node.log_tail(20)))?;
    assert_eq!(router.mappings()?.len(), leases, "{:?}", router.mappings()?);

    let dialled = wait_until(Duration::from_secs(90), || {
        let others = lab.nodes().iter().filter(|other| other.index() != inside);
        others
            .filter_map(|other| other.ask::<TunnelsDocument>(TUNNELS_PATH).ok())
            .find(|document| {
                document.tunnels.iter().any(|tunnel| {
                    tunnel.peer == prefix
                        && tunnel.role == "dialled"
                        && tunnel.phase == "up"
                        && tunnel
                            .endpoint
                            .is_some_and(|endpoint| endpoint.ip() == outside)
                })
            })
    });
    dialled.context("nobody dialled the node behind NAT within 90 s")?;

    node.kill();
    node.start()?;
    let again = wait_until(Duration::from_secs(60), || {
        let status: StatusDocument = node.ask(STATUS_PATH).ok()?;
        (status.leases.len() == leases).then_some(())
    });
    again.with_context(|| format!("no lease after kill and start: {}", node.log_tail(20)))?;
    assert_eq!(router.mappings()?.len(), leases, "{:?}", router.mappings()?);

    assert!(
        node.stop().is_some_and(|status| status.success()),
        "{}",
        node.log_tail(20)
    );
    assert_eq!(router.mappings()?, [""; 0]);
    Ok(())
}
