//! Remembers the endpoints of peers across restarts, and publishes them. Keeps the names of nodes on disk, too.
//!
//! [`directory`] decides which reports count and which peers are dropped; [`disk`] reads and writes the file. The results of
//! dials come from the shared table of tunnels. A node with a broken or full disk continues from memory.

pub mod directory;
pub mod disk;

use crate::{
    live_settings::{LocalLimits, SharedLiveSettings},
    mailboxes::offer,
    messages::{
        DocumentsChanged, LanRead, PeerSource, PeersRead, PeersReported, RoutesRead,
        SettingsChanged, UnusedEndpoint,
    },
    store::{SharedCandidates, Store, TunnelTable},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use directory::PeerDirectory;
use disk::Disk;
use membership::{
    documents::{CurrentDocuments, DocumentStore, PrivateEndpointError, PrivateEndpoints},
    node_names::NodeNames,
};
use os::clock::Clock;
use policies::{names::Prefix, observation::Candidate, units::Uptime};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use wire::errors::Chain;
use wire::overlay::Network;

/// Interval at which the results of dials are read and changes are written to disk.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum interval between two readings. One is sent even if nothing has changed, for actors that have restarted.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// The settings of the peer cache.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// The path of the file, in an existing folder.
    pub path: PathBuf,
    /// This node, which is never its own peer.
    pub me: Prefix,
    /// The network; endpoints inside its range are dropped.
    pub network: Network,
    /// Decides which endpoints with private addresses are dialled.
    pub private: PrivateEndpoints,
    /// Holds the parameters that set the cache's size.
    pub documents: DocumentStore,
    /// Returns whether the host has a route to an address, so that it can be dialled.
    pub has_route: fn(IpAddr, u32) -> bool,
    /// The user of OpenVPN, whose packets' routes count.
    pub openvpn_uid: u32,
}

/// Returns the number of tunnels that this node dials.
pub(crate) fn tunnels_to_dial(local_limits: LocalLimits, documents: &CurrentDocuments) -> u16 {
    let parameters = documents
        .network()
        .map(|network| network.parameters())
        .unwrap_or_default();
    local_limits.apply_to(parameters).tunnels_to_dial
}

/// The dependencies of the peer cache.
#[derive(Clone)]
pub struct PeerCacheDeps {
    /// The file, this node, its network and its limits.
    pub settings: CacheSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The receivers of each reading.
    pub readers: Vec<Recipient<PeersRead>>,
}

/// The actor that remembers peers.
pub struct PeerCache {
    clock: Clock,
    tunnels: Rc<RefCell<TunnelTable>>,
    published: SharedCandidates,
    readers: Vec<Recipient<PeersRead>>,
    settings: SharedLiveSettings,
    documents: DocumentStore,
    names: NodeNames,
    directory: PeerDirectory,
    private: PrivateEndpoints,
    has_route: Box<dyn Fn(IpAddr) -> bool>,
    /// The reason for each peer that has only endpoints which are not dialled; logged when it changes.
    undialled: BTreeMap<Prefix, PrivateEndpointError>,
    disk: Disk,
    reported_at: Option<Uptime>,
    /// Whether peers are known, and the host has no route to any of them.
    is_offline: bool,
    is_writing: bool,
}

impl PeerCache {
    /// Opens the file, or renames a broken one and starts with an empty one. After a restart of the actor, the store contains the
    /// reading that the earlier one published last.
    pub fn new(deps: PeerCacheDeps) -> Self {
        let PeerCacheDeps {
            settings,
            store,
            readers,
        } = deps;
        let Store {
            clock,
            tunnels,
            candidates: published,
            settings: live_settings,
            names,
            ..
        } = store;

        let (disk, rows) = Disk::open(&settings.path);
        names.restore(disk.read_names());
        let is_dialable =
            |endpoint| wire::endpoints::dialable(endpoint, settings.network, true).is_ok();
        let limits = live_settings.load().limits;
        let mut directory = PeerDirectory::new(
            settings.me,
            tunnels_to_dial(limits, &settings.documents.load()),
        );
        directory.load(rows, is_dialable);
        directory.restore_unstored(&published.load());
        Self {
            clock,
            tunnels,
            published,
            readers,
            settings: live_settings,
            documents: settings.documents,
            names,
            directory,
            private: settings.private,
            has_route: Box::new(move |address| (settings.has_route)(address, settings.openvpn_uid)),
            undialled: BTreeMap::new(),
            disk,
            reported_at: None,
            is_offline: false,
            is_writing: false,
        }
    }

