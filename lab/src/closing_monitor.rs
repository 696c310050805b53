//! Follows the decisions of all nodes' planners, and records whether traffic used a tunnel before it was closed.

use crate::{
    Lab, Node, Pinger,
    kernel_routes::{KernelRoutes, is_accepting_slot},
};
use anyhow::Result;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant, SystemTime},
};
use wire::control::{DECISIONS_PATH, DecisionEntry, DecisionsDocument};

/// Interval between two readings of the routing tables.
const ROUTES_INTERVAL: Duration = Duration::from_secs(1);
/// Readings of the routing tables that are kept; together they cover more time than passes between a decision and
/// the moment when we read it.
const MAX_KEPT_ROUTES: usize = 30;
/// Time after a closing in which pings that are inside the tunnel may still get lost.
const AFTERMATH: Duration = Duration::from_secs(3);

/// One tunnel that a planner closes, from its decision to drain the tunnel on.
#[derive(Clone, Debug)]
pub struct TunnelClosing {
    /// The node that closes the tunnel, by its number in the lab.
    pub node: usize,
    /// The node at the other end.
    pub peer: usize,
    /// The decision to drain, with its reason and the numbers behind it.
    pub decision: DecisionEntry,
    /// Nodes that the closing node reached through the tunnel just before.
    pub reached_by_node: usize,
    /// Nodes that the other end reached through the tunnel just before.
    pub reached_by_peer: usize,
    /// Time from the order to drain until the order to close; `None` while the tunnel drains.
    pub duration: Option<Duration>,
    /// Whether the planner gave up the drain without closing the tunnel.
    pub is_abandoned: bool,
}

impl TunnelClosing {
    /// The span, on the pinger's clock, in which the closing may lose pings.
    ///
    /// It starts with the order to drain and ends three seconds after the order to close.
    pub fn span(&self, pinger: &Pinger) -> (Duration, Duration) {
        let start = pinger.at_wall_clock(SystemTime::from(self.decision.at));
        (start, start + self.duration.unwrap_or_default() + AFTERMATH)
    }

    /// Whether pings went through the tunnel in both directions, if all pairs of nodes are pinged.
    pub fn was_used_in_both_directions(&self) -> bool {
        self.reached_by_node > 0 && self.reached_by_peer > 0
    }
}

/// How far the decisions of one node have been read.
#[derive(Clone, Copy, Debug, Default)]
struct ReadPosition {
    /// The daemon's process id; a new daemon counts its decisions from 1 again.
    pid: Option<u32>,
    /// Number of the last decision that was read.
    last_number: u64,
}

/// Follows the decisions that are made after its creation.
#[derive(Debug)]
pub struct ClosingMonitor {
    /// How far the decisions have been read, by node.
    positions: BTreeMap<usize, ReadPosition>,
    /// The latest readings of the routing tables, the oldest first.
    routes: VecDeque<(SystemTime, KernelRoutes)>,
    routes_read_at: Option<Instant>,
    closings: Vec<TunnelClosing>,
    unreported_decisions: Vec<String>,
}

impl ClosingMonitor {
    /// Starts after the decisions that the nodes have made so far.
    pub fn new(lab: &Lab) -> Self {
        let position = |node: &Node| {
            let document = node
                .control_document::<DecisionsDocument>(DECISIONS_PATH)
                .ok();
            let last = document.and_then(|document| Some(document.decisions.last()?.number));
            ReadPosition {
                pid: node.pid(),
                last_number: last.unwrap_or_default(),
            }
        };
        let positions = lab
            .nodes()
            .iter()
            .map(|node| (node.index(), position(node)));
        Self {
            positions: positions.collect(),
            routes: VecDeque::new(),
            routes_read_at: None,
            closings: Vec::new(),
            unreported_decisions: Vec::new(),
        }
    }

    /// All closings so far, in the order in which they were read.
    pub fn closings(&self) -> &[TunnelClosing] {
        &self.closings
    }

