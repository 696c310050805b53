//! Remembers where peers can be dialled, over restarts, and publishes it.
//!
//! What is believed and what is forgotten is decided by [`directory`]; the file is [`disk`]'s. How dialling
//! went comes from the store of tunnels. A node with a broken or full disk goes on from memory.

pub mod directory;
pub mod disk;

use crate::store::SharedCandidates;
use crate::store::Store;
use crate::{
    messages::{DocumentsChanged, PeersRead, PeersReported, RoutesRead, offer},
    store::{LocalLimits, TunnelTable},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use directory::PeerDirectory;
use disk::Disk;
use membership::documents::{CurrentDocuments, DocumentStore, PrivateEndpoints};
use os::clock::Clock;
use policies::{names::Prefix, units::Uptime};
use std::{cell::RefCell, collections::BTreeSet, path::PathBuf, rc::Rc, sync::Arc, time::Duration};
use wire::errors::Chain;
use wire::overlay::Network;

/// How often dials are looked at and changes are written.
const TICK: Duration = Duration::from_secs(1);
/// Interval at which the reading is sent even if nothing changed, for restarted actors.
const REPEAT: Duration = Duration::from_secs(5);

/// The settings of the peer cache.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// The file; its folder exists.
    pub path: PathBuf,
    /// Who we are: never a peer of our own.
    pub me: Prefix,
    /// Endpoints inside it are never kept.
    pub network: Network,
    /// Keep private addresses that the file holds.
    pub private: PrivateEndpoints,
    /// The network's parameters, of which the size follows, lie there.
    pub documents: DocumentStore,
    /// The local limits, which lower the network's parameters.
    pub local_limits: LocalLimits,
}

/// Returns the number of tunnels that we dial.
fn tunnels(local_limits: LocalLimits, documents: &CurrentDocuments) -> u16 {
    let parameters = documents
        .network()
        .map(|network| network.parameters())
        .unwrap_or_default();
    local_limits.of(parameters).tunnels_to_dial
}

/// The dependencies of the peer cache.
#[derive(Clone)]
pub struct PeerCacheDeps {
    /// The file, this node and its limits.
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
    shared: SharedCandidates,
    to: Vec<Recipient<PeersRead>>,
    local_limits: LocalLimits,
    directory: PeerDirectory,
    disk: Disk,
    reported_at: Option<Uptime>,
    writing: bool,
}

impl PeerCache {
    /// Opens the file, or sets a broken one aside. `shared` holds the last reading of a predecessor,
    /// if there was one in this run.
    pub fn new(deps: PeerCacheDeps) -> Self {
        let PeerCacheDeps {
            settings,
            store,
            readers: to,
        } = deps;
        let Store {
            clock,
            tunnels,
            candidates: shared,
            ..
        } = store;

        let (disk, rows) = Disk::open(&settings.path);
        let private = settings.private.allowed();
        let dialable =
            |endpoint| wire::endpoints::dialable(endpoint, settings.network, private).is_ok();
        let local_limits = settings.local_limits;
        let mut directory = PeerDirectory::new(
            settings.me,
            self::tunnels(local_limits, &settings.documents.load()),
        );
        directory.remember(rows, dialable);
        directory.resume(&shared.load());
        Self {
            clock,
            tunnels,
            shared,
            to,
            local_limits,
            directory,
            disk,
            reported_at: None,
            writing: false,
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let changed = self.directory.dialled(&self.tunnels.borrow().dials);
        let is_due = self.reported_at.is_none_or(|at| now.since(at) >= REPEAT);
        if changed || is_due {
            self.report(now);
        }
        if !self.writing {
            self.write(ctx);
        }
    }

    /// Writes off this thread, one batch at a time, so that a slow disk delays nobody.
    fn write(&mut self, ctx: &mut Context<Self>) {
        let changes = self.directory.changes();
        if changes.is_empty() {
            return;
        }
        self.writing = true;
        let disk = self.disk.clone();
        let write = tokio::task::spawn_blocking(move || (disk.write(&changes), changes));
        ctx.spawn(write.into_actor(self).map(|done, cache, _| {
            cache.writing = false;
            if let Ok((Err(error), changes)) = done {
                tracing::warn!(error = %Chain(&error), "peers not written to disk");
                cache.directory.unwritten(changes);
            }
        }));
    }

    fn report(&mut self, at: Uptime) {
        self.reported_at = Some(at);
        let candidates = self.directory.candidates();
        self.shared.store(Arc::new(candidates.clone()));
        let reading = PeersRead { at, candidates };
        self.to.iter().for_each(|to| offer(to, reading.clone()));
    }
}

impl Actor for PeerCache {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tick(ctx);
        ctx.run_interval(TICK, Self::tick);
    }
}

impl Handler<PeersReported> for PeerCache {
    type Result = ();

    fn handle(&mut self, reported: PeersReported, _: &mut Self::Context) {
        if self
            .directory
            .take(reported.source, reported.at, reported.peers)
        {
            self.report(self.clock.now());
        }
    }
}

impl Handler<DocumentsChanged> for PeerCache {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, _: &mut Self::Context) {
        self.directory
            .set_tunnels(tunnels(self.local_limits, &changed.documents));
        let forgotten = changed
            .revoked
            .iter()
            .filter(|peer| self.directory.remove(**peer));
        if forgotten.count() > 0 {
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
    use crate::messages::PeerSource;
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

    /// A cache on that file, its readings, and the tunnels' store.
    fn cache(
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
            local_limits: LocalLimits {
                tunnels_to_dial: 10,
                max_accepted: 10,
                distances: 0,
            },
        };
        let tunnels = Rc::new(RefCell::new(TunnelTable::default()));
        let (sink, readings) = mpsc::unbounded_channel();
        let to = vec![FakeSink(sink).start().recipient()];
        let store = Store {
            tunnels: Rc::clone(&tunnels),
            ..Store::new(Clock::boottime(), settings.me)
        };
        let cache = PeerCache::new(PeerCacheDeps {
            settings,
            store,
            readers: to,
        });
        (cache.start(), readings, tunnels)
    }

    #[actix::test]
    async fn a_report_is_published_at_once_and_known_to_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let (actor, mut readings, tunnels) = cache(&path);
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
                let (_, mut readings, _) = cache(&path);
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