    /// Adapts the size of the cache to the number of tunnels that this node dials.
    fn set_size(&mut self) {
        let limits = self.settings.load().limits;
        self.directory
            .set_tunnels(tunnels_to_dial(limits, &self.documents.load()));
    }

    fn update(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let changed = {
            let mut table = self.tunnels.borrow_mut();
            table.dials.retain(|peer, _| self.directory.knows(*peer));
            let narrow = &mut table.narrow_since;
            narrow.retain(|peer, _| self.directory.knows(*peer));
            self.directory.update_dials(&table.dials)
        };
        let is_due = self
            .reported_at
            .is_none_or(|at| now.since(at) >= REPORT_INTERVAL);
        if changed || is_due || self.is_offline {
            self.report(now);
        }
        if !self.is_writing {
            self.write_changes(ctx);
        }
    }

    /// Writes the changes to disk on another thread, one batch at a time, so that a slow disk delays no actor.
    fn write_changes(&mut self, ctx: &mut Context<Self>) {
        let (changes, names) = (self.directory.take_changes(), self.names.take_changes());
        if changes.is_empty() && names.is_empty() {
            return;
        }
        self.is_writing = true;
        let disk = self.disk.clone();
        let write =
            tokio::task::spawn_blocking(move || (disk.write(&changes, &names), changes, names));
        ctx.spawn(write.into_actor(self).map(|result, cache, _| {
            cache.is_writing = false;
            if let Ok((Err(error), changes, names)) = result {
                tracing::warn!(error = %Chain(&error), "cannot write the peer cache to disk; the write is tried again");
                cache.directory.mark_unwritten(changes);
                cache.names.mark_unwritten(names);
            }
        }));
    }

    /// Sends a reading; every second while the host has no route to any peer, so that dialling goes on as soon as it has.
    fn report(&mut self, at: Uptime) {
        self.reported_at = Some(at);
        let (candidates, unused) = self.split_by_use(self.directory.candidates());
        self.log_undialled(&candidates, &unused);
        self.published.store(Arc::new(candidates.clone()));
        let has_candidates = !candidates.is_empty();
        let candidates = self.retain_routable(candidates);
        self.is_offline = has_candidates && candidates.is_empty();
        let narrow = self.tunnels.borrow().narrow_peers(at);
        let reading = PeersRead {
            at,
            candidates,
            unused,
            narrow,
        };
        self.readers
            .iter()
            .for_each(|reader| offer(reader, reading.clone()));
    }
}

impl PeerCache {
    /// Removes from the candidates the endpoints that this node does not dial, and then the candidates that have none left. Returns
    /// these endpoints, too.
    fn split_by_use(&self, known: Vec<Candidate>) -> (Vec<Candidate>, Vec<UnusedEndpoint>) {
        let (mut candidates, mut unused) = (known, Vec::new());
        for candidate in &mut candidates {
            let peer = candidate.peer;
            // An endpoint on a LAN was learnt from the peer itself, on that LAN.
            let mut others = candidate.endpoints.split_off(candidate.on_lan);
            others.retain(|endpoint| {
                let outcome = self.private.check(*endpoint);
                unused.extend(outcome.err().map(|reason| UnusedEndpoint {
                    peer,
                    endpoint: *endpoint,
                    reason,
                }));
                outcome.is_ok()
            });
            // UDP comes before TCP. Of several endpoints of one transport the one in our own LAN is the shortest path.
            let good = self.directory.good_endpoint(peer);
            others.sort_by_key(|endpoint| {
                let rank = self.private.rank(*endpoint);
                (endpoint.transport, good != Some(*endpoint), rank)
            });
            candidate.endpoints.extend(others);
        }
        candidates.retain(|candidate| !candidate.endpoints.is_empty());
        (candidates, unused)
    }

