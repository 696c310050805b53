//! Splits, disconnected nodes, killed daemons.

use super::Watch;
use crate::{Lab, Options, PingSchedule, node::Node, prometheus::Prometheus};
use anyhow::Result;
use std::{ops::Range, time::Duration};

/// Nodes of the network, and those of them that are split off.
const NODES: usize = 6;
const SPLIT_PART: Range<usize> = 0..3;
/// The node that is disconnected, and the one that is killed.
const CUT: Range<usize> = 0..1;
const KILLED: usize = 2;
/// Interval of the pings between all pairs, which make the nodes probe their tunnels often.
const PING_INTERVAL: Duration = Duration::from_millis(100);
pub(super) fn measure() -> Result<Watch> {
    let lab = Lab::build_joined(Options::with_nodes(NODES))?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let _load = lab.start_pings(PingSchedule::Every(PING_INTERVAL))?;
    let mut watch = Watch::start_quiet(&lab)?;
    let split = ["WarrenSplit", "WarrenMissesNodes", "WarrenLostNodes"];
    watch.fire("three nodes are split from three", &split, || {
        lab.split(SPLIT_PART)
    })?;
    watch.end(|| lab.join_parts(SPLIT_PART))?;
    let cut = ["WarrenNotReady", "WarrenAlone", "WarrenDocumentBehind"];
    watch.fire(
        "a node is disconnected, and the network document changes",
        &cut,
        || {
            lab.split(CUT)?;
            lab.registry_command("set", &["refresh", "299s"]).map(drop)
        },
    )?;
    watch.end(|| lab.join_parts(CUT))?;
    let killed = lab.node(KILLED)?;
    watch.fire("a daemon is killed", &["WarrenDown"], || {
        killed.kill();
        Ok(())
    })?;
    watch.end(|| killed.start())?;
    watch.fire("all daemons are killed", &["WarrenNoData"], || {
        lab.nodes().iter().for_each(Node::kill);
        Ok(())
    })?;
    watch.end(|| lab.start_nodes())?;
    Ok(watch)
}
