//! Decides when a node searches its links for other nodes of its network, whom it answers, and whom it believes.
//!
//! ```text
//! searching node ── search, nonce A ──► all nodes on the link
//!                ◄─ answer to A, nonce B, and a wish for an answer if the searching node is unknown ──
//!                ── answer to B ──►
//! ```
//!
//! A node believes only an answer to one of its own last two nonces. So a recorded message proves nothing later, and no clock is
//! compared. That holds for the node's own prefix, too: it answers an unknown search that has it, and only a copy of the node answers back. Searches are answered at a limited rate, so that they cannot be used to flood the link, and each is answered once, so
//! that a recorded one does not use up that rate.

mod intake;

pub use intake::Intake;

use crate::{
    names::{Endpoint, Prefix, Transport},
    rng::Rng,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Maximum number of addresses in a message.
pub const MAX_ADDRESSES: usize = 4;
/// Maximum number of a node's addresses on the link that are dialled.
const MAX_DIALLED: usize = 2;
/// Maximum number of nodes that are remembered; a node counts once on each link on which it answers.
pub const MAX_NODES: usize = 256;
/// Maximum number of a node's endpoints on all links together: those of two links.
const MAX_ENDPOINTS: usize = 8;
/// Maximum number of answered messages that are remembered.
const MAX_ANSWERED: usize = 1024;
/// Delays between the first searches, after the start and after a change of links; [`SEARCH_INTERVAL`] follows.
const FIRST_DELAYS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// Minimum interval between two searches.
const SEARCH_INTERVAL: Duration = Duration::from_secs(30);
/// Added to the interval for each known node: so the answers on a link grow with the number of its nodes, not with its square.
const INTERVAL_PER_NODE: Duration = Duration::from_secs(3);
/// Number of searches without an answer after which a node is forgotten.
const SEARCHES_KEPT: u32 = 3;
/// Maximum number of answers in a burst.
const MAX_BURST: u32 = 64;
/// Time after which one more answer is allowed once the burst is spent: 10 answers a second.
const REFILL_INTERVAL: Duration = Duration::from_millis(100);

/// A message to the nodes on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanMessage {
    /// The node that sent the message, by its own account.
    pub sender: Prefix,
    /// A number that only answers to this message repeat.
    pub nonce: u128,
    /// The nonce of the message that this one answers; `None` if it is a search.
    pub answers: Option<u128>,
    /// Whether the sender wants an answer.
    pub wants_answer: bool,
    /// Port of the sender's UDP server; 0 if it has none.
    pub udp_port: u16,
    /// Port of the sender's TCP server; 0 if it has none.
    pub tcp_port: u16,
    /// Addresses of the sender on the link, at most [`MAX_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
}

impl LanMessage {
    /// Returns the endpoints at which the sender can be dialled on the link, those of its UDP server first; `is_on_link` decides
    /// which of its addresses are good.
    pub fn endpoints(&self, is_on_link: impl Fn(IpAddr) -> bool) -> Vec<Endpoint> {
        let addresses = self.addresses.iter().copied();
        let addresses: Vec<_> = addresses
            .filter(|address| is_on_link(*address))
            .take(MAX_DIALLED)
            .collect();
        let servers = [
            (Transport::Udp, self.udp_port),
            (Transport::Tcp, self.tcp_port),
        ];
        let servers = servers.into_iter().filter(|(_, port)| *port != 0);
        let endpoints = servers.flat_map(|(transport, port)| {
            let addresses = addresses.iter();
            addresses.map(move |address| Endpoint {
                transport,
                address: SocketAddr::new(*address, port),
            })
        });
        endpoints.collect()
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The sender is believed.
    Believed,
    /// It is a search, which proves nothing about its sender.
    Searched,
    /// It answers no message that this node sent lately.
    Stale,
    /// This node sent it itself, on another link into the same LAN.
    Own,
    /// Another host answered that has this node's prefix.
    OwnPrefix,
    /// Too many messages are answered, or too many nodes are known.
    Limited,
}

/// The path by which a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The index of the link.
    pub link: u32,
    /// Whether it came by IPv4; by IPv6 otherwise.
    pub is_ipv4: bool,
}

/// A node on links of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanNode {
    /// The indexes of the links on which it answers, in ascending order.
    pub links: Vec<u32>,
    /// Where it can be dialled there: at its UDP server first, and on the first link first. At most eight.
    pub endpoints: Vec<Endpoint>,
    /// When it last answered.
    pub answered_at: Uptime,
}

/// What a node answered on one link.
#[derive(Clone, Debug)]
struct OnLink {
    endpoints: Vec<Endpoint>,
    answered_at: Uptime,
}

/// A message that was answered. The answer to a search may be lost by one address family only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answered {
    nonce: u128,
    is_search: bool,
    arrival: Arrival,
}

/// An answer to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The nonce of the message that is answered.
    pub to: u128,
    /// Whether this node wants to know the other one, too.
    pub wants_answer: bool,
}

/// The state of the search on all links.
#[derive(Clone, Debug)]
pub struct LanDiscovery {
    me: Prefix,
    rng: Rng,
    /// The nonces of the last two searches, the newer one first.
    nonces: [u128; 2],
    /// The nodes on each link.
    nodes: BTreeMap<(Prefix, u32), OnLink>,
    /// The last messages that were answered, the oldest one first.
    answered: VecDeque<Answered>,
    next_search: Uptime,
    /// Number of searches since the links last changed.
    searches: usize,
    /// Number of answers that count towards [`MAX_BURST`].
    spent: u32,
    refilled_at: Uptime,
}

