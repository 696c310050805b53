//! A registry that is stopped, and one that cannot write.

use super::Watch;
use crate::{Lab, Options, process::Process, prometheus::Prometheus, wait::wait_until};
use anyhow::{Context, Result};
use std::{path::Path, time::Duration};

/// Nodes of the network.
const NODES: usize = 3;
/// How long the registry keeps announcements; nodes announce themselves three times as often, and each call writes.
const ANNOUNCEMENT_TTL: Duration = Duration::from_secs(30);
/// Locks a database for good, and creates a file when it is locked.
const LOCK: &str = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); \
                    c.execute('BEGIN IMMEDIATE'); open(sys.argv[2], 'w').close(); time.sleep(3600)";
/// Longest wait until the database is locked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn measure() -> Result<Watch> {
    let lab = Lab::build_joined(Options {
        announcement_ttl: Some(ANNOUNCEMENT_TTL),
        ..Options::with_nodes(NODES)
    })?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let mut watch = Watch::start_quiet(&lab)?;
    let registry = ["WarrenRegistryDown", "WarrenRegistryAway"];
    watch.fire("the registry is stopped", &registry, || {
        lab.stop_registry();
        Ok(())
    })?;
    watch.end(|| lab.start_registry())?;
    let mut lock = None;
    watch.fire(
        "the registry cannot write its database",
        &["WarrenRegistryFails"],
        || {
            lock = Some(lock_database(&lab)?);
            Ok(())
        },
    )?;
    watch.end(|| {
        drop(lock);
        Ok(())
    })?;
    Ok(watch)
}

/// Locks the registry's database until the returned process ends.
fn lock_database(lab: &Lab) -> Result<Process> {
    let database = lab
        .registry_root()
        .join("var/lib/warren-registry/registry.sqlite");
    let marker = lab.folder().join("database-is-locked");
    let arguments = [
        "-c".as_ref(),
        LOCK.as_ref(),
        database.as_os_str(),
        marker.as_os_str(),
    ];
    let log = lab.folder().join("lock.log");
    let namespace = lab.internet_namespace();
    let lock = Process::start(&namespace, Path::new("python3"), arguments, &log)?;
    wait_until(LOCK_TIMEOUT, || marker.exists().then_some(()))
        .with_context(|| format!("the database was not locked: {}", lock.log_tail(5)))?;
    Ok(lock)
}