    /// Removes the endpoints to which the host has no route, such as all IPv6 endpoints if it has IPv4 only. They are published
    /// nevertheless, since other nodes may have one.
    fn retain_routable(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        for candidate in &mut candidates {
            candidate.retain_endpoints(|endpoint| (self.has_route)(endpoint.address.ip()));
        }
        candidates.retain(|candidate| !candidate.endpoints.is_empty());
        candidates
    }

    /// Logs which peers have become impossible to dial because of private addresses, and which have become possible again.
    fn log_undialled(&mut self, candidates: &[Candidate], unused: &[UnusedEndpoint]) {
        let is_candidate = |peer: Prefix| {
            candidates
                .binary_search_by_key(&peer, |candidate| candidate.peer)
                .is_ok()
        };
        let undialled: BTreeMap<_, _> = unused
            .iter()
            .filter(|unused| !is_candidate(unused.peer))
            .map(|unused| (unused.peer, unused.reason))
            .collect();
        let names = self.names.load();
        for (peer, reason) in &undialled {
            if self.undialled.get(peer) != Some(reason) {
                let name = names.get(*peer).map(tracing::field::display);
                tracing::info!(%peer, name, %reason, "peer cannot be dialled: only private endpoints of it are known");
            }
        }
        for peer in self.undialled.keys() {
            if !undialled.contains_key(peer) && is_candidate(*peer) {
                let name = names.get(*peer).map(tracing::field::display);
                tracing::info!(%peer, name, "peer can be dialled now");
            }
        }
        self.undialled = undialled;
    }
}

impl Actor for PeerCache {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.update(ctx);
        ctx.run_interval(UPDATE_INTERVAL, Self::update);
    }
}

impl Handler<PeersReported> for PeerCache {
    type Result = ();

    fn handle(&mut self, reported: PeersReported, _: &mut Self::Context) {
        let PeersReported {
            at,
            source,
            mut peers,
        } = reported;
        if source != PeerSource::Registry && !self.private.are_all_allowed() {
            self.directory.remove_unconfirmed(&mut peers);
        }
        if self.directory.apply_reports(source, at, peers) {
            self.report(self.clock.now());
        }
    }
}

impl Handler<LanRead> for PeerCache {
    type Result = ();

    fn handle(&mut self, read: LanRead, _: &mut Self::Context) {
        let now = self.clock.now();
        if self.directory.set_lan(now, &read.nodes) {
            self.report(now);
        }
    }
}

impl Handler<SettingsChanged> for PeerCache {
    type Result = ();

    fn handle(&mut self, _: SettingsChanged, _: &mut Self::Context) {
        self.set_size();
    }
}

impl Handler<DocumentsChanged> for PeerCache {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, _: &mut Self::Context) {
        self.set_size();
        changed
            .revoked
            .iter()
            .for_each(|node| self.names.forget(*node));
        let removed = changed
            .revoked
            .iter()
            .filter(|peer| self.directory.remove(**peer));
        if removed.count() > 0 {
            self.report(self.clock.now());
        }
    }
}