    /// The closings that were carried out.
    pub fn completed(&self) -> impl Iterator<Item = &TunnelClosing> {
        self.closings
            .iter()
            .filter(|closing| closing.duration.is_some())
    }

    /// One line for each decision that was read since the last call.
    pub fn take_decision_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unreported_decisions)
    }

    /// Reads the new decisions, and the routing tables once a second. The caller calls this several times a second.
    /// Nodes that do not answer are skipped.
    ///
    /// # Errors
    /// Fails if a node has not joined.
    pub fn poll(&mut self, lab: &Lab) -> Result<()> {
        for node in lab.nodes() {
            let Ok(document) = node.control_document::<DecisionsDocument>(DECISIONS_PATH) else {
                continue;
            };
            let mut position = self
                .positions
                .get(&node.index())
                .copied()
                .unwrap_or_default();
            if position.pid != node.pid() {
                position = ReadPosition {
                    pid: node.pid(),
                    last_number: 0,
                };
            }
            for decision in document.decisions {
                if decision.number > position.last_number {
                    position.last_number = decision.number;
                    self.add_decision(lab, node.index(), decision);
                }
            }
            self.positions.insert(node.index(), position);
        }
        if self
            .routes_read_at
            .is_none_or(|read_at| read_at.elapsed() >= ROUTES_INTERVAL)
        {
            self.routes_read_at = Some(Instant::now());
            self.routes
                .push_back((SystemTime::now(), KernelRoutes::read(lab)?));
            if self.routes.len() > MAX_KEPT_ROUTES {
                self.routes.pop_front();
            }
        }
        Ok(())
    }

    fn add_decision(&mut self, lab: &Lab, node: usize, decision: DecisionEntry) {
        let peer = decision.peer_name.as_ref().or(decision.peer.as_ref());
        let (hour, minute, second, millisecond) = decision.at.time().as_hms_milli();
        self.unreported_decisions.push(format!(
            "node-{node}: {} {} with {} ({}) at {hour:02}:{minute:02}:{second:02}.{millisecond:03} UTC",
            decision.order,
            decision.slot,
            peer.map_or("no peer", String::as_str),
            decision.reason,
        ));
        let mut open_closings = self.closings.iter_mut().filter(|closing| {
            closing.node == node
                && closing.decision.slot == decision.slot
                && closing.duration.is_none()
                && !closing.is_abandoned
        });
        match decision.order.as_str() {
            "drain" => self.add_closing(lab, node, decision),
            "close" => {
                if let Some(closing) = open_closings.next() {
                    closing.duration = Duration::try_from(decision.at - closing.decision.at).ok();
                }
            }
            "undrain" => {
                if let Some(closing) = open_closings.next() {
                    closing.is_abandoned = true;
                }
            }
            _ => {}
        }
    }

    fn add_closing(&mut self, lab: &Lab, node: usize, decision: DecisionEntry) {
        let is_peer = |other: &&Node| {
            let prefix = other.prefix().ok();
            prefix.is_some() && prefix == decision.peer.as_deref()
        };
        let Some(peer) = lab.nodes().iter().find(is_peer).map(Node::index) else {
            return;
        };
        let decided_at = SystemTime::from(decision.at);
        let mut readings = self.routes.iter().rev();
        let routes_before = readings
            .find(|(read_at, _)| *read_at < decided_at)
            .map(|(_, routes)| routes);
        let slot = decision.slot.as_str();
        let reached_by_node = routes_before.map_or(0, |routes| {
            routes.destinations_via(node, peer, |link| link == slot)
        });
        let reached_by_peer = routes_before.map_or(0, |routes| {
            routes.destinations_via(peer, node, is_accepting_slot)
        });
        self.closings.push(TunnelClosing {
            node,
            peer,
            decision,
            reached_by_node,
            reached_by_peer,
            duration: None,
            is_abandoned: false,
        });
    }
}
