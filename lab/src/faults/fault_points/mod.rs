//! SIGKILL of a daemon between each two side effects: while it starts, writes a document, renews its certificate, and stops.
//!
//! A first life lists the points that a daemon reaches. Then six nodes are killed at all of them, each by itself, and started
//! again. It needs a `warren` that was built with the feature `fault-points`.

mod points;

use super::{
    Figure, Outcome,
    kills::{CHILDREN_GONE, count_drafts, kill_and_wait},
};
use crate::{
    Lab, Node, Options,
    host_snapshot::HostSnapshot,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, ensure};
use points::{Phase, Point, listed_names, select};
use rusqlite::{Connection, OpenFlags};
use std::{
    collections::BTreeSet,
    fs,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument};

/// Nodes that are killed, behind NAT routers that map ports.
const VICTIMS: usize = 6;
/// Number of nodes in all.
const NODES: usize = VICTIMS + 2;
/// Longest time from a start until the node reaches the two others and has its port mapped.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Promised time from the start after a kill until the node reaches the two others.
const BACK: Duration = Duration::from_secs(15);
/// Longest time until a change of the network has reached a point in a node.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Lifetime of announcements; with a third of it, the registry reports another name to its node.
const ANNOUNCEMENT_LIFE: Duration = Duration::from_secs(6);
/// Longest time of an orderly stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// Time after a change in which further points of it are reached.
const CHANGE_SPAN: Duration = Duration::from_secs(3);

/// Lists the points, and kills daemons at each of them.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let lab = Lab::build_joined(Options {
        nodes_behind_nat: (0..VICTIMS).collect(),
        announcement_ttl: Some(ANNOUNCEMENT_LIFE),
        ..Options::with_nodes(NODES)
    })?;
    let before = lab.nodes().iter();
    let before = before.map(|node| HostSnapshot::take(node.namespace()));
    let before = before.collect::<Result<Vec<_>>>()?;
    for node in lab.nodes().iter().skip(VICTIMS) {
        node.start()?;
    }
    let points = list(&lab)?;
    progress(format!("{} points are tried", points.len()));
    let queue = Mutex::new(points);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let found = thread::scope(|scope| {
        let victims = lab.nodes().iter().zip(&before).take(VICTIMS);
        let workers: Vec<_> = victims
            .map(|(node, before)| {
                let (lab, next) = (&lab, &next);
                scope.spawn(move || {
                    let mut found = Found::default();
                    while let Some(point) = next() {
                        found.add(kill_at(lab, node, before, &point)?);
                    }
                    Ok(found)
                })
            })
            .collect();
        let mut all = Found::default();
        for worker in workers {
            let found: Result<Found> = worker.join().ok().context("a worker panicked")?;
            all.add(found?);
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    Ok(vec![found.outcome()?])
}

/// What followed from the kills.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    kills: usize,
    not_reached: usize,
    orphans: usize,
    residues: usize,
    lost_rows: usize,
    unclean_stops: usize,
    children_gone: Duration,
    back: Duration,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.not_reached += other.not_reached;
        self.orphans += other.orphans;
        self.residues += other.residues;
        self.lost_rows += other.lost_rows;
        self.unclean_stops += other.unclean_stops;
        self.children_gone = self.children_gone.max(other.children_gone);
        self.back = self.back.max(other.back);
    }

    fn outcome(self) -> Result<Outcome> {
        progress(format!(
            "{} points were not reached again",
            self.not_reached
        ));
        let count =
            |name, value: usize| Ok::<_, anyhow::Error>(Figure::count(name, value.try_into()?, 0));
        Ok(Outcome {
            id: "fault-points",
            fault: "SIGKILL of a daemon between two side effects of its start, a change of the network's parameters, a renewal and its stop, at each such point",
            tries: self.kills,
            figures: vec![
                Figure::time("children gone", Some(self.children_gone), CHILDREN_GONE),
                count("orphans after 2 s", self.orphans)?,
                Figure::time("next start reaches others", Some(self.back), BACK),
                count("residues after a stop", self.residues)?,
                count("lost rows", self.lost_rows)?,
                count("unclean stops", self.unclean_stops)?,
            ],
        })
    }
}

/// Lets one node live through all phases, and returns the points at which daemons are killed.
fn list(lab: &Lab) -> Result<Vec<Point>> {
    let node = lab.node(0)?;
    node.start_with_variables(&["WARREN_FAULT_POINTS=list".to_owned()])?;
    wait_until(START_TIMEOUT, || is_up(node).then_some(()))
        .with_context(|| node.describe("does not reach the others"))?;
    let mut ends = vec![log_length(node)];
    for phase in [Phase::Document, Phase::Renewal] {
        change(lab, node, phase)?;
        wait_for_point(node, phase)?;
        pause(CHANGE_SPAN);
        ends.push(log_length(node));
    }
    node.stop_cleanly()?;
    let log = fs::read_to_string(node.log_file())?;
    let mut start = 0;
    let mut phases = Vec::new();
    for end in ends.into_iter().chain([log.len()]) {
        phases.push(listed_names(log.get(start..end).unwrap_or_default()));
        start = end;
    }
    let points = select(&phases);
    ensure!(
        !points.is_empty(),
        "no point was listed: warren was built without the feature fault-points"
    );
    Ok(points)
}

