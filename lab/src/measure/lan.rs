//! Measures what nodes of one LAN send by its router, how they do without internet and registry, and what many nodes on one LAN cost.

use crate::{
    Lab, Options,
    kernel_routes::KernelRoutes,
    nat_router::NatRouter,
    node::Node,
    ping_record::LOST_AFTER,
    pinger::{PingSchedule, Pinger, all_pairs},
    progress::{progress, round, seconds},
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument};

/// Nodes on the LAN of the first part; one more is on the internet.
const LAN_NODES: usize = 4;
/// Tunnels that each node dials.
const TUNNELS_TO_DIAL: u16 = 3;
/// Routes within the LAN that stay so for this long have settled.
const SETTLED_SPAN: Duration = Duration::from_secs(6);
/// Time after convergence in which nodes close tunnels that are not needed.
const SETTLING: Duration = Duration::from_secs(10);
/// Pings from each node of the LAN to each other one, and the payload of each in bytes.
const PINGS: u64 = 20;
const PING_BYTES: u64 = 1000;
/// Time without internet.
const OUTAGE: Duration = Duration::from_secs(10);
/// Longest wait until nodes reach each other.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until the nodes of the crowded LAN know each other.
const CROWD_TIMEOUT: Duration = Duration::from_secs(60);

/// The output of `measure lan`.
#[derive(Clone, Debug, Serialize)]
pub struct Lan {
    /// Load of the machine over the last minute, after the measurement.
    load_average: String,
    /// A few nodes on one LAN.
    pub site: Site,
    /// Many nodes on one LAN.
    pub crowd: Crowd,
}

/// Four nodes on one LAN behind a NAT router, and one on the internet.
#[derive(Clone, Debug, Serialize)]
pub struct Site {
    /// Time from convergence until no route between two nodes of the LAN leads by the node on the internet, for six seconds.
    within_lan_seconds: f64,
    /// Bytes of pings between nodes of the LAN, in both directions.
    pub pair_bytes: u64,
    /// Bytes that the router got from one node of the LAN for another since the nodes were started.
    pub router_hairpin_bytes: u64,
    /// All bytes that the router got from the LAN during the pings.
    pub router_bytes: u64,
    /// All bytes that it got in the same time without pings.
    pub router_idle_bytes: u64,
    /// Pings between nodes of the LAN that were sent while the router had no internet.
    pub outage_pings: u64,
    /// Those of them that were lost.
    pub outage_pings_lost: u64,
    /// Nodes that the one on the internet has found on a LAN.
    pub found_from_internet: usize,
    /// Time until all nodes of the LAN reach each other, after all were restarted without internet
    /// and with empty peer caches.
    pub restart_seconds: f64,
}

/// Many nodes on one LAN.
#[derive(Clone, Debug, Serialize)]
pub struct Crowd {
    nodes: usize,
    /// Time from the start until all pairs reach each other.
    converged_seconds: f64,
    /// Tunnels of a node of either role, on average and at most; a mesh would have one less than there are nodes.
    pub mean_tunnels: f64,
    /// The same of the node with the most.
    pub max_tunnels: usize,
    /// Port mappings on the router, of all nodes together.
    leases: usize,
    /// The least number of other nodes that a node has found on the LAN.
    pub least_found: usize,
    /// Messages of LAN discovery that a node sent, on average.
    mean_messages_sent: f64,
    /// Time from the start of the nodes to the last figure.
    after_seconds: f64,
}

/// Measures the nodes of a site, and as many nodes as `crowd` says on one LAN.
///
/// # Errors
/// Fails if a lab cannot be built, or if nodes do not reach each other in time.
pub fn measure(crowd: usize) -> Result<Lan> {
    let (site, crowd) = (measure_site()?, measure_crowd(crowd)?);
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    Ok(Lan {
        load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        site,
        crowd,
    })
}

