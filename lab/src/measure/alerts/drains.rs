//! Closes that are given up, since packets to a neighbour's link-local address keep each tunnel in use.

use super::Watch;
use crate::{Lab, Options, PingSchedule, process::Process, prometheus::Prometheus, wait::pause};
use anyhow::Result;
use std::{collections::BTreeMap, path::Path, time::Duration};
use wire::{
    control::{TUNNELS_PATH, TunnelsDocument},
    overlay,
};

/// Nodes of the network.
const NODES: usize = 6;
/// Shorter than shipped, so that nodes begin to close tunnels within seconds.
const REFRESH: Duration = Duration::from_secs(3);
const MIN_AGE: Duration = Duration::from_secs(4);
/// Pause between two looks for tunnels.
const PING_PAUSE: Duration = Duration::from_millis(500);
/// Longest time until enough closes are given up, each of which takes 20 s.
const TIMEOUT: Duration = Duration::from_secs(200);

pub(super) fn measure() -> Result<Watch> {
    let lab = Lab::build_joined(Options {
        refresh: Some(REFRESH),
        min_age: Some(MIN_AGE),
        ..Options::with_nodes(NODES)
    })?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let _load = lab.start_pings(PingSchedule::STEADY)?;
    let mut watch = Watch::start_quiet(&lab)?;
    let mut pings = BTreeMap::new();
    watch.fire_while(
        "packets keep each tunnel in use",
        &["WarrenDrainsAbandoned"],
        TIMEOUT,
        || ping_neighbours(&lab, &mut pings),
    )?;
    watch.end(|| {
        pings.clear();
        Ok(())
    })?;
    Ok(watch)
}

/// Lets each node ping each neighbour through its tunnel, if it does not yet.
fn ping_neighbours(lab: &Lab, pings: &mut BTreeMap<(usize, String), Process>) -> Result<()> {
    for node in lab.nodes() {
        let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
        for tunnel in document.tunnels {
            let key = (node.index(), tunnel.slot.clone());
            let runs = pings
                .get(&key)
                .is_some_and(|ping| ping.exit_status().is_none());
            if tunnel.phase != "up" || runs {
                continue;
            }
            let target = format!(
                "{}%{}",
                overlay::link_local(tunnel.peer.parse()?),
                tunnel.slot
            );
            let arguments = ["-6", "-q", "-i", "0.05", &target];
            let log = lab.folder().join("pings.log");
            let ping = Process::start(node.namespace(), Path::new("ping"), arguments, &log)?;
            pings.insert(key, ping);
        }
    }
    pause(PING_PAUSE);
    Ok(())
}
