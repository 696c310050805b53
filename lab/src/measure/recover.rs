//! Measures how long pairs of nodes are without each other after a sudden death.

use super::{PACE, dial, pause, prepare, seconds, start_whole, tell, wait_routes};
use crate::{
    Lab, Options, Pinger, kernel_routes::Routes, ping_record::LOST_AFTER, process::wait_until,
};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument};

/// Deaths that are measured.
const RUNS: usize = 5;
/// How many nodes the lab has.
const NODES: usize = 8;
/// How long the survivors may need to reach each other again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Children of a killed daemon must be gone by then.
const CHILDREN_GONE: Duration = Duration::from_secs(2);
/// Between a repair and the next death.
const REST: Duration = Duration::from_secs(15);

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A node that others need vanishes without a word: its cable is taken out.
    CutNode,
    /// An OpenVPN client that pairs need gets SIGKILL.
    KillOpenvpn,
    /// A needed node's babeld gets SIGKILL.
    KillBabeld,
    /// A needed node's daemon gets SIGKILL.
    KillDaemon,
}

/// What `measure recover` prints: the worst of all runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recover {
    /// What died.
    pub fault: Fault,
    /// How often.
    pub runs: usize,
    /// The longest gap of any surviving pair, at 10 ms pings.
    pub seconds_max: f64,
    /// The most pings that one surviving pair lost in one run.
    pub lost_max: u64,
    /// Where daemons die: the longest time until all their children were gone, zombies apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children_gone_seconds_max: Option<f64>,
}

