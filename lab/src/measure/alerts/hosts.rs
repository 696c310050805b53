//! Clocks, routers, and other programs on a host.

use super::Watch;
use crate::{
    Lab, Options, measure::hosts::surroundings::start_babeld, nat_router::MappingProtocols,
    prometheus::Prometheus,
};
use anyhow::{Context, Result};
use std::collections::BTreeSet;

/// Nodes of the network, the last of them behind a NAT router.
const NODES: usize = 3;
const INSIDE: usize = 2;
/// The error of a wrong clock; the alert's threshold is 30 s.
const CLOCK_OFFSET: &str = "+45s";
pub(super) fn measure() -> Result<Watch> {
    let lab = Lab::build_joined(Options {
        nodes_behind_nat: BTreeSet::from([INSIDE]),
        ..Options::with_nodes(NODES)
    })?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let mut watch = Watch::start_quiet(&lab)?;
    let router = lab.nat_routers().first().context("there is no router")?;
    watch.fire(
        "a router maps no port any more",
        &["WarrenLeaseLost"],
        || {
            router.stop_miniupnpd();
            Ok(())
        },
    )?;
    let other = lab.node(1)?;
    let mut babeld = None;
    watch.fire(
        "another babeld runs on a host",
        &["WarrenHostDisturbed"],
        || {
            babeld = Some(start_babeld(&lab, other)?);
            Ok(())
        },
    )?;
    watch.repair("WarrenHostDisturbed", || {
        drop(babeld);
        Ok(())
    })?;
    watch.fire(
        "the network requires newer software",
        &["WarrenDegraded"],
        || {
            lab.registry_command("set", &["min-version", "99.0.0"])
                .map(drop)
        },
    )?;
    watch.repair("WarrenDegraded", || {
        lab.registry_command("set", &["min-version", ""]).map(drop)
    })?;
    watch.fire(
        "the clock of the registry is wrong by 45 s",
        &["WarrenClockOff"],
        || {
            lab.stop_registry();
            lab.start_registry_with_clock(CLOCK_OFFSET)
        },
    )?;
    watch.end(|| {
        router.start_miniupnpd(MappingProtocols::All)?;
        lab.stop_registry();
        lab.start_registry()
    })?;
    Ok(watch)
}