fn log_length(node: &Node) -> usize {
    fs::read(node.log_file()).unwrap_or_default().len()
}

/// Waits until the first change of a phase has been listed.
fn wait_for_point(node: &Node, phase: Phase) -> Result<()> {
    let name = match phase {
        Phase::Renewal => "fault point: rename node.crt",
        Phase::Start | Phase::Document | Phase::Stop => "fault point: rename network.json",
    };
    let is_listed = || {
        let log = fs::read_to_string(node.log_file()).unwrap_or_default();
        log.contains(name).then_some(())
    };
    wait_until(CHANGE_TIMEOUT, is_listed)
        .with_context(|| node.describe(&format!("did not reach {name}")))
}

/// Changes what makes the node reach the points of a phase.
fn change(lab: &Lab, node: &Node, phase: Phase) -> Result<()> {
    match phase {
        Phase::Start => {}
        Phase::Document => {
            let age = format!("{}s", fastrand::u32(300..900));
            lab.registry_command("set", &["min-age", &age])?;
        }
        Phase::Renewal => {
            let name = format!("renamed-{}", fastrand::u32(..));
            lab.registry_command("rename", &[node.prefix()?, &name])?;
        }
        Phase::Stop => node.send_stop(),
    }
    Ok(())
}

/// Whether the node reaches the nodes that always run, and has a port mapped.
fn is_up(node: &Node) -> bool {
    let status = node.control_document::<StatusDocument>(STATUS_PATH);
    status.is_ok_and(|status| status.nodes_reachable >= 2 && !status.leases.is_empty())
}

/// Kills the daemon at a point, starts it again, stops it, and compares the host with its state before.
fn kill_at(lab: &Lab, node: &Node, before: &HostSnapshot, point: &Point) -> Result<Found> {
    let rows = stored_peers(node);
    let (hit, name) = (point.hit, &point.name);
    node.start_with_variables(&[format!("WARREN_FAULT_POINTS=kill {hit} {name}")])?;
    let has_exited = || node.pid().is_none();
    wait_until(START_TIMEOUT, || {
        (has_exited() || is_up(node)).then_some(())
    });
    if !has_exited() {
        change(lab, node, point.phase)?;
        let timeout = match point.phase {
            Phase::Start => Duration::ZERO,
            Phase::Document | Phase::Renewal => CHANGE_TIMEOUT,
            Phase::Stop => STOP_TIMEOUT,
        };
        wait_until(timeout, || has_exited().then_some(()));
    }
    let was_killed = node
        .exit_status()
        .is_some_and(|status| !status.success() && status.code().is_none());
    let gone_after = kill_and_wait(node)?;
    if !was_killed {
        progress(format!("not reached: {point:?}"));
    }
    let mut found = Found {
        kills: usize::from(was_killed),
        not_reached: usize::from(!was_killed),
        orphans: usize::from(gone_after > CHILDREN_GONE),
        children_gone: gone_after,
        ..Found::default()
    };
    recover(lab, node, before, &mut found)?;
    found.lost_rows = rows.difference(&stored_peers(node)).count();
    if found.orphans + found.residues + found.lost_rows + found.unclean_stops > 0 {
        progress(format!("{point:?} at node {}: {found:?}", node.index()));
    }
    Ok(found)
}

/// Starts the daemon after a kill, stops it by SIGTERM, and counts processes and objects of the kernel that remain.
fn recover(lab: &Lab, node: &Node, before: &HostSnapshot, found: &mut Found) -> Result<()> {
    let start = Instant::now();
    node.start()?;
    let reaches_others = || {
        let status = node.control_document::<StatusDocument>(STATUS_PATH);
        status.is_ok_and(|status| status.nodes_reachable >= 2)
    };
    wait_until(START_TIMEOUT, || reaches_others().then_some(()));
    found.back = start.elapsed();
    if let Err(error) = node.stop_cleanly() {
        progress(format!("{error:#}"));
        found.unclean_stops += 1;
    }
    let mut residues = before.changes_to(&HostSnapshot::take(node.namespace())?);
    let router = lab.nat_routers().get(node.index());
    let mappings = router.context("the node is behind no router")?.mappings()?;
    residues.extend(
        mappings
            .into_iter()
            .map(|line| format!("port mapping: {line}")),
    );
    residues.iter().for_each(progress);
    found.residues = residues.len() + usize::try_from(count_drafts(node.root()))?;
    Ok(())
}

/// The rows of the stored peers and names, by prefix; none if there is no file yet.
fn stored_peers(node: &Node) -> BTreeSet<String> {
    let read = || {
        let path = node.root().join("var/lib/warren/peers.sqlite");
        let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let query =
            "SELECT 'peer ' || prefix FROM peer UNION ALL SELECT 'name ' || prefix FROM name";
        let mut statement = file.prepare(query)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect::<rusqlite::Result<BTreeSet<String>>>()
    };
    read().unwrap_or_default()
}