impl Handler<RoutesRead> for PeerCache {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, _: &mut Self::Context) {
        let Some(table) = read.table else { return };
        let nodes: BTreeSet<_> = table.routes.iter().map(|route| route.node).collect();
        self.directory.note_node_count(nodes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use membership::peer_api::PeerReport;
    use tokio::sync::mpsc;

    struct FakeSink(mpsc::UnboundedSender<PeersRead>);

    impl Actor for FakeSink {
        type Context = Context<Self>;
    }

    impl Handler<PeersRead> for FakeSink {
        type Result = ();

        fn handle(&mut self, reading: PeersRead, _: &mut Self::Context) {
            let _ = self.0.send(reading);
        }
    }

    fn peer(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    #[track_caller]
    fn check(reading: &PeersRead, expected: &[(u32, u32)]) {
        let seen: Vec<_> = reading
            .candidates
            .iter()
            .map(|c| (c.peer, c.failures))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(number, failures)| (peer(*number), *failures))
            .collect();
        assert_eq!(seen, expected);
    }

    /// Starts a cache on that file; returns it with its readings and its table of tunnels.
    fn start_cache(
        path: &std::path::Path,
    ) -> (
        actix::Addr<PeerCache>,
        mpsc::UnboundedReceiver<PeersRead>,
        Rc<RefCell<TunnelTable>>,
    ) {
        let settings = CacheSettings {
            path: path.to_owned(),
            me: peer(0),
            network: Network::new("2001:db8:42::/48".parse().unwrap()).unwrap(),
            private: PrivateEndpoints::default(),
            documents: DocumentStore::default(),
            has_route: |address, _| address.is_ipv4(),
            openvpn_uid: 0,
        };
        let tunnels = Rc::new(RefCell::new(TunnelTable::default()));
        let (sink, readings) = mpsc::unbounded_channel();
        let readers = vec![FakeSink(sink).start().recipient()];
        let store = Store {
            tunnels: Rc::clone(&tunnels),
            ..Store::new(Clock::boottime(), settings.me)
        };
        let cache = PeerCache::new(PeerCacheDeps {
            settings,
            store,
            readers,
        });
        (cache.start(), readings, tunnels)
    }

    #[actix::test]
    async fn udp_is_dialled_before_tcp_also_after_tcp_worked() {
        let folder = tempfile::tempdir().unwrap();
        let (actor, mut readings, tunnels) = start_cache(&folder.path().join("peers.db"));
        let (udp, tcp) = ("udp:45.67.0.9:1194", "tcp:45.67.0.9:1194");
        let endpoints = [udp, tcp].map(|text| text.parse().unwrap());
        actor.do_send(PeersReported {
            at: Uptime::from_secs(1),
            source: PeerSource::Registry,
            peers: vec![PeerReport {
                peer: peer(9),
                endpoints: endpoints.to_vec(),
                transit_cost: None,
            }],
        });
        while readings.recv().await.unwrap().candidates.is_empty() {}
        {
            let dials = &mut tunnels.borrow_mut().dials;
            let history = dials.entry(peer(9)).or_default();
            (history.good, history.failures) = (Some(endpoints[1]), 1);
        }
        let candidate = loop {
            let reading = readings.recv().await.unwrap();
            let mut known = reading.candidates.into_iter();
            if let Some(known) = known.find(|known| known.failures == 1) {
                break known;
            }
        };
        assert_eq!(candidate.endpoints, endpoints);
    }

    #[actix::test]
    async fn dials_of_peers_that_the_cache_dropped_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (actor, mut readings, tunnels) = start_cache(&folder.path().join("peers.db"));
        let report = |number| PeerReport {
            peer: peer(number),
            endpoints: vec!["udp:45.67.0.1:1194".parse().unwrap()],
            transit_cost: None,
        };
        let dialled = 3 * u32::try_from(directory::MAX_PEERS).unwrap();
        actor.do_send(PeersReported {
            at: Uptime::from_secs(1),
            source: PeerSource::Itself,
            peers: (1..=dialled).map(report).collect(),
        });
        while readings.recv().await.unwrap().candidates.is_empty() {}
        for number in 1..=dialled {
            let dials = &mut tunnels.borrow_mut().dials;
            dials.entry(peer(number)).or_default().failures = 1;
        }
        let kept = loop {
            let reading = readings.recv().await.unwrap();
            if reading
                .candidates
                .iter()
                .any(|candidate| candidate.failures == 1)
            {
                break reading.candidates;
            }
        };
        assert!(kept.len() <= directory::MAX_PEERS);
        let dials = &tunnels.borrow().dials;
        assert!(
            dials
                .keys()
                .eq(kept.iter().map(|candidate| &candidate.peer))
        );
    }