/// Measures once, with another victim each time.
///
/// # Errors
/// Where the lab cannot be built, no victim is left, or a network does not heal.
pub fn measure(fault: Fault) -> Result<Recover> {
    let lab = prepare(Options {
        nodes: NODES,
        dial: Some(dial(NODES)),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    pause(REST);
    let pinger = lab.ping(PACE)?;
    let mut recover = Recover {
        fault,
        runs: 0,
        seconds_max: 0.0,
        lost_max: 0,
        children_gone_seconds_max: None,
    };
    let mut victims = BTreeSet::new();
    while recover.runs < RUNS {
        let death = run(&lab, &pinger, fault, &mut victims)?;
        recover.runs += 1;
        recover.seconds_max = recover.seconds_max.max(seconds(death.gap));
        recover.lost_max = recover.lost_max.max(death.lost);
        let children = death.children_gone.map(seconds);
        recover.children_gone_seconds_max = match (recover.children_gone_seconds_max, children) {
            (Some(before), Some(now)) => Some(before.max(now)),
            (before, now) => before.or(now),
        };
    }
    Ok(recover)
}

/// What one death cost.
struct Death {
    /// The longest gap of a surviving pair.
    gap: Duration,
    /// The most pings lost of one.
    lost: u64,
    /// How long a dead daemon's children lived on.
    children_gone: Option<Duration>,
}

fn run(lab: &Lab, pinger: &Pinger, fault: Fault, victims: &mut BTreeSet<usize>) -> Result<Death> {
    let routes = wait_routes(lab)?;
    let victim = match choose(lab, &routes, victims) {
        Some(victim) => victim,
        None => {
            tell("every node that others need was a victim already: once more from the first");
            victims.clear();
            choose(lab, &routes, victims).context("no node is left that others need")?
        }
    };
    victims.insert(victim);
    let through = routes.pairs_through(victim).len();
    tell(format!(
        "{} strikes node {victim}: {through} pairs need it, {} nodes reach it by tunnels they accepted",
        fault
            .to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default(),
        accepted_from(lab, &routes, victim)
    ));
    let pause_before = pinger.now();
    let children_gone = strike(lab, &routes, fault, victim)?;
    let struck = pinger.now();
    // A node without underlay or daemon has no pairs; one that lost a child keeps them.
    let survives = |from: usize, to: usize| match fault {
        Fault::CutNode | Fault::KillDaemon => from != victim && to != victim,
        Fault::KillOpenvpn | Fault::KillBabeld => true,
    };
    // Not before the death could have been noticed at all.
    pause(Duration::from_secs(8));
    let whole = || {
        let recent = pinger.now().saturating_sub(Duration::from_millis(500));
        pinger
            .ask(survives, |pair| pair.last_answered() >= Some(recent))
            .iter()
            .all(|(.., alive)| *alive)
            .then_some(())
    };
    if wait_until(PATIENCE, whole).is_none() {
        bail!(
            "not healed after {} s: {}",
            PATIENCE.as_secs(),
            silent(lab, pinger, survives)?
        );
    }
    let end = pinger.now();
    pause(LOST_AFTER + Duration::from_millis(100));
    let now = pinger.now();
    let sums = pinger.ask(survives, |pair| pair.sum_up(pause_before, end, now));
    let gap = sums
        .iter()
        .map(|(.., sum)| sum.longest_gap)
        .max()
        .unwrap_or_default();
    let lost = sums
        .iter()
        .map(|(.., sum)| sum.lost)
        .max()
        .unwrap_or_default();
    let hurt = sums.iter().filter(|(.., sum)| sum.lost > 0).count();
    let worst = sums
        .iter()
        .max_by_key(|(.., sum)| sum.longest_gap)
        .map(|(from, to, _)| (*from, *to));
    tell(format!(
        "{hurt} pairs hurt; longest gap {:.3} s (pair {worst:?}), most lost {lost}",
        gap.as_secs_f64()
    ));
    tell(format!(
        "mended {:.1} s after the fault",
        (end - struck).as_secs_f64()
    ));
    mend(lab, pinger, fault, victim)?;
    Ok(Death {
        gap,
        lost,
        children_gone,
    })
}

/// Who does not reach whom, and the way that the kernels would take.
fn silent(lab: &Lab, pinger: &Pinger, survives: impl Fn(usize, usize) -> bool) -> Result<String> {
    let routes = Routes::read(lab)?;
    let recent = pinger.now().saturating_sub(Duration::from_millis(500));
    let pairs = pinger.ask(survives, |pair| pair.last_answered() >= Some(recent));
    let silent = pairs.iter().filter(|(.., alive)| !alive);
    let told =
        silent.map(|(from, to, _)| format!("{from} to {to} by {:?}", routes.way(*from, *to)));
    Ok(told.collect::<Vec<_>>().join("; "))
}

/// The node that most pairs need, of those that were no victim yet.
fn choose(lab: &Lab, routes: &Routes, victims: &BTreeSet<usize>) -> Option<usize> {
    let fresh = (0..lab.nodes().len()).filter(|node| !victims.contains(node));
    let needed = fresh
        .map(|node| (routes.pairs_through(node).len(), node))
        .filter(|(pairs, _)| *pairs > 0);
    // Where an acceptor is among those that need it, its death must be noticed from that end too.
    needed
        .max_by_key(|(pairs, node)| (accepted_from(lab, routes, *node).min(1), *pairs))
        .map(|(_, node)| node)
}

/// Nodes that send to others through a tunnel that the victim dialled, so must notice as acceptors.
fn accepted_from(lab: &Lab, routes: &Routes, victim: usize) -> usize {
    let is_accepting = |link: &str| link.starts_with("wrnu") || link.starts_with("wrnt");
    // More than the victim itself is reached that way.
    (0..lab.nodes().len())
        .filter(|node| routes.served(*node, victim, is_accepting) > 1)
        .count()
}

/// Kills; where it was a daemon, says how long its children lived on.
fn strike(lab: &Lab, routes: &Routes, fault: Fault, victim: usize) -> Result<Option<Duration>> {
    let node = lab.node(victim)?;
    match fault {
        Fault::CutNode => lab.cut(victim)?,
        Fault::KillDaemon => {
            let children: Vec<u32> = node.children().into_keys().collect();
            let killed = Instant::now();
            node.kill();
            let gone = || children.iter().all(|pid| !is_alive(*pid)).then_some(());
            wait_until(CHILDREN_GONE, gone).context("children outlived their daemon by 2 s")?;
            let took = killed.elapsed();
            tell(format!(
                "its {} children were gone after {:.3} s",
                children.len(),
                took.as_secs_f64()
            ));
            return Ok(Some(took));
        }
        Fault::KillBabeld => kill_child(lab, victim, "babeld")?,
        Fault::KillOpenvpn => {
            let used = (0..lab.nodes().len()).flat_map(|to| {
                let hop = routes.hop(victim, to)?;
                hop.link
                    .strip_prefix("wrn")
                    .filter(|rest| rest.parse::<u16>().is_ok())
                    .map(|_| hop.link.clone())
            });
            let slot = used
                .last()
                .context("the victim sends through no tunnel that it dialled")?;
            kill_child(lab, victim, &slot)?;
        }
    }
    Ok(None)
}

fn is_alive(pid: u32) -> bool {
    crate::lab_run::stat_field(pid, 3).is_some_and(|state| state != "Z")
}

fn kill_child(lab: &Lab, victim: usize, name: &str) -> Result<()> {
    let status: StatusDocument = lab.node(victim)?.ask(STATUS_PATH)?;
    let child = status
        .children
        .iter()
        .find(|child| child.name == name)
        .and_then(|child| child.pid);
    let pid = child.with_context(|| format!("node {victim} has no child {name}"))?;
    tell(format!("killing {name} of node {victim}, pid {pid}"));
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL).context("cannot kill it")
}

/// Undoes the fault and waits until all is as before.
fn mend(lab: &Lab, pinger: &Pinger, fault: Fault, victim: usize) -> Result<()> {
    match fault {
        Fault::CutNode => lab.mend(victim)?,
        Fault::KillDaemon => lab.node(victim)?.start()?,
        Fault::KillOpenvpn | Fault::KillBabeld => {}
    }
    let from = pinger.now();
    let back = wait_until(PATIENCE * 2, || pinger.all_answered(from, |_, _| true));
    if back.is_none() {
        bail!("node {victim} did not come back");
    }
    tell(format!("node {victim} is back"));
    pause(REST);
    Ok(())
}
