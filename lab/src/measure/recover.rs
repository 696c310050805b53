//! Measures how long pairs of nodes do not reach each other after a sudden fault.

mod signals;

pub(super) use signals::wait_until_removed;
pub use signals::{Child, FatalSignal, kill_child};

use crate::{
    Lab, Node, Options, Pinger,
    kernel_routes::{KernelRoutes, is_accepting_slot, is_dialling_slot},
    ping_record::LOST_AFTER,
    pinger::{PingSchedule, all_pairs, pairs_with},
    proc_files::is_running,
    progress::{progress, seconds},
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use clap::ValueEnum;
use nix::unistd::Pid;
use serde::Serialize;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Nodes of the lab.
const NODES: usize = 8;
/// Longest wait until the surviving pairs reach each other again.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until all nodes reach each other after the repair.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest time that the children of a killed daemon may live on.
const CHILDREN_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before the first fault, and between a repair and the next fault.
const SETTLING_TIME: Duration = Duration::from_secs(15);
/// Time after a fault before recovery is checked, so that the fault has had an effect.
const MIN_RECOVERY_TIME: Duration = Duration::from_secs(8);
/// A pair has recovered if a ping of this last span was answered.
const RECENT: Duration = Duration::from_millis(500);

/// The fault to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A node that others need loses its cable without notice.
    CutNode,
    /// An OpenVPN client of a needed node gets a signal: one by which the node sends.
    KillClient,
    /// The OpenVPN server of a needed node gets a signal.
    KillServer,
    /// The babeld of a needed node gets a signal.
    KillBabeld,
    /// The daemon of a needed node gets SIGKILL.
    KillDaemon,
}

impl Fault {
    /// The fault's name on the command line.
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Whether the victim stays a node of the network, so that its own pairs must recover, too.
    fn spares_the_node(self) -> bool {
        match self {
            Self::CutNode | Self::KillDaemon => false,
            Self::KillClient | Self::KillServer | Self::KillBabeld => true,
        }
    }
}

/// The output of `measure recover`: the worst values of all runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recovery {
    /// The fault that was measured.
    pub fault: Fault,
    /// The signal that a child process got.
    pub signal: FatalSignal,
    /// The number of faults.
    pub runs: usize,
    /// The longest gap of any surviving pair, with pings at intervals of 10 ms.
    pub seconds_max: f64,
    /// The median over the faults of the longest gap of any surviving pair.
    pub seconds_median: f64,
    /// The most surviving pairs that lost a ping in one run.
    pub affected_pairs_max: usize,
    /// The most pings that one surviving pair lost in one run.
    pub lost_max: u64,
    /// If the daemon was killed: the longest time until all its children were gone; zombies count as gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children_gone_seconds_max: Option<f64>,
    /// If a child hung: the longest time until its daemon had removed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_seconds_max: Option<f64>,
    /// If the daemon was killed: the longest time from its next start until all pairs reach each other again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_seconds_max: Option<f64>,
}

/// Measures so many faults, with another victim each time as far as there are others. The last node may be metered.
///
/// # Errors
/// Fails if the lab cannot be built, if no node is needed by others, or if a network does not recover.
pub fn measure(
    (fault, signal): (Fault, FatalSignal),
    runs: usize,
    has_metered_node: bool,
) -> Result<Recovery> {
    let lab = Lab::build_converged(Options::with_metered_node(NODES, has_metered_node))?;
    pause(SETTLING_TIME);
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    let mut victims = BTreeSet::new();
    let mut effects = Vec::new();
    while effects.len() < runs {
        effects.push(measure_fault(&lab, &pinger, (fault, signal), &mut victims)?);
    }
    let mut gaps: Vec<_> = effects.iter().map(|effect| effect.longest_gap).collect();
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
    Ok(Recovery {
        fault,
        signal,
        runs,
        seconds_max: seconds(gaps.last().copied().unwrap_or_default()),
        seconds_median: seconds(median),
        affected_pairs_max: effects
            .iter()
            .map(|effect| effect.affected_pairs)
            .max()
            .unwrap_or_default(),
        lost_max: effects
            .iter()
            .map(|effect| effect.max_lost)
            .max()
            .unwrap_or_default(),
        children_gone_seconds_max: effects
            .iter()
            .filter_map(|effect| effect.children_gone)
            .max()
            .map(seconds),
        removed_seconds_max: effects
            .iter()
            .filter_map(|effect| effect.removed)
            .max()
            .map(seconds),
        restart_seconds_max: (fault == Fault::KillDaemon)
            .then(|| effects.iter().map(|effect| effect.repaired_after).max())
            .flatten()
            .map(seconds),
    })
}

