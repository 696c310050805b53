//! Kills children of nodes, and sums up what each kind of kill cost.

use crate::{
    Lab, Node,
    pinger::{Pinger, all_pairs},
    progress::{progress, seconds},
};
use anyhow::{Context, Result};
use fastrand::Rng;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument};

/// Interval between two kills, and the span after a kill whose losses count as its effect.
pub(super) const KILL_INTERVAL: Duration = Duration::from_secs(20);

/// The effect of one kind of fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FaultEffects {
    /// The number of faults.
    pub kills: usize,
    /// Faults after which at least one pair lost a ping.
    pub kills_with_loss: usize,
    /// Median over the faults of the longest gap of any pair, with a ping each second.
    pub seconds_median: f64,
    /// The longest gap of any pair after any of the faults.
    pub seconds_max: f64,
    /// The most pairs that lost a ping after one fault.
    pub affected_pairs_max: usize,
}

/// A child that was killed, with the moment of the pinger's clock.
pub(super) struct Kill {
    pub(super) kind: String,
    pub(super) at: Duration,
}

/// The longest gap of each pair that lost a ping after a fault.
pub(super) fn gaps_after(kill: &Kill, pinger: &Pinger) -> Vec<Duration> {
    let now = pinger.now();
    let summaries = pinger.read_records(all_pairs, |record| {
        record.summarize(kill.at, kill.at + KILL_INTERVAL, now)
    });
    let hit = summaries
        .into_iter()
        .filter(|(.., summary)| summary.lost > 0);
    hit.map(|(.., summary)| summary.longest_gap).collect()
}

/// The kind of a child: all dialled tunnels are `client`.
fn kind(name: &str) -> &str {
    if name == "babeld" || name.starts_with("server-") {
        name
    } else {
        "client"
    }
}

/// Chooses a random child of a node; returns its name in `warren status`, and its pid.
pub(crate) fn choose_child(node: &Node, rng: &mut Rng) -> Result<(String, Pid)> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    let running: Vec<_> = status
        .processes
        .into_iter()
        .filter_map(|process| Some((process.name, process.pid?)))
        .collect();
    let (name, pid) = running
        .get(rng.usize(..running.len().max(1)))
        .with_context(|| node.describe("has no child"))?;
    Ok((name.clone(), Pid::from_raw(i32::try_from(*pid)?)))
}

/// Kills a random child of a random node with SIGKILL, and returns its kind.
pub(super) fn kill_random_child(lab: &Lab, rng: &mut Rng) -> Result<String> {
    let node = lab.node(rng.usize(..lab.nodes().len()))?;
    let (name, pid) = choose_child(node, rng)?;
    progress(format!("killing {name} of node {}", node.index()));
    // A child that has exited meanwhile needs no signal.
    kill(pid, Signal::SIGKILL).ok();
    Ok(kind(&name).to_owned())
}

/// Sums up, by kind, the gaps of the pairs that each fault hit.
pub(super) fn sum_up(
    effects: impl Iterator<Item = (String, Vec<Duration>)>,
) -> BTreeMap<String, FaultEffects> {
    let mut by_kind: BTreeMap<String, Vec<Vec<Duration>>> = BTreeMap::new();
    for (kind, gaps) in effects {
        by_kind.entry(kind).or_default().push(gaps);
    }
    let sum_up_kind = |faults: Vec<Vec<Duration>>| {
        let mut longest: Vec<_> = faults
            .iter()
            .map(|gaps| gaps.iter().max().copied().unwrap_or_default())
            .collect();
        longest.sort_unstable();
        FaultEffects {
            kills: faults.len(),
            kills_with_loss: faults.iter().filter(|gaps| !gaps.is_empty()).count(),
            seconds_median: longest.get(longest.len() / 2).copied().map_or(0.0, seconds),
            seconds_max: longest.last().copied().map_or(0.0, seconds),
            affected_pairs_max: faults.iter().map(Vec::len).max().unwrap_or(0),
        }
    };
    by_kind
        .into_iter()
        .map(|(kind, faults)| (kind, sum_up_kind(faults)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_summed_up_by_kind() {
        let gap = Duration::from_secs;
        let effects = [
            ("client".to_owned(), vec![gap(2), gap(4)]),
            ("client".to_owned(), vec![]),
            ("client".to_owned(), vec![gap(1)]),
            ("babeld".to_owned(), vec![]),
        ];
        let summed = sum_up(effects.into_iter());
        let expected = FaultEffects {
            kills: 3,
            kills_with_loss: 2,
            seconds_median: 1.0,
            seconds_max: 4.0,
            affected_pairs_max: 2,
        };
        assert_eq!(summed["client"], expected);
        assert_eq!(summed["babeld"].kills, 1);
    }

    #[test]
    fn dialled_tunnels_are_one_kind() {
        assert_eq!(
            ["wrn3", "babeld", "server-udp"].map(kind),
            ["client", "babeld", "server-udp"]
        );
    }
}