/// Measures a few nodes on one LAN.
///
/// # Errors
/// Fails as [`measure`] does.
pub fn measure_site() -> Result<Site> {
    let lab = Lab::build_joined(Options {
        nodes: LAN_NODES + 1,
        tunnels_to_dial: Some(TUNNELS_TO_DIAL),
        nodes_on_lan: (0..LAN_NODES).collect(),
        ..Options::default()
    })?;
    let router = lab.nat_routers().first().context("there is no router")?;
    router.start_counting(&lab.uplink_address(0))?;
    lab.start_and_converge()?;
    let within_lan_seconds = wait_for_routes_within_lan(&lab)?;
    let before = router.lan_bytes()?;
    let span = ping_all_pairs(&lab)?;
    let busy = router.lan_bytes()?;
    pause(span);
    let idle = router.lan_bytes()?;
    let pairs = u64::try_from(LAN_NODES * (LAN_NODES - 1)).unwrap_or(0);
    let found_from_internet = count_found(lab.node(LAN_NODES)?)?;
    let (outage_pings, outage_pings_lost) = measure_outage(&lab)?;
    let restart = measure_restart(&lab)?;
    Ok(Site {
        within_lan_seconds,
        pair_bytes: 2 * pairs * PINGS * PING_BYTES,
        router_hairpin_bytes: router.lan_bytes()?.hairpin,
        router_bytes: busy.routed - before.routed,
        router_idle_bytes: idle.routed - busy.routed,
        outage_pings,
        outage_pings_lost,
        found_from_internet,
        restart_seconds: seconds(restart),
    })
}

/// Waits until routes between nodes of the LAN have stayed within it for six seconds; returns how long that took, without these. A route over
/// the internet is as good as one by a third node of the LAN, until a node that sees that dials the other one.
fn wait_for_routes_within_lan(lab: &Lab) -> Result<f64> {
    let start = Instant::now();
    let mut since = Instant::now();
    let are_settled = || {
        let routes = KernelRoutes::read(lab).ok()?;
        if routes.mean_hops().is_none() || !routes.pairs_through(LAN_NODES).is_empty() {
            since = Instant::now();
        }
        (since.elapsed() >= SETTLED_SPAN).then_some(())
    };
    wait_until(WHOLE_TIMEOUT, are_settled).context("routes between nodes of the LAN leave it")?;
    Ok(seconds(since.duration_since(start)))
}

/// Lets each node of the LAN ping each other one; returns how long that took.
fn ping_all_pairs(lab: &Lab) -> Result<Duration> {
    let start = Instant::now();
    let (count, size) = (PINGS.to_string(), PING_BYTES.to_string());
    for from in lab.nodes().iter().take(LAN_NODES) {
        for to in lab.nodes().iter().take(LAN_NODES) {
            if from.index() != to.index() {
                let target = to.identity()?.address.to_string();
                let ping = ["-6", "-q", "-c", &count, "-i", "0.02", "-s", &size, &target];
                from.command("ping", &ping)?;
            }
        }
    }
    Ok(start.elapsed())
}

fn start_lan_pings(lab: &Lab, schedule: PingSchedule) -> Result<Pinger> {
    Pinger::start(&lab.ping_hosts(0..LAN_NODES)?, schedule)
}

/// Takes the internet from the router, for good; returns the numbers of pings between nodes of the LAN, and of those lost.
fn measure_outage(lab: &Lab) -> Result<(u64, u64)> {
    let pinger = start_lan_pings(lab, PingSchedule::UNTIL_ANSWERED)?;
    wait_until(WHOLE_TIMEOUT, || {
        pinger.all_answered(Duration::ZERO, all_pairs)
    })
    .context("nodes of the LAN do not reach each other before the outage")?;
    drop(pinger);
    let pinger = start_lan_pings(lab, PingSchedule::STEADY)?;
    lab.unplug(0)?;
    let from = pinger.now();
    pause(OUTAGE + LOST_AFTER);
    let summary = pinger.summarize(from, from + OUTAGE, all_pairs);
    progress(format!("outage: {summary:?}"));
    Ok((summary.sent, summary.lost))
}