/// The effect of one fault on the surviving pairs.
struct FaultEffect {
    /// The longest gap of a surviving pair.
    longest_gap: Duration,
    /// Surviving pairs that lost a ping.
    affected_pairs: usize,
    /// The most pings that one surviving pair lost.
    max_lost: u64,
    /// The time for which the killed daemon's children lived on.
    children_gone: Option<Duration>,
    /// The time after which the daemon had removed the child that hung.
    removed: Option<Duration>,
    /// The time from the repair until all pairs reached each other again.
    repaired_after: Duration,
}

fn measure_fault(
    lab: &Lab,
    pinger: &Pinger,
    (fault, signal): (Fault, FatalSignal),
    victims: &mut BTreeSet<usize>,
) -> Result<FaultEffect> {
    let routes = lab.wait_for_complete_routes()?;
    let victim = choose_victim(lab, &routes, victims)?;
    progress(format!(
        "{} hits node {victim}: {} pairs of others need it, {} nodes reach others by tunnels that they accepted from it",
        fault.name(),
        routes.pairs_through(victim).len(),
        accepting_neighbours(lab, &routes, victim)
    ));
    let start = pinger.now();
    let inflicted = inflict(lab, &routes, (fault, signal), victim)?;
    let inflicted_at = pinger.now();
    let removed = match inflicted {
        Inflicted::Child(pid) if signal == FatalSignal::Stop => Some(wait_until_removed(pid)?),
        Inflicted::Uplink | Inflicted::Child(_) | Inflicted::Daemon { .. } => None,
    };
    let survives =
        |from: usize, to: usize| fault.spares_the_node() || !pairs_with(victim)(from, to);
    pause(MIN_RECOVERY_TIME);
    let all_recovered = || {
        let silent_pairs = pinger.silent_pairs(RECENT, survives);
        silent_pairs.is_empty().then_some(())
    };
    if wait_until(RECOVERY_TIMEOUT, all_recovered).is_none() {
        anyhow::bail!(
            "the network did not recover within {} s: {}",
            RECOVERY_TIMEOUT.as_secs(),
            describe_silent_pairs(lab, pinger, survives)?
        );
    }
    let end = pinger.now();
    pause(LOST_AFTER + Duration::from_millis(100));
    let (longest_gap, affected_pairs, max_lost) = sum_up_pairs(pinger, (start, end), survives);
    progress(format!(
        "recovered {:.1} s after the fault",
        (end - inflicted_at).as_secs_f64()
    ));
    let repaired_after = repair(lab, pinger, fault, victim)?;
    Ok(FaultEffect {
        repaired_after,
        longest_gap,
        affected_pairs,
        max_lost,
        children_gone: match inflicted {
            Inflicted::Daemon { children_gone } => Some(children_gone),
            Inflicted::Uplink | Inflicted::Child(_) => None,
        },
        removed,
    })
}

/// The longest gap of any pair, the number of pairs that lost pings, and the most that one pair lost.
fn sum_up_pairs(
    pinger: &Pinger,
    (start, end): (Duration, Duration),
    survives: impl Fn(usize, usize) -> bool,
) -> (Duration, usize, u64) {
    let now = pinger.now();
    let summaries = pinger.read_records(survives, |record| record.summarize(start, end, now));
    let affected = summaries
        .iter()
        .filter(|(.., summary)| summary.lost > 0)
        .count();
    let max_lost = summaries.iter().map(|(.., summary)| summary.lost).max();
    let max_lost = max_lost.unwrap_or_default();
    let worst = summaries
        .iter()
        .max_by_key(|(.., summary)| summary.longest_gap);
    let longest_gap = worst.map_or(Duration::ZERO, |(.., summary)| summary.longest_gap);
    progress(format!(
        "{affected} pairs lost pings; longest gap {:.3} s (pair {:?}), most lost by one pair {max_lost}",
        longest_gap.as_secs_f64(),
        worst.map(|(from, to, _)| (*from, *to))
    ));
    (longest_gap, affected, max_lost)
}

/// The pairs without a recent reply, each with the path that the kernels would use.
fn describe_silent_pairs(
    lab: &Lab,
    pinger: &Pinger,
    survives: impl Fn(usize, usize) -> bool,
) -> Result<String> {
    let routes = KernelRoutes::read(lab)?;
    let silent_pairs = pinger.silent_pairs(RECENT, survives).into_iter();
    let descriptions =
        silent_pairs.map(|(from, to)| format!("{from} to {to} by {:?}", routes.path(from, to)));
    Ok(descriptions.collect::<Vec<_>>().join("; "))
}

