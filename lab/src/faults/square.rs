//! The network that members and local users attack: four nodes in a square, and members that do not run.
//!
//! Node 0 reaches node 2 only through node 1 or node 3. The others have joined but run no daemon; each attack by a member uses
//! another of them, since the network does not admit a suspect again for ten minutes.

use super::liar::{Liar, network_of};
use crate::{
    Lab, Node, Options, PingSchedule, Pinger, ip,
    ping_record::{LOST_AFTER, PingSummary},
    pinger::all_pairs,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use policies::names::Prefix;
use std::{cell::Cell, fs, time::Duration};
use wire::{
    control::{TUNNELS_PATH, TunnelsDocument},
    overlay::Network,
};

/// The node to which liars connect.
pub(super) const NEIGHBOUR: usize = 0;
/// The node between the neighbour and the victim.
pub(super) const MIDDLE: usize = 1;
/// The node whose range is announced by others.
pub(super) const VICTIM: usize = 2;
/// The user `nobody` of Debian.
pub(super) const NOBODY: u32 = 65_534;
/// Nodes that run.
pub(super) const RUNNING: usize = 4;
/// Longest wait until all running nodes reach each other.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Pause after that, so that the attack does not meet a network that still changes.
const SETTLING_TIME: Duration = Duration::from_secs(5);
/// Interval between two pings of a pair.
const PING_INTERVAL: Duration = Duration::from_millis(50);

/// The network, and the pings between all running nodes.
pub(super) struct Square {
    pub(super) lab: Lab,
    pub(super) pinger: Pinger,
    pub(super) network: Network,
    used_liars: Cell<usize>,
}

impl Square {
    /// The nodes that run.
    pub(super) fn running_nodes(&self) -> impl Iterator<Item = &Node> {
        self.lab.nodes().iter().take(RUNNING)
    }

    /// Builds the network with so many members that do not run, and waits until the others reach each other.
    pub(super) fn build(liars: usize) -> Result<Self> {
        let lab = Lab::build_joined(Options {
            nodes: RUNNING + liars,
            tunnels_to_dial: Some(3),
            ..Options::default()
        })?;
        for (a, b) in [(NEIGHBOUR, VICTIM), (MIDDLE, 3)] {
            separate(&lab, a, b)?;
        }
        lab.nodes().iter().take(RUNNING).try_for_each(Node::start)?;
        let pinger = Pinger::start(
            &lab.ping_hosts(0..RUNNING)?,
            PingSchedule::Every(PING_INTERVAL),
        )?;
        wait_until(START_TIMEOUT, || {
            pinger.all_answered(Duration::ZERO, all_pairs)
        })
        .context("some pair of the running nodes has had no reply within 90 s")?;
        pause(SETTLING_TIME);
        Ok(Self {
            network: network_of(&lab)?,
            lab,
            pinger,
            used_liars: Cell::new(0),
        })
    }

    /// Connects the next member that does not run to the neighbour.
    pub(super) fn connect_liar(&self) -> Result<Liar> {
        let used = self.used_liars.get();
        self.used_liars.set(used + 1);
        Liar::connect(&self.lab, RUNNING + used, NEIGHBOUR)
    }

    /// The namespace of the member that was connected last.
    pub(super) fn liar_namespace(&self) -> Result<String> {
        let last = (RUNNING + self.used_liars.get()).saturating_sub(1);
        Ok(self.lab.node(last)?.namespace().to_owned())
    }

    /// Takes the next members that do not run.
    pub(super) fn take_liars(&self, count: usize) -> Result<Vec<&Node>> {
        let used = self.used_liars.replace(self.used_liars.get() + count);
        let next = RUNNING + used..RUNNING + used + count;
        next.map(|index| self.lab.node(index)).collect()
    }

    pub(super) fn prefix(&self, node: usize) -> Result<Prefix> {
        Ok(self.lab.node(node)?.prefix()?.parse()?)
    }

    /// Waits until pings that were sent before `end` can be judged, and sums them up.
    pub(super) fn pings(&self, start: Duration, end: Duration) -> PingSummary {
        let judged_at = end + LOST_AFTER + PING_INTERVAL;
        pause(judged_at.saturating_sub(self.pinger.now()));
        let losses = self.pinger.describe_losses(start, end, all_pairs);
        losses.into_iter().for_each(progress);
        self.pinger.summarize(start, end, all_pairs)
    }

    /// The moment at which the last lost ping was sent, of those between `start` and `end`.
    pub(super) fn last_loss(&self, start: Duration, end: Duration) -> Option<Duration> {
        let now = self.pinger.now();
        let lost = self
            .pinger
            .read_records(all_pairs, |record| record.lost_pings(start, end, now));
        lost.into_iter().flat_map(|(.., moments)| moments).max()
    }

    /// How often a child process of a node was started so far.
    pub(super) fn starts(&self, node: usize, process: &str) -> Result<u64> {
        let sample = format!("warren_process_starts_total{{process=\"{process}\"}}");
        self.lab.node(node)?.metric(&sample)
    }

    /// The slot by which a node reaches its neighbour.
    pub(super) fn slot(&self, node: usize, neighbour: usize) -> Result<String> {
        let peer = self.prefix(neighbour)?.to_string();
        let document: TunnelsDocument = self.lab.node(node)?.control_document(TUNNELS_PATH)?;
        let tunnel = document
            .tunnels
            .into_iter()
            .find(|tunnel| tunnel.peer == peer && tunnel.phase == "up");
        let tunnel = tunnel.with_context(|| format!("node {node} has no tunnel to {peer}"))?;
        Ok(tunnel.slot)
    }
}

/// Prevents two nodes from dialling each other.
pub(super) fn separate(lab: &Lab, a: usize, b: usize) -> Result<()> {
    for (from, to) in [(a, b), (b, a)] {
        let line = format!("route add blackhole 45.67.1.{}/32\n", to + 1);
        ip::batch(Some(lab.node(from)?.namespace()), &line)?;
    }
    Ok(())
}

/// What a node's daemon logs from a moment on.
pub(super) struct LogWatch<'lab> {
    node: &'lab Node,
    start: usize,
}

impl<'lab> LogWatch<'lab> {
    pub(super) fn start(node: &'lab Node) -> Self {
        let start = fs::read(node.log_file()).unwrap_or_default().len();
        Self { node, start }
    }

    /// The number of new lines with all these words.
    pub(super) fn count(&self, words: &[&str]) -> usize {
        self.lines(words).len()
    }

    /// The new lines with all these words.
    pub(super) fn lines(&self, words: &[&str]) -> Vec<String> {
        let bytes = fs::read(self.node.log_file()).unwrap_or_default();
        let new = String::from_utf8_lossy(bytes.get(self.start..).unwrap_or_default()).into_owned();
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        let found = new.lines().filter(has_all);
        found.map(str::to_owned).collect()
    }
}