    #[actix::test]
    async fn a_private_endpoint_is_believed_from_the_registry_and_not_from_the_peer() {
        let folder = tempfile::tempdir().unwrap();
        let (actor, mut readings, _) = start_cache(&folder.path().join("peers.db"));
        check(&readings.recv().await.unwrap(), &[]);
        let report = |source, seconds| PeersReported {
            at: Uptime::from_secs(seconds),
            source,
            peers: vec![PeerReport {
                peer: peer(7),
                endpoints: ["udp:45.67.0.1:1194", "udp:192.168.1.2:1194"]
                    .map(|text| text.parse().unwrap())
                    .to_vec(),
                transit_cost: None,
            }],
        };
        // In neither case this node dials it, since none of its addresses is near.
        for (source, seconds, unused) in
            [(PeerSource::Itself, 1, 0), (PeerSource::Registry, 9_999, 1)]
        {
            actor.do_send(report(source, seconds));
            let reading = readings.recv().await.unwrap();
            check(&reading, &[(7, 0)]);
            assert_eq!(reading.candidates[0].endpoints.len(), 1);
            assert_eq!(reading.unused.len(), unused, "{:?}", reading.unused);
        }
    }

    #[actix::test]
    async fn endpoints_to_which_the_host_has_no_route_are_not_dialled() {
        let folder = tempfile::tempdir().unwrap();
        let (actor, mut readings, _) = start_cache(&folder.path().join("peers.db"));
        check(&readings.recv().await.unwrap(), &[]);
        let peers = [
            (7, vec!["udp:[2a0c:5c80::7]:1194", "udp:45.67.0.1:1194"]),
            (8, vec!["udp:[2a0c:5c80::8]:1194"]),
        ];
        let report = |(number, endpoints): (u32, Vec<&str>)| PeerReport {
            peer: peer(number),
            endpoints: endpoints
                .into_iter()
                .map(|text| text.parse().unwrap())
                .collect(),
            transit_cost: None,
        };
        actor.do_send(PeersReported {
            at: Uptime::from_secs(1),
            source: PeerSource::Registry,
            peers: peers.into_iter().map(report).collect(),
        });
        // The host of this cache has IPv4 only.
        let reading = readings.recv().await.unwrap();
        check(&reading, &[(7, 0)]);
        let endpoints = &reading.candidates[0].endpoints;
        assert_eq!(*endpoints, ["udp:45.67.0.1:1194".parse().unwrap()]);
    }

    #[actix::test]
    async fn a_report_is_published_at_once_and_loaded_by_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let (actor, mut readings, tunnels) = start_cache(&path);
        check(&readings.recv().await.unwrap(), &[]);
        let endpoints = vec!["udp:45.67.0.1:1194".parse().unwrap()];
        let peers = vec![PeerReport {
            peer: peer(7),
            endpoints,
            transit_cost: None,
        }];
        actor.do_send(PeersReported {
            at: Uptime::from_secs(1),
            source: PeerSource::Itself,
            peers,
        });
        check(&readings.recv().await.unwrap(), &[(7, 0)]);
        tunnels
            .borrow_mut()
            .dials
            .entry(peer(7))
            .or_default()
            .failures = 2;
        check(&readings.recv().await.unwrap(), &[(7, 2)]);

        let next_run = async {
            loop {
                let (_, mut readings, _) = start_cache(&path);
                let reading = readings.recv().await.unwrap();
                if reading
                    .candidates
                    .first()
                    .is_some_and(|candidate| candidate.failures == 2)
                {
                    return reading;
                }
            }
        };
        let reading = tokio::time::timeout(Duration::from_secs(10), next_run)
            .await
            .unwrap();
        check(&reading, &[(7, 2)]);
        assert_eq!(reading.candidates[0].confirmed_at, None);
    }
}
