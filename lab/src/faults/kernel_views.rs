//! What a node shows of its host after the kernel's notifications were lost, and after links were renamed, deleted and replaced.

use super::{Figure, Outcome};
use crate::{
    Lab, Node, Options, PingSchedule, ip,
    measure::figures::Truth,
    netns,
    ping_record::LOST_AFTER,
    pinger::pairs_without,
    proc_files,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, ensure};
use ipnet::Ipv6Net;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddrV6},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use wire::control::{
    ROUTES_PATH, RoutesDocument, STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument,
};

/// Promised time until what the node shows is what its kernel has.
const VIEWS_EQUAL: Duration = Duration::from_secs(15);
/// Longest wait for it.
const VIEWS_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between two readings of rates and tables.
const READ_INTERVAL: Duration = Duration::from_millis(100);
/// The rate above which none is plausible, in bytes a second: the tunnels carry nothing but pings and Babel.
const MAX_RATE: f64 = 1e6;
/// Changes of addresses and default routes in the storm; each is one notification.
const STORM_CHANGES: u32 = 6_000;
/// The link to which other programs add addresses and routes.
const OTHER_LINK: &str = "other0";
/// Packets a second, of 1,400 bytes each, on a link that has the index of a slot.
const OTHER_PACKETS: u32 = 5_000;
const OTHER_PACKET_BYTES: usize = 1_400;
/// Time for which they are sent.
const OTHER_SPAN: Duration = Duration::from_secs(3);

/// A link as `ip -json link` lists it.
#[derive(Deserialize)]
struct Link {
    ifindex: u32,
    ifname: String,
    ifalias: Option<String>,
    flags: Vec<String>,
}

/// A route as `ip -json route` lists it.
#[derive(Deserialize)]
struct Route {
    dst: String,
    dev: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// A change of a node's host by another program.
struct Change {
    id: &'static str,
    fault: &'static str,
    inflict: fn(&Node) -> Result<()>,
}

const CHANGES: [Change; 4] = [
    Change {
        id: "netlink-storm",
        fault: "another program changes 6,000 addresses and default routes of a node's host, and deletes its rule and address, while the daemon stands still for a second",
        inflict: storm,
    },
    Change {
        id: "renamed-link",
        fault: "another program renames the link of a tunnel",
        inflict: |node| {
            let slot = dialled_slot(node)?;
            ip::batch(
                Some(node.namespace()),
                &format!("link set {slot} name {OTHER_LINK}\n"),
            )
        },
    },
    Change {
        id: "reused-index",
        fault: "another program deletes the link of a tunnel, gives its index to a link of its own, and sends 7 MB a second by that one",
        inflict: reuse_index,
    },
    Change {
        id: "recreated-link",
        fault: "another program deletes the link of a tunnel, so that counters start again",
        inflict: |node| {
            let slot = dialled_slot(node)?;
            ip::batch(Some(node.namespace()), &format!("link del {slot}\n"))
        },
    },
];

/// Makes each change once, at one of three nodes that has dialled a tunnel.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let lab = Lab::build_converged(Options::with_nodes(3))?;
    CHANGES
        .iter()
        .map(|change| try_change(&lab, change))
        .collect()
}

fn try_change(lab: &Lab, change: &Change) -> Result<Outcome> {
    progress(change.fault);
    let has_dialled = |node: &&Node| dialled_slot(node).is_ok();
    let node = wait_until(VIEWS_TIMEOUT, || lab.nodes().iter().find(has_dialled));
    let node = node.context("no node has dialled a tunnel")?;
    let pinger = lab.start_pings(PingSchedule::Every(Duration::from_millis(50)))?;
    let before = actor_restarts(node)?;
    let start = pinger.now();
    let stop = AtomicBool::new(false);
    let (equal_after, rate) = thread::scope(|scope| {
        let rates = scope.spawn(|| highest_rate(node, &stop));
        let equal_after = (change.inflict)(node).map(|()| wait_for_equal_views(node));
        stop.store(true, Ordering::Relaxed);
        let rate = rates.join().ok().context("a thread panicked")?;
        Ok::<_, anyhow::Error>((equal_after?, rate))
    })?;
    let end = pinger.now();
    pause(LOST_AFTER);
    let others = pinger.summarize(start, end, pairs_without(node.index()));
    ensure!(
        node.exit_status().is_none(),
        "{}",
        node.describe("has exited")
    );
    let restarts = actor_restarts(node)?.saturating_sub(before);
    Ok(Outcome {
        id: change.id,
        fault: change.fault,
        tries: 1,
        figures: vec![
            Figure::time("views equal the kernel's", equal_after, VIEWS_EQUAL),
            Figure::count("implausible rates", rate, 0),
            Figure::count("restarts of actors", restarts, 0),
            Figure::count("pings lost by pairs of others", others.lost, 0),
        ],
    })
}

