//! Measures how often two nodes behind NATs get a tunnel to each other, by the kinds of their NATs.

use crate::{
    Lab, Node, Options,
    nat_router::NatKind,
    progress::{progress, round},
    wait::wait_until,
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelEntry, TunnelsDocument};

/// The nodes on the internet, which see from where the datagrams of the others come.
const PUBLIC_NODES: usize = 2;
/// The nodes behind NATs.
const HIDDEN: [usize; 2] = [PUBLIC_NODES, PUBLIC_NODES + 1];
/// Tunnels that each node dials: the hidden ones have room for one beside those to the nodes on the internet.
const TUNNELS_TO_DIAL: u16 = 3;
/// Longest wait for the result of an attempt: the node with the higher prefix may be the one that has room.
const RESULT_TIMEOUT: Duration = Duration::from_secs(90);
/// The metric of results.
const METRIC: &str = "warren_hole_punches_total";
/// Results of attempts in which a path was opened and no tunnel came up.
const FAILURES: [&str; 2] = ["endpoint_dependent_nat", "no_answer"];
/// Results of attempts in which no path was opened; the node tries again after five seconds.
const EARLY_FAILURES: [&str; 2] = ["not_observed", "declined"];

/// The kinds of the two NATs that are measured by default.
pub const PAIRS: [[NatKind; 2]; 7] = [
    [NatKind::FullCone, NatKind::FullCone],
    [NatKind::Restricted, NatKind::Restricted],
    [NatKind::PortRestricted, NatKind::PortRestricted],
    [NatKind::Symmetric, NatKind::FullCone],
    [NatKind::Symmetric, NatKind::Restricted],
    [NatKind::Symmetric, NatKind::PortRestricted],
    [NatKind::Symmetric, NatKind::Symmetric],
];

/// The tries with one pair of NATs.
#[derive(Clone, Debug, Serialize)]
pub struct PunchCell {
    /// The kinds of the NATs in front of the two nodes.
    pub nats: [NatKind; 2],
    /// The number of tries.
    pub tries: usize,
    /// Tries in which a tunnel between the two nodes came up by hole punching.
    pub tunnels_up: usize,
    /// The results that the nodes reported of the others, as the labels of the metric.
    pub failures: BTreeMap<String, usize>,
    /// Time from the start of the two daemons until the tunnel was up: the median of the tries in which it came up, and the most.
    pub seconds_median: Option<f64>,
    /// The same: the most.
    pub seconds_max: Option<f64>,
}

/// The output of `measure punch`.
#[derive(Clone, Debug, Serialize)]
pub struct Punch {
    /// Load of the machine over the last minute, after the measurement.
    load_average: String,
    /// One entry for each pair of NATs.
    pub cells: Vec<PunchCell>,
}

/// Tries so often to connect two nodes behind each of these pairs of NATs; both daemons are new in each try.
///
/// # Errors
/// Fails if a lab cannot be built, or a node does not answer at its control socket.
pub fn measure(pairs: &[[NatKind; 2]], tries: usize) -> Result<Punch> {
    let cells = pairs.iter().map(|nats| measure_pair(*nats, tries));
    let cells = cells.collect::<Result<Vec<_>>>()?;
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    Ok(Punch {
        load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        cells,
    })
}

/// Tries so often to connect two nodes behind NATs of these kinds.
///
/// # Errors
/// Fails as [`measure`] does.
pub fn measure_pair(nats: [NatKind; 2], tries: usize) -> Result<PunchCell> {
    let lab = Lab::build_joined(Options {
        nodes: PUBLIC_NODES + HIDDEN.len(),
        tunnels_to_dial: Some(TUNNELS_TO_DIAL),
        nodes_behind_nat: HIDDEN.into(),
        ..Options::default()
    })?;
    for (router, kind) in lab.nat_routers().iter().zip(nats) {
        router.set_kind(kind)?;
    }
    for public in lab.nodes().iter().take(PUBLIC_NODES) {
        public.start()?;
    }
    let mut seconds = Vec::new();
    let mut failures = BTreeMap::new();
    for _ in 0..tries {
        match try_once(&lab)? {
            Ok(span) => seconds.push(round(span.as_secs_f64(), 1)),
            Err(result) => *failures.entry(result).or_default() += 1,
        }
    }
    seconds.sort_by(f64::total_cmp);
    let cell = PunchCell {
        nats,
        tries,
        tunnels_up: seconds.len(),
        failures,
        seconds_median: seconds.get(seconds.len() / 2).copied(),
        seconds_max: seconds.last().copied(),
    };
    progress(format!("{cell:?}"));
    Ok(cell)
}

/// Starts both nodes; returns the time until their tunnel was up, or the result that one of them reports. Stops them then.
fn try_once(lab: &Lab) -> Result<Result<Duration, String>> {
    let nodes = [lab.node(HIDDEN[0])?, lab.node(HIDDEN[1])?];
    let start = Instant::now();
    nodes.iter().try_for_each(|node| node.start())?;
    let outcome = wait_until(RESULT_TIMEOUT, || {
        let [first, second] = nodes;
        let is_up = has_punched_tunnel(first, second).ok()?;
        if is_up {
            return Some(Ok(start.elapsed()));
        }
        let failed = nodes.iter().find_map(|node| failure(node, &FAILURES));
        failed.map(Err)
    });
    let early = || nodes.iter().find_map(|node| failure(node, &EARLY_FAILURES));
    let outcome = outcome.or_else(|| early().map(Err));
    let log = || nodes.map(|node| node.log_tail(10)).join("---");
    let outcome = outcome.with_context(|| {
        let seconds = RESULT_TIMEOUT.as_secs();
        format!("no attempt within {seconds} s: {}", log())
    })?;
    progress(format!("{outcome:?}"));
    // Others would take a node that was killed for a living one for a while.
    thread::scope(|scope| {
        for node in nodes {
            scope.spawn(|| node.stop());
        }
    });
    Ok(outcome)
}

/// The label of a failed attempt that the node reports, of these labels.
fn failure(node: &Node, labels: &[&str]) -> Option<String> {
    let has_failed = |result: &&&str| -> bool {
        let sample = format!("{METRIC}{{result=\"{result}\"}}");
        node.metric(&sample).is_ok_and(|count| count > 0)
    };
    let failed = labels.iter().find(has_failed);
    failed.map(|result| (*result).to_owned())
}

/// Whether a tunnel between the two nodes is up that came by hole punching, as both see it.
///
/// # Errors
/// Fails if a node has not joined or does not answer, or if the two nodes disagree.
pub fn has_punched_tunnel(first: &Node, second: &Node) -> Result<bool> {
    let tunnel = |node: &Node, peer: &Node| -> Result<Option<TunnelEntry>> {
        let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
        let prefix = peer.prefix()?;
        let mut tunnels = document.tunnels.into_iter();
        Ok(tunnels.find(|tunnel| tunnel.peer == prefix && tunnel.phase == "up"))
    };
    let (Some(one), Some(other)) = (tunnel(first, second)?, tunnel(second, first)?) else {
        return Ok(false);
    };
    ensure!(
        one.role != other.role,
        "two tunnels between the nodes: {one:?}, {other:?}"
    );
    Ok(one.hole_punched && other.hole_punched)
}

/// The nodes with which this node's last attempt failed, and why.
///
/// # Errors
/// Fails if the node does not answer.
pub fn failed_attempts(node: &Node) -> Result<Vec<(String, String)>> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    let failed = status.hole_punching.failed.into_iter();
    Ok(failed.map(|entry| (entry.prefix, entry.result)).collect())
}
