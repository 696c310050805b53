//! Follows what the planners of all nodes decide, and tells whether traffic used a tunnel before it was closed.

use crate::{Lab, Pinger, kernel_routes::Routes};
use anyhow::Result;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant, SystemTime},
};
use wire::control::{DECISIONS_PATH, DecisionEntry, DecisionsDocument};

/// How often the routing tables are read.
const LOOK: Duration = Duration::from_secs(1);
/// More than the time between a decision and our hearing of it.
const LOOKS_KEPT: usize = 30;

/// A closing that a planner ordered: from the drain on.
#[derive(Clone, Debug)]
pub struct Closing {
    /// The node that closes.
    pub node: usize,
    /// The node at the other end.
    pub peer: usize,
    /// The decision to drain, with its reason and terms.
    pub decision: DecisionEntry,
    /// Just before, how many nodes the closing node reached through the tunnel.
    pub served_by_node: usize,
    /// Just before, how many nodes the other end reached through it.
    pub served_by_peer: usize,
    /// From the drain's order to the closing's; `None` while it drains.
    pub took: Option<Duration>,
    /// The drain was given up.
    pub abandoned: bool,
}

impl Closing {
    /// From the order to drain until three seconds after the end, on the pinger's clock.
    pub fn span(&self, pinger: &Pinger) -> (Duration, Duration) {
        let begin = pinger.at_wall(SystemTime::from(self.decision.at));
        (
            begin,
            begin + self.took.unwrap_or_default() + Duration::from_secs(3),
        )
    }

    /// Every pair is pinged; so where both ends reached a node through the tunnel, pings went through it both
    /// ways.
    pub fn was_used_both_ways(&self) -> bool {
        self.served_by_node > 0 && self.served_by_peer > 0
    }
}

/// Follows decisions from its making on.
#[derive(Debug)]
pub struct Watch {
    /// By node, the daemon's pid and the number of the last decision seen.
    seen: BTreeMap<usize, (Option<u32>, u64)>,
    looks: VecDeque<(SystemTime, Routes)>,
    looked: Option<Instant>,
    closings: Vec<Closing>,
    news: Vec<String>,
}

impl Watch {
    /// Decisions made before are left out.
    pub fn new(lab: &Lab) -> Self {
        let mut watch = Self {
            seen: BTreeMap::new(),
            looks: VecDeque::new(),
            looked: None,
            closings: Vec::new(),
            news: Vec::new(),
        };
        for node in lab.nodes() {
            let document = node.ask::<DecisionsDocument>(DECISIONS_PATH).ok();
            let last = document.and_then(|document| Some(document.decisions.last()?.number));
            watch
                .seen
                .insert(node.index(), (node.pid(), last.unwrap_or_default()));
        }
        watch
    }

    /// All closings so far, in the order in which they were heard of.
    pub fn closings(&self) -> &[Closing] {
        &self.closings
    }

    /// One line for each decision heard since the last call.
    pub fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// Closings that were carried through.
    pub fn completed(&self) -> impl Iterator<Item = &Closing> {
        self.closings
            .iter()
            .filter(|closing| closing.took.is_some())
    }

    /// Reads what is new. To be called several times a second. Nodes that do not answer are left out.
    ///
    /// # Errors
    /// Where a node has not joined.
    pub fn look(&mut self, lab: &Lab) -> Result<()> {
        for node in lab.nodes() {
            let Ok(document) = node.ask::<DecisionsDocument>(DECISIONS_PATH) else {
                continue;
            };
            let (pid, mut last) = self.seen.get(&node.index()).copied().unwrap_or_default();
            if pid != node.pid() {
                last = 0;
            }
            for decision in document.decisions {
                if decision.number > last {
                    last = decision.number;
                    self.heard(lab, node.index(), decision);
                }
            }
            self.seen.insert(node.index(), (node.pid(), last));
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            self.looks
                .push_back((SystemTime::now(), Routes::read(lab)?));
            if self.looks.len() > LOOKS_KEPT {
                self.looks.pop_front();
            }
        }
        Ok(())
    }

    fn heard(&mut self, lab: &Lab, node: usize, decision: DecisionEntry) {
        self.news.push(format!(
            "node {node}: {} {} with {} ({}) at {}",
            decision.order,
            decision.slot,
            decision.peer.as_deref().unwrap_or("nobody"),
            decision.reason,
            decision.at
        ));
        let same = |closing: &&mut Closing| {
            closing.node == node
                && closing.decision.slot == decision.slot
                && closing.took.is_none()
                && !closing.abandoned
        };
        match decision.order.as_str() {
            "drain" => self.begun(lab, node, decision),
            "close" => {
                if let Some(closing) = self.closings.iter_mut().find(same) {
                    closing.took = Duration::try_from(decision.at - closing.decision.at).ok();
                }
            }
            "undrain" => {
                if let Some(closing) = self.closings.iter_mut().find(same) {
                    closing.abandoned = true;
                }
            }
            _ => {}
        }
    }

    fn begun(&mut self, lab: &Lab, node: usize, decision: DecisionEntry) {
        let is_peer = |prefix: &str| Some(prefix) == decision.peer.as_deref();
        let mut identities = lab
            .nodes()
            .iter()
            .filter_map(|node| Some((node.index(), node.identity().ok()?)));
        let Some((peer, _)) = identities.find(|(_, identity)| is_peer(&identity.prefix)) else {
            return;
        };
        let at = SystemTime::from(decision.at);
        let before = self.looks.iter().rev().find(|(look, _)| *look < at);
        let is_accepting = |link: &str| link.starts_with("wrnu") || link.starts_with("wrnt");
        let slot = decision.slot.as_str();
        let served_by_node = before.map_or(0, |(_, routes)| {
            routes.served(node, peer, |link| link == slot)
        });
        let served_by_peer =
            before.map_or(0, |(_, routes)| routes.served(peer, node, is_accepting));
        let closing = Closing {
            node,
            peer,
            decision,
            served_by_node,
            served_by_peer,
            took: None,
            abandoned: false,
        };
        self.closings.push(closing);
    }
}