fn actor_restarts(node: &Node) -> Result<u64> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    Ok(status.actor_restarts)
}

/// The link of a tunnel that the node has dialled and that is up.
fn dialled_slot(node: &Node) -> Result<String> {
    let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    let mut tunnels = document.tunnels.into_iter();
    let tunnel = tunnels.find(|tunnel| tunnel.role == "dialled" && tunnel.phase == "up");
    Ok(tunnel.context("no dialled tunnel is up")?.slot)
}

/// The number of readings in which the node showed a rate that its tunnels cannot have had.
fn highest_rate(node: &Node, stop: &AtomicBool) -> u64 {
    let mut implausible = 0;
    while !stop.load(Ordering::Relaxed) {
        // A node that does not answer is found by the comparison.
        let document = node.control_document::<TunnelsDocument>(TUNNELS_PATH);
        let tunnels = document
            .map(|document| document.tunnels)
            .unwrap_or_default();
        let rates = tunnels
            .iter()
            .map(|tunnel| tunnel.rx_bytes_per_second.max(tunnel.tx_bytes_per_second));
        let highest = rates.fold(0.0, f64::max);
        if highest > MAX_RATE {
            progress(format!("a tunnel has {highest:.0} B/s"));
            implausible += 1;
        }
        pause(READ_INTERVAL);
    }
    implausible
}

/// Waits until what the node shows is what the kernel has; returns for how long.
fn wait_for_equal_views(node: &Node) -> Option<Duration> {
    let start = Instant::now();
    let mut last = Vec::new();
    wait_until(VIEWS_TIMEOUT, || {
        let found = differences(node).unwrap_or_else(|error| vec![format!("{error:#}")]);
        let is_equal = found.is_empty();
        if found != last {
            found.iter().for_each(progress);
            last = found;
        }
        if !is_equal {
            pause(READ_INTERVAL);
        }
        is_equal.then(|| start.elapsed())
    })
}

/// What differs between the node's documents and metrics on one side, and its kernel and babeld on the other.
fn differences(node: &Node) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let truth = Truth::read(node)?;
    for (sample, expected) in truth.figures() {
        let shown = node.metric(sample)?;
        if shown != expected {
            found.push(format!("{sample} is {shown}, and {expected} in truth"));
        }
    }
    let links: Vec<Link> = listing(node, &["-json", "link"])?;
    let tunnels: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    for tunnel in tunnels.tunnels {
        let mut links = links.iter();
        let is_up =
            links.any(|link| link.ifname == tunnel.slot && link.flags.contains(&"UP".to_owned()));
        let is_routed = tunnel.routes > 0;
        if tunnel.phase != "up" || !is_up || !is_routed {
            found.push(format!(
                "{} is {}, its link up: {is_up}, routes: {}",
                tunnel.slot, tunnel.phase, tunnel.routes
            ));
        }
    }
    let alias = format!("warren {}", node.root().display());
    let own = links
        .iter()
        .filter(|link| link.ifalias.as_ref() == Some(&alias));
    let renamed = own.filter(|link| !link.ifname.starts_with("wrn"));
    found.extend(renamed.map(|link| format!("{} is a link of the node", link.ifname)));
    let document: RoutesDocument = node.control_document(ROUTES_PATH)?;
    let installed = document
        .routes
        .iter()
        .filter(|route| route.installed && route.metric < u16::MAX);
    let shown: BTreeSet<(Ipv6Addr, String)> = installed
        .map(|route| (route.address, route.slot.clone()))
        .collect();
    let routes: Vec<Route> = listing(
        node,
        &[
            "-6", "-json", "route", "show", "table", "197", "proto", "babel",
        ],
    )?;
    let leads = |route: &Route, address: Ipv6Addr, slot: &str| {
        let range = route.dst.parse::<Ipv6Net>();
        route.dev.as_deref() == Some(slot) && range.is_ok_and(|range| range.contains(&address))
    };
    let reachable = routes
        .iter()
        .filter(|route| route.kind.as_deref() != Some("unreachable"));
    let are_there = shown
        .iter()
        .all(|(address, slot)| routes.iter().any(|route| leads(route, *address, slot)));
    if reachable.count() != shown.len() || !are_there {
        found.push(format!("routes are shown as {shown:?}"));
    }
    Ok(found)
}