impl LanDiscovery {
    /// A node that has not searched yet. The seed must be another one at each start.
    pub fn new(me: Prefix, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let nonces = [draw_nonce(&mut rng), draw_nonce(&mut rng)];
        Self {
            me,
            rng,
            nonces,
            nodes: BTreeMap::new(),
            answered: VecDeque::new(),
            next_search: Uptime::default(),
            searches: 0,
            spent: 0,
            refilled_at: Uptime::default(),
        }
    }

    /// The nonce of the messages that this node sends now.
    pub fn nonce(&self) -> u128 {
        let [newest, _] = self.nonces;
        newest
    }

    /// All known nodes, each with its endpoints on all links.
    pub fn nodes(&self) -> BTreeMap<Prefix, LanNode> {
        let mut nodes: BTreeMap<Prefix, LanNode> = BTreeMap::new();
        for ((prefix, link), on_link) in &self.nodes {
            let node = nodes.entry(*prefix).or_insert_with(|| LanNode {
                links: Vec::new(),
                endpoints: Vec::new(),
                answered_at: on_link.answered_at,
            });
            node.links.push(*link);
            node.answered_at = node.answered_at.max(on_link.answered_at);
            for endpoint in &on_link.endpoints {
                if !node.endpoints.contains(endpoint) {
                    node.endpoints.push(*endpoint);
                }
            }
        }
        for node in nodes.values_mut() {
            node.endpoints
                .sort_by_key(|endpoint| endpoint.transport != Transport::Udp);
            node.endpoints.truncate(MAX_ENDPOINTS);
        }
        nodes
    }

    /// Forgets the nodes on links other than these, and searches all links at once.
    pub fn on_links_changed(&mut self, links: &[u32]) {
        self.nodes.retain(|(_, link), _| links.contains(link));
        self.searches = 0;
        self.next_search = Uptime::default();
    }

    /// Returns whether a search is to be sent on each link now; its nonce is then new. Forgets nodes that answer no more.
    pub fn start_search(&mut self, now: Uptime) -> bool {
        if now < self.next_search {
            return false;
        }
        let interval = self.interval();
        let lifetime = interval.saturating_mul(SEARCHES_KEPT);
        self.nodes
            .retain(|_, node| now.since(node.answered_at) < lifetime);
        let [last, _] = self.nonces;
        self.nonces = [draw_nonce(&mut self.rng), last];
        let delay = FIRST_DELAYS.get(self.searches).copied();
        let delay = delay.unwrap_or(interval);
        // Nodes that started together do not search together for ever.
        self.next_search = now + self.rng.span(delay, delay.saturating_add(delay / 4));
        self.searches = self.searches.saturating_add(1);
        true
    }

    fn interval(&self) -> Duration {
        let nodes: BTreeSet<_> = self.nodes.keys().map(|(prefix, _)| prefix).collect();
        let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        SEARCH_INTERVAL.max(INTERVAL_PER_NODE.saturating_mul(count))
    }

    /// Handles a message that a member sealed. `endpoints` are those of the sender that lie on the link on which it arrived.
    pub fn receive(
        &mut self,
        now: Uptime,
        arrival: Arrival,
        message: &LanMessage,
        endpoints: Vec<Endpoint>,
    ) -> (Verdict, Option<Answer>) {
        let sender = message.sender;
        if self.nonces.contains(&message.nonce) {
            return (Verdict::Own, None);
        }
        let verdict = match message.answers {
            None => Verdict::Searched,
            Some(nonce) if !self.nonces.contains(&nonce) => return (Verdict::Stale, None),
            Some(_) if sender == self.me => Verdict::OwnPrefix,
            Some(_) => {
                let key = (sender, arrival.link);
                if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&key) {
                    return (Verdict::Limited, None);
                }
                let on_link = OnLink {
                    endpoints,
                    answered_at: now,
                };
                self.nodes.insert(key, on_link);
                Verdict::Believed
            }
        };
        let answered = Answered {
            nonce: message.nonce,
            is_search: message.answers.is_none(),
            arrival,
        };
        if !message.wants_answer || self.answered.contains(&answered) {
            return (verdict, None);
        }
        if !self.may_answer(now) {
            return (Verdict::Limited, None);
        }
        if self.answered.len() >= MAX_ANSWERED {
            self.answered.pop_front();
        }
        self.answered.push_back(answered);
        let answer = Answer {
            to: message.nonce,
            wants_answer: answered.is_search && !self.nodes.contains_key(&(sender, arrival.link)),
        };
        (verdict, Some(answer))
    }

    /// Returns whether one more answer may be sent now; counts it if so.
    fn may_answer(&mut self, now: Uptime) -> bool {
        let refills = now.since(self.refilled_at).as_millis() / REFILL_INTERVAL.as_millis();
        if refills > 0 {
            let refills = u32::try_from(refills).unwrap_or(u32::MAX);
            self.spent = self.spent.saturating_sub(refills);
            self.refilled_at = now;
        }
        let is_allowed = self.spent < MAX_BURST;
        self.spent += u32::from(is_allowed);
        is_allowed
    }
}

fn draw_nonce(rng: &mut Rng) -> u128 {
    u128::from(rng.bits()) << 64 | u128::from(rng.bits())
}

#[cfg(test)]
mod tests;
