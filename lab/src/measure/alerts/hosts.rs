//! The registry, clocks, routers, and other programs on a host.

use super::Watch;
use crate::{
    Lab, Options, measure::hosts::surroundings::start_babeld, nat_router::MappingProtocols,
    process::Process, prometheus::Prometheus,
};
use anyhow::{Context, Result};
use std::{collections::BTreeSet, path::Path, thread};

/// Nodes of the network, the last of them behind a NAT router.
const NODES: usize = 3;
const INSIDE: usize = 2;
/// The error of a wrong clock; the alert's threshold is 30 s.
const CLOCK_OFFSET: &str = "+45s";
/// Commands that fail while the registry cannot write.
const FAILING_COMMANDS: usize = 8;
/// Locks a database for good.
const LOCK: &str = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); \
                    c.execute('BEGIN IMMEDIATE'); time.sleep(3600)";

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
    let registry = ["WarrenRegistryDown", "WarrenRegistryAway"];
    watch.end(|| {
        router.start_miniupnpd(MappingProtocols::All)?;
        lab.stop_registry();
        lab.start_registry()
    })?;
    watch.fire("the registry is stopped", &registry, || {
        lab.stop_registry();
        Ok(())
    })?;
    watch.end(|| lab.start_registry())?;
    watch.fire_once(
        "the registry cannot write its database",
        &["WarrenRegistryFails"],
        || {
            // A counter that did not exist before has no increase yet.
            fail_writes(&lab)?;
            fail_writes(&lab)
        },
    )?;
    watch.end(|| Ok(()))?;
    Ok(watch)
}

/// Locks the registry's database while commands that write are tried.
fn fail_writes(lab: &Lab) -> Result<()> {
    let database = lab
        .registry_root()
        .join("var/lib/warren-registry/registry.sqlite");
    let arguments = ["-c".as_ref(), LOCK.as_ref(), database.as_os_str()];
    let log = lab.folder().join("lock.log");
    let namespace = lab.internet_namespace();
    let _lock = Process::start(&namespace, Path::new("python3"), arguments, &log)?;
    thread::scope(|scope| {
        for _ in 0..FAILING_COMMANDS {
            // The command fails, which is the purpose.
            scope.spawn(|| lab.invite(&[]).is_ok());
        }
    });
    Ok(())
}