fn listing<T: for<'de> Deserialize<'de>>(node: &Node, arguments: &[&str]) -> Result<Vec<T>> {
    Ok(serde_json::from_str(&ip::output(
        node.namespace(),
        arguments,
    )?)?)
}

/// Changes so much that notifications to the daemon are lost, and deletes what the node needs among that.
fn storm(node: &Node) -> Result<()> {
    let namespace = node.namespace();
    let pid = node.pid().context("the daemon has exited")?;
    let own = format!("{}/128", node.identity()?.address);
    let changes = |verb: &str| {
        let lines = (0..STORM_CHANGES / 4).map(|number| {
            let address = format!("10.99.{}.{}/32", number >> 8, number & 0xff);
            let route = format!("default dev {OTHER_LINK} metric {}", number + 100_000);
            format!("route {verb} {route}\naddr {verb} {address} dev {OTHER_LINK}\n")
        });
        lines.collect::<String>()
    };
    let link = format!("link add {OTHER_LINK} type bridge\nlink set {OTHER_LINK} up\n");
    let daemon = Pid::from_raw(i32::try_from(pid)?);
    kill(daemon, Signal::SIGSTOP)?;
    let changed = ip::batch(Some(namespace), &format!("{link}{}", changes("add")))
        .and_then(|()| ip::output(namespace, &["-6", "rule", "del", "pref", "32000"]))
        .and_then(|_| ip::output(namespace, &["addr", "del", &own, "dev", "lo"]))
        .and_then(|_| ip::batch(Some(namespace), &changes("del")))
        .and_then(|()| ip::batch(Some(namespace), &format!("link del {OTHER_LINK}\n")));
    kill(daemon, Signal::SIGCONT)?;
    changed?;
    let lost = lost_notifications(node, pid)?;
    progress(format!("{lost} notifications to the daemon were lost"));
    ensure!(lost > 0, "the daemon got all notifications of the storm");
    Ok(())
}

/// The notifications that the kernel dropped since the daemon's netlink sockets were full.
fn lost_notifications(node: &Node, pid: u32) -> Result<u64> {
    let sockets = proc_files::socket_inodes(pid)?;
    let text = node.command("cat", &["/proc/net/netlink"])?;
    let drops = text.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_ascii_whitespace().rev();
        let inode: u64 = columns.next()?.parse().ok()?;
        let drops: u64 = columns.next()?.parse().ok()?;
        sockets.contains(&inode).then_some(drops)
    });
    Ok(drops.sum())
}

/// Replaces the link of a tunnel by a bridge with the same index, which must stay as it is, and sends by it.
fn reuse_index(node: &Node) -> Result<()> {
    let namespace = node.namespace();
    let slot = dialled_slot(node)?;
    let links: Vec<Link> = listing(node, &["-json", "link", "show", &slot])?;
    let index = links.first().context("the slot has no link")?.ifindex;
    ip::batch(
        Some(namespace),
        &format!(
            "link del {slot}\nlink add {OTHER_LINK} index {index} mtu 1420 type bridge\nlink set {OTHER_LINK} up\n"
        ),
    )?;
    netns::run_inside(namespace, || {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        let to = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 9, 0, index);
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < OTHER_SPAN {
            let due = start.elapsed().as_secs_f64() * f64::from(OTHER_PACKETS);
            while f64::from(sent) < due {
                // The link is not ready at once.
                drop(socket.send_to(&[0; OTHER_PACKET_BYTES], &to.into()));
                sent += 1;
            }
            pause(Duration::from_millis(1));
        }
        Ok(())
    })?;
    let other = ip::output(namespace, &["addr", "show", OTHER_LINK])?;
    let address = wire::overlay::link_local(node.prefix()?.parse()?).to_string();
    ensure!(
        other.contains("mtu 1420") && !other.contains(&address),
        "the node has changed a link of another program:\n{other}"
    );
    ip::batch(Some(namespace), &format!("link del {OTHER_LINK}\n"))
}