/// Restarts all nodes of the LAN, which forget their peers; returns the time until they reach each other.
fn measure_restart(lab: &Lab) -> Result<Duration> {
    let on_lan = || lab.nodes().iter().take(LAN_NODES);
    for node in on_lan() {
        node.kill();
        forget_peers(node)?;
    }
    let pinger = start_lan_pings(lab, PingSchedule::UNTIL_ANSWERED)?;
    let start = pinger.now();
    on_lan().try_for_each(Node::start)?;
    let last = wait_until(WHOLE_TIMEOUT, || pinger.all_answered(start, all_pairs));
    let last = last.context("nodes of the LAN do not find each other without internet")?;
    Ok(last.saturating_sub(start))
}

/// Removes the file in which a node remembers where peers can be dialled.
fn forget_peers(node: &Node) -> Result<()> {
    let state = node.root().join("var/lib/warren");
    for name in ["peers.sqlite", "peers.sqlite-wal", "peers.sqlite-shm"] {
        let file = state.join(name);
        if file.exists() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    Ok(())
}

/// Measures many nodes on one LAN.
///
/// # Errors
/// Fails as [`measure`] does.
pub fn measure_crowd(nodes: usize) -> Result<Crowd> {
    let lab = Lab::build_joined(Options {
        nodes,
        tunnels_to_dial: Some(TUNNELS_TO_DIAL),
        nodes_on_lan: (0..nodes).collect(),
        ..Options::default()
    })?;
    let start = Instant::now();
    let converged = lab.start_and_converge()?;
    // A node that is busy may miss a call meanwhile; the figure below needs all answers.
    wait_until(CROWD_TIMEOUT, || {
        let found = least_found(&lab).ok()?;
        (found == nodes - 1).then_some(())
    });
    pause(SETTLING);
    let counts = lab.nodes().iter().map(tunnels_up);
    let counts = counts.collect::<Result<Vec<_>>>()?;
    let sent = lab
        .nodes()
        .iter()
        .map(|node| node.metric("warren_lan_messages_total{outcome=\"sent\"}"));
    let sent: u64 = sent.sum::<Result<u64>>()?;
    let mean = |sum: u64| {
        let (sum, nodes) = (u32::try_from(sum)?, u32::try_from(nodes)?);
        anyhow::Ok(round(f64::from(sum) / f64::from(nodes), 1))
    };
    let routers = lab.nat_routers().iter();
    let leases = routers
        .map(NatRouter::mappings)
        .map(|found| Ok(found?.len()));
    Ok(Crowd {
        nodes,
        converged_seconds: seconds(converged),
        mean_tunnels: mean(u64::try_from(counts.iter().sum::<usize>())?)?,
        max_tunnels: counts.into_iter().max().unwrap_or(0),
        leases: leases.sum::<Result<usize>>()?,
        least_found: least_found(&lab)?,
        mean_messages_sent: mean(sent)?,
        after_seconds: seconds(start.elapsed()),
    })
}

/// The number of nodes that a node has found on its LANs.
fn count_found(node: &Node) -> Result<usize> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    Ok(status.lan.nodes.len())
}

/// The least number of other nodes that a node has found on its LANs.
fn least_found(lab: &Lab) -> Result<usize> {
    let counts = lab.nodes().iter().map(count_found);
    let counts = counts.collect::<Result<Vec<_>>>()?;
    counts.into_iter().min().context("the lab has no nodes")
}

fn tunnels_up(node: &Node) -> Result<usize> {
    let tunnels: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    let up = tunnels.tunnels.iter().filter(|tunnel| tunnel.phase == "up");
    let peers: BTreeSet<_> = up.map(|tunnel| &tunnel.peer).collect();
    Ok(peers.len())
}
