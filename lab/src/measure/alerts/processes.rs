//! Processes that exit or hang, panics, and a node that lies.

use super::{Extent, Watch};
use crate::{
    Lab, Options,
    actor_panics::make_panic,
    faults::liar::{Announcement, Liar, network_of},
    node::Node,
    prometheus::{Prometheus, node_target},
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use policies::names::Prefix;
use std::{rc::Rc, time::Duration};
use wire::{
    control::{TUNNELS_PATH, TunnelEntry, TunnelsDocument},
    overlay,
};

/// Nodes of the network.
const NODES: usize = 4;
/// The node that turns into a liar, its neighbour, and the one whose range it announces.
const LIAR: usize = 3;
const LIAR_NEIGHBOUR: usize = 0;
const VICTIM: usize = 2;
/// How often a process is killed, and a daemon restarted, until that counts as flapping.
const REPEATS: usize = 3;
/// Datagrams that are sent to a server while it does not read.
const FLOOD: usize = 6_000;
/// Longest wait until a node has dialled a tunnel.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait until Prometheus has seen the restart of a daemon.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a lie is repeated, and the interval.
const LIES: u16 = 24;
const LIE_INTERVAL: Duration = Duration::from_millis(250);

pub(super) fn measure(extent: Extent) -> Result<Watch> {
    let lab = Lab::build_joined(Options::with_nodes(NODES))?;
    Prometheus::configure_nodes(&lab)?;
    lab.start_and_converge()?;
    let mut watch = Watch::start_quiet(&lab)?;
    let (first, second) = (lab.node(0)?, lab.node(1)?);
    watch.fire_once(
        "a server is killed three times",
        &["WarrenProcessFlapping"],
        || first.kill_child_repeatedly("server-tcp", REPEATS),
    )?;
    watch.fire_once(
        "a client is killed three times",
        &["WarrenTunnelFlapping"],
        || kill_client(&lab),
    )?;
    watch.fire_once("an actor panics", &["WarrenActorPanicked"], || {
        make_panic(second, "prober")
    })?;
    let prometheus = Rc::clone(&watch.prometheus);
    watch.fire_once(
        "a daemon is restarted three times",
        &["WarrenRestartLoop"],
        || (0..REPEATS).try_for_each(|_| restart(&prometheus, second)),
    )?;
    if extent == Extent::Full {
        watch.fire_once(
            "a server does not read for a while",
            &["WarrenPacketsDropped"],
            || {
                lab.wait_for_convergence()?;
                first.overflow_server(second.namespace(), &lab.uplink_address(0), FLOOD)
            },
        )?;
        let third = lab.node(VICTIM)?;
        watch.fire(
            "a daemon may open no file",
            &["WarrenReadingsStale"],
            || third.forbid_new_files(true),
        )?;
        watch.repair("WarrenReadingsStale", || third.forbid_new_files(false))?;
    }
    watch.fire_once(
        "a member announces the range of another",
        &["WarrenFalseRoutes"],
        || {
            lab.node(LIAR)?.stop_cleanly()?;
            lie(&lab)
        },
    )?;
    // These alerts end with their ranges only, which takes minutes.
    if extent == Extent::Full {
        watch.end(|| lab.node(LIAR)?.start())?;
    }
    Ok(watch)
}

/// Kills the client of a tunnel that a node has dialled, and that stays: it is pinned, and of two nodes that dialled each other, as
/// they may again while the client is down, the one with the lower prefix closes its tunnel.
fn kill_client(lab: &Lab) -> Result<()> {
    let dialled = |node| {
        let document: TunnelsDocument = Node::control_document(node, TUNNELS_PATH).ok()?;
        let own: Prefix = Node::prefix(node).ok()?.parse().ok()?;
        let mut tunnels = document.tunnels.into_iter();
        let stays = |tunnel: &TunnelEntry| {
            let peer = tunnel.peer.parse::<Prefix>();
            let is_dialled = tunnel.phase == "up" && tunnel.role == "dialled";
            is_dialled && peer.is_ok_and(|peer| peer < own)
        };
        Some((node, tunnels.find(stays)?.slot))
    };
    let found = wait_until(TUNNEL_TIMEOUT, || lab.nodes().iter().find_map(dialled));
    let (node, slot) = found.context("no node has dialled a tunnel")?;
    node.warren_command(&["pin", &slot])?;
    node.kill_child_repeatedly(&slot, REPEATS)
}

/// Kills a daemon and starts it again, and waits until Prometheus has seen that: a start that is followed by another one before the
/// next scrape is none for it.
fn restart(prometheus: &Prometheus, node: &Node) -> Result<()> {
    let target = node_target(node.index());
    let query = format!("process_start_time_seconds{{instance=\"{target}\"}}");
    let started_at = || prometheus.value(&query);
    let before = started_at()?;
    node.kill();
    node.start()?;
    let is_seen = || (started_at().ok()? > before).then_some(());
    wait_until(SCRAPE_TIMEOUT, is_seen)
        .with_context(|| node.describe("was restarted, and Prometheus does not see that"))
}

/// Lets a member that does not run announce the range of another one for six seconds.
fn lie(lab: &Lab) -> Result<()> {
    let liar = Liar::connect(lab, LIAR, LIAR_NEIGHBOUR)?;
    let victim = lab.node(VICTIM)?.prefix()?.parse()?;
    for seqno in 0..LIES {
        liar.announce(&[Announcement {
            range: network_of(lab)?.node_range(victim).into(),
            router_id: overlay::router_id(liar.prefix()),
            metric: 0,
            seqno,
        }])?;
        pause(LIE_INTERVAL);
    }
    Ok(())
}