/// Chooses a node that others need and that was no victim yet, and adds it to the victims. If all were, starts over.
fn choose_victim(lab: &Lab, routes: &KernelRoutes, victims: &mut BTreeSet<usize>) -> Result<usize> {
    let mut victim = busiest_transit_node(lab, routes, victims);
    if victim.is_none() {
        progress("every node that others need was a victim already: starting over");
        victims.clear();
        victim = busiest_transit_node(lab, routes, victims);
    }
    let victim = victim.context("there is no node that others need")?;
    victims.insert(victim);
    Ok(victim)
}

/// The node that most pairs need, of those that were no victim yet. Nodes that a neighbour reaches as acceptor come
/// first, so that the fault must be noticed from that end, too.
fn busiest_transit_node(
    lab: &Lab,
    routes: &KernelRoutes,
    victims: &BTreeSet<usize>,
) -> Option<usize> {
    (0..lab.nodes().len())
        .filter(|node| !victims.contains(node))
        .map(|node| (routes.pairs_through(node).len(), node))
        .filter(|(pairs, _)| *pairs > 0)
        .max_by_key(|(pairs, node)| (accepting_neighbours(lab, routes, *node).min(1), *pairs))
        .map(|(_, node)| node)
}

/// Nodes that reach others through a tunnel that the victim dialled, and so must notice the fault as acceptors.
fn accepting_neighbours(lab: &Lab, routes: &KernelRoutes, victim: usize) -> usize {
    // One destination is the victim itself.
    (0..lab.nodes().len())
        .filter(|node| routes.destinations_via(*node, victim, is_accepting_slot) > 1)
        .count()
}

/// What the fault hit.
#[derive(Clone, Copy)]
enum Inflicted {
    /// The node's uplink.
    Uplink,
    /// A child of the daemon, by its pid.
    Child(Pid),
    /// The daemon, whose children lived on for this long.
    Daemon {
        /// The time until the last one was gone.
        children_gone: Duration,
    },
}

/// Inflicts the fault.
fn inflict(
    lab: &Lab,
    routes: &KernelRoutes,
    (fault, signal): (Fault, FatalSignal),
    victim: usize,
) -> Result<Inflicted> {
    let node = lab.node(victim)?;
    let child = match fault {
        Fault::CutNode => {
            lab.unplug(victim)?;
            return Ok(Inflicted::Uplink);
        }
        Fault::KillDaemon => {
            let children_gone = kill_daemon(node)?;
            return Ok(Inflicted::Daemon { children_gone });
        }
        Fault::KillBabeld => "babeld",
        Fault::KillServer => "server-udp",
        Fault::KillClient => (0..lab.nodes().len())
            .filter_map(|to| Some(routes.next_hop(victim, to)?.link.as_str()))
            .rfind(|link| is_dialling_slot(link))
            .context("the victim sends through no tunnel that it dialled")?,
    };
    kill_child(node, child, signal).map(Inflicted::Child)
}

/// Kills the daemon, and returns how long its children lived on.
fn kill_daemon(node: &Node) -> Result<Duration> {
    let children: Vec<u32> = node.children().into_keys().collect();
    let killed_at = Instant::now();
    node.kill();
    let all_gone = || children.iter().all(|pid| !is_running(*pid)).then_some(());
    wait_until(CHILDREN_TIMEOUT, all_gone)
        .with_context(|| node.describe("was killed, but its children live on after 2 s"))?;
    let duration = killed_at.elapsed();
    progress(format!(
        "its {} children were gone after {:.3} s",
        children.len(),
        duration.as_secs_f64()
    ));
    Ok(duration)
}

/// Undoes the fault, waits until all nodes reach each other again, and returns how long that took.
fn repair(lab: &Lab, pinger: &Pinger, fault: Fault, victim: usize) -> Result<Duration> {
    let node = lab.node(victim)?;
    let repaired_at = pinger.now();
    match fault {
        Fault::CutNode => lab.plug_in(victim)?,
        Fault::KillDaemon => node.start()?,
        Fault::KillClient | Fault::KillServer | Fault::KillBabeld => {}
    }
    let returned_at = wait_until(REPAIR_TIMEOUT, || {
        pinger.all_answered(repaired_at, all_pairs)
    });
    let returned_at = returned_at.with_context(|| node.describe("did not come back"))?;
    let duration = returned_at.saturating_sub(repaired_at);
    progress(format!(
        "node {victim} is back after {:.3} s",
        duration.as_secs_f64()
    ));
    pause(SETTLING_TIME);
    Ok(duration)
}
