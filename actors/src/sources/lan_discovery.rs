//! Finds other nodes of the network on the LANs of the host, without registry and without neighbours.
//!
//! [`policies::lan_discovery`] decides when the links are searched, and whom the node believes; `links` opens the sockets. A node is
//! reported only with addresses in a subnet of the link on which it answered, since they mean other hosts elsewhere.

mod links;

use crate::{
    mailboxes::offer,
    messages::{LanOutcome, LanPeer, LanRead},
    store::Store,
};
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Recipient, WrapFuture,
};
use links::{Link, LinkTable};
use membership::documents::DocumentStore;
use os::{
    clock::Clock,
    kernel::{Kernel, Segment},
};
use policies::{
    lan_discovery::{
        Answer, Arrival, Intake, LanDiscovery as Discovery, LanMessage, LanNode, Verdict,
    },
    names::{Prefix, Transport},
    units::Uptime,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wire::{endpoints::dialable, errors::Chain, lan, overlay::Network, registry::static_key};

/// Interval at which it is checked whether a search is due.
const TICK_INTERVAL: Duration = Duration::from_millis(250);
/// Interval at which the links of the host are read.
const LINK_READ_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum interval between two readings. One is sent even if nothing has changed, for actors that have restarted.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// The settings of LAN discovery.
#[derive(Clone, Debug)]
pub struct LanSettings {
    /// The prefix of this node.
    pub me: Prefix,
    /// The network; addresses inside its range are not believed.
    pub network: Network,
    /// The transports and ports of this node's servers.
    pub servers: Vec<(Transport, u16)>,
}

/// The dependencies of LAN discovery.
#[derive(Clone)]
pub struct LanDiscoveryDeps {
    /// This node, its network and its servers.
    pub settings: LanSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The kernel, which lists the links.
    pub kernel: Kernel,
    /// The receivers of each reading.
    pub readers: Vec<Recipient<LanRead>>,
}

/// A datagram arrived on a link.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Arrived {
    link: u32,
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// The actor that searches the LANs.
pub struct LanDiscovery {
    settings: LanSettings,
    clock: Clock,
    documents: DocumentStore,
    kernel: Kernel,
    readers: Vec<Recipient<LanRead>>,
    discovery: Discovery,
    intake: Intake,
    links: LinkTable,
    links_read_at: Option<Uptime>,
    /// Why the links could not be read the last time.
    read_error: Option<String>,
    /// The network's keys, and the version of the document that they are from.
    keys: (u64, Vec<Vec<u8>>),
    messages: BTreeMap<LanOutcome, u64>,
    /// The nodes of the last reading.
    reported: BTreeMap<Prefix, LanPeer>,
    reported_at: Option<Uptime>,
    has_warned_of_clone: bool,
}

impl LanDiscovery {
    /// Builds the actor, which reads the links and searches them as soon as it starts.
    pub fn new(deps: LanDiscoveryDeps) -> Self {
        let LanDiscoveryDeps {
            settings,
            store,
            kernel,
            readers,
        } = deps;
        let discovery = Discovery::new(settings.me, store.random.bits());
        Self {
            settings,
            clock: store.clock,
            documents: store.documents,
            kernel,
            readers,
            discovery,
            intake: Intake::default(),
            links: LinkTable::default(),
            links_read_at: None,
            read_error: None,
            keys: (0, Vec::new()),
            messages: LanOutcome::ALL
                .map(|outcome| (outcome, 0))
                .into_iter()
                .collect(),
            reported: BTreeMap::new(),
            reported_at: None,
            has_warned_of_clone: false,
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let has_passed =
            |at: Option<Uptime>, interval| at.is_none_or(|at| now.since(at) >= interval);
        if has_passed(self.links_read_at, LINK_READ_INTERVAL) {
            self.links_read_at = Some(now);
            self.read_links(ctx);
        }
        if self.discovery.start_search(now) {
            self.search();
        }
        if has_passed(self.reported_at, REPORT_INTERVAL) {
            self.report();
        }
    }

    fn read_links(&mut self, ctx: &mut Context<Self>) {
        let kernel = self.kernel.clone();
        let read = async move { kernel.segments().await };
        ctx.spawn(read.into_actor(self).map(|read, actor, ctx| match read {
            Ok(segments) => {
                actor.read_error = None;
                actor.use_links(segments, ctx);
            }
            Err(error) => actor.warn_of_read_error(Chain(&error).to_string()),
        }));
    }

    /// Logs why the links cannot be read, unless that was the reason before.
    fn warn_of_read_error(&mut self, error: String) {
        if self.read_error.as_ref() != Some(&error) {
            tracing::warn!(
                error,
                "cannot read the links of the host; those known are searched for other nodes"
            );
            self.read_error = Some(error);
        }
    }

    /// Opens sockets on new links and closes those on lost ones; all links are then searched at once.
    fn use_links(&mut self, segments: Vec<Segment>, ctx: &mut Context<Self>) {
        if !self.links.replace(segments, &ctx.address()) {
            return;
        }
        self.discovery.on_links_changed(&self.links.indexes());
        if self.discovery.start_search(self.clock.now()) {
            self.search();
        }
        self.report();
    }

    /// Sends a search to all links.
    fn search(&mut self) {
        for index in self.links.indexes() {
            self.send(index, None, None);
        }
    }

    /// Sends a message on a link: an answer to one node, or a search to the group.
    fn send(&mut self, link: u32, answer: Option<Answer>, to: Option<SocketAddr>) {
        self.read_keys();
        let (_, keys) = &self.keys;
        let Some(link) = self.links.get(link) else {
            return;
        };
        let message = self.message(link, answer);
        let mut outcomes = Vec::new();
        for key in keys {
            if let Some(datagram) = lan::seal(&message, key) {
                outcomes.extend(link.send(&datagram, to));
            }
        }
        outcomes.into_iter().for_each(|outcome| self.count(outcome));
    }

    fn message(&self, link: &Link, answer: Option<Answer>) -> LanMessage {
        let port_of = |transport| {
            let mut servers = self.settings.servers.iter();
            let server = servers.find(|(found, _)| *found == transport);
            server.map_or(0, |(_, port)| *port)
        };
        let addresses = link.segment().addresses.iter();
        LanMessage {
            sender: self.settings.me,
            nonce: self.discovery.nonce(),
            answers: answer.map(|answer| answer.to),
            wants_answer: answer.is_none_or(|answer| answer.wants_answer),
            udp_port: port_of(Transport::Udp),
            tcp_port: port_of(Transport::Tcp),
            addresses: addresses.map(|(address, _)| *address).collect(),
        }
    }

    /// Reads the network's keys if there is a newer network document. Nodes have different documents for a while after a key was
    /// replaced, so each message is sent with either key meanwhile.
    fn read_keys(&mut self) {
        let documents = self.documents.load();
        let Some(network) = documents.network() else {
            return;
        };
        if self.keys.0 != network.version || self.keys.1.is_empty() {
            let texts = [Some(&network.tls_crypt), network.tls_crypt_other.as_ref()];
            let keys = texts.into_iter().flatten();
            let keys = keys.filter_map(|text| static_key(text)).collect();
            self.keys = (network.version, keys);
        }
    }

    fn receive(&mut self, arrived: &Arrived) {
        let now = self.clock.now();
        let outcome = match self.links.get(arrived.link) {
            None => return,
            // Datagrams from elsewhere do not use up what the nodes on the link may send.
            Some(link) if !link.is_neighbour(arrived.from) => LanOutcome::Foreign,
            Some(_) if !self.intake.allow(arrived.from.ip(), now) => {
                LanOutcome::Received(Verdict::Limited)
            }
            Some(_) => {
                self.read_keys();
                match lan::open(&arrived.bytes, &self.keys.1) {
                    None => LanOutcome::Foreign,
                    Some(message) => LanOutcome::Received(self.accept(arrived, &message, now)),
                }
            }
        };
        self.count(outcome);
    }

    /// Handles a message that a member sealed.
    fn accept(&mut self, arrived: &Arrived, message: &LanMessage, now: Uptime) -> Verdict {
        let network = self.settings.network;
        let mut endpoints = match self.links.get(arrived.link) {
            Some(link) => message.endpoints(|address: IpAddr| link.is_other_host(address)),
            None => Vec::new(),
        };
        endpoints.retain(|endpoint| dialable(*endpoint, network, true).is_ok());
        let arrival = Arrival {
            link: arrived.link,
            is_ipv4: arrived.from.is_ipv4(),
        };
        let (verdict, answer) = self.discovery.receive(now, arrival, message, endpoints);
        if let Some(answer) = answer {
            self.send(arrived.link, Some(answer), Some(arrived.from));
        }
        if verdict == Verdict::Believed && self.nodes() != self.reported {
            self.report();
        }
        if verdict == Verdict::OwnPrefix && !self.has_warned_of_clone {
            self.has_warned_of_clone = true;
            tracing::warn!(
                from = %arrived.from.ip(),
                prefix = %self.settings.me,
                "another host on the LAN has this node's prefix and the network's key; one of the two is a copy and needs an identity of its own: warren join --replace"
            );
        }
        verdict
    }

    fn nodes(&self) -> BTreeMap<Prefix, LanPeer> {
        let name_of = |index: u32| Some(self.links.get(index)?.segment().name.clone());
        let peer = |node: LanNode| LanPeer {
            links: node.links.into_iter().filter_map(name_of).collect(),
            endpoints: node.endpoints,
            answered_at: node.answered_at,
        };
        let nodes = self.discovery.nodes().into_iter();
        nodes.map(|(prefix, node)| (prefix, peer(node))).collect()
    }

    fn report(&mut self) {
        let at = self.clock.now();
        self.reported_at = Some(at);
        let nodes = self.nodes();
        for (peer, node) in &nodes {
            if !self.reported.contains_key(peer) {
                tracing::info!(%peer, links = node.links.join(", "), endpoints = node.endpoints.len(), "node found on the LAN");
            }
        }
        for (peer, node) in &self.reported {
            if !nodes.contains_key(peer) {
                tracing::info!(%peer, links = node.links.join(", "), "node answers no more on the LAN");
            }
        }
        self.reported.clone_from(&nodes);
        let reading = LanRead {
            at: Some(at),
            links: self.links.errors(),
            nodes,
            messages: self.messages.clone(),
        };
        self.readers
            .iter()
            .for_each(|reader| offer(reader, reading.clone()));
    }

    fn count(&mut self, outcome: LanOutcome) {
        let count = self.messages.entry(outcome).or_default();
        *count = count.saturating_add(1);
    }
}

impl Actor for LanDiscovery {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tick(ctx);
        ctx.run_interval(TICK_INTERVAL, Self::tick);
    }
}

impl Handler<Arrived> for LanDiscovery {
    type Result = ();

    fn handle(&mut self, arrived: Arrived, _: &mut Self::Context) {
        self.receive(&arrived);
    }
}
