//! Keeps the two signed documents (network, revocations): accepts newer ones, stores them, and
//! passes them on to the neighbours at once.
//!
//! Eight random nodes on average hold a request open at the registry, which answers when a
//! document changes. A node that gets a newer document posts it to its neighbours, and they to
//! theirs. Versions are also compared with each new neighbour, and now and then with an old one,
//! so that nodes that were off catch up.

mod fetching;

use crate::messages::{DocumentOffered, DocumentsChanged, RoutesRead, VersionsReported};
use crate::store::Store;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use membership::{
    documents::{CurrentDocuments, DocumentFiles, DocumentStore, UpdateOutcome},
    peer_api::{PeerApiClient, PeerApiError, SharedNodeDocument},
    registry_api::{RegistryApiClient, RegistryApiError},
};
use os::clock::Clock;
use os::randomness::Randomness;
use policies::{names::Prefix, units::Uptime};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use wire::errors::Chain;
use wire::{peer::NodeDocument, registry::DocumentKind, signed::SignedDocument};

/// The version of this software.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// So many nodes, on the average, hold a question at the registry open.
const LISTENERS: usize = 8;
/// How long the registry holds it, in seconds; at most 60.
const LONG_POLL_S: u64 = 50;
/// A node that holds no question open throws its dice again after this, ± 50 %.
const DICE: Duration = Duration::from_secs(60);
/// The first wait after a registry that did not answer; it doubles up to [`DICE`].
const FIRST: Duration = Duration::from_secs(1);
/// Versions are compared with one neighbour this often, ± 50 %.
const COMPARE: Duration = Duration::from_secs(30);
/// A neighbour that did not answer is tried again after this, so many times.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Number of tries, [`RETRY_DELAY`] apart.
const TRIES: u32 = 4;
/// One peer's documents are looked at so often at most: a verification costs a fifth of a millisecond.
const PACE: Duration = Duration::from_millis(250);
/// Documents that wait for the disk.
const MAX_WAITING_DOCUMENTS: usize = 8;

/// The settings of the documents actor.
#[derive(Clone, Debug)]
pub struct DocumentSettings {
    /// Serial number of our own certificate, hex.
    pub serial: String,
    /// The paths of the stored documents.
    pub files: DocumentFiles,
}

/// The dependencies of the documents actor.
#[derive(Clone)]
pub struct DocumentsDeps {
    /// Paths of the files, and our serial number.
    pub settings: DocumentSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The client of the registry.
    pub registry: RegistryApiClient,
    /// The client of the peer API, by which documents spread.
    pub peers: PeerApiClient,
    /// The receivers of changes.
    pub readers: Vec<Recipient<DocumentsChanged>>,
}

/// The actor that keeps the signed documents.
pub struct Documents {
    settings: DocumentSettings,
    clock: Clock,
    random: Randomness,
    registry: RegistryApiClient,
    peer_api: PeerApiClient,
    documents: DocumentStore,
    /// The document about this node, which states the versions that it holds.
    node: SharedNodeDocument,
    changed: Vec<Recipient<DocumentsChanged>>,
    neighbours: BTreeSet<Prefix>,
    nodes: usize,
    looked_at: BTreeMap<Prefix, Uptime>,
    waiting: VecDeque<(SignedDocument, Option<Prefix>)>,
    writing: bool,
    fetching: BTreeSet<u64>,
    wait: Duration,
}

impl Documents {
    /// Goes on from what is held.
    pub fn new(deps: DocumentsDeps) -> Self {
        let DocumentsDeps {
            settings,
            store,
            registry,
            peers: peer_api,
            readers: changed,
        } = deps;
        let Store {
            clock,
            random,
            documents,
            node_document: node,
            ..
        } = store;

        Self {
            settings,
            clock,
            random,
            registry,
            peer_api,
            documents,
            node,
            changed,
            neighbours: BTreeSet::new(),
            nodes: 0,
            looked_at: BTreeMap::new(),
            waiting: VecDeque::new(),
            writing: false,
            fetching: BTreeSet::new(),
            wait: FIRST,
        }
    }

    /// Takes a document, if it is news. `from`: who gave it; `None`: the registry.
    fn take(&mut self, document: SignedDocument, from: Option<Prefix>, ctx: &mut Context<Self>) {
        let same = [DocumentKind::Network, DocumentKind::Revocations];
        let documents = self.documents.load_full();
        if same
            .into_iter()
            .filter_map(|kind| documents.signed(kind))
            .any(|known| **known == document)
        {
            return;
        }
        if self.writing {
            self.waiting.truncate(MAX_WAITING_DOCUMENTS - 1);
            return self.waiting.push_back((document, from));
        }
        let now = self.clock.now();
        if let Some(peer) = from {
            self.looked_at.retain(|_, at| now.since(*at) < PACE);
            if self.looked_at.insert(peer, now).is_some() {
                tracing::debug!(%peer, "a peer gives documents too often");
                return;
            }
        }
        match documents.take(&document) {
            Ok(UpdateOutcome::New(kind, next)) => self.write(kind, Arc::new(*next), from, ctx),
            Ok(UpdateOutcome::Same) => {}
            Ok(UpdateOutcome::Older(kind)) => {
                if let Some(peer) = from {
                    self.post(peer, kind, TRIES, ctx);
                }
            }
            Err(error) => {
                let from = from.map_or_else(|| "the registry".to_owned(), |peer| peer.to_string());
                tracing::warn!(from, error = %Chain(&error), "a signed document is not believed");
            }
        }
    }

    /// On disk before it counts: a version once seen is never gone back from.
    fn write(
        &mut self,
        kind: DocumentKind,
        next: Arc<CurrentDocuments>,
        from: Option<Prefix>,
        ctx: &mut Context<Self>,
    ) {
        self.writing = true;
        let (files, documents) = (self.settings.files.clone(), Arc::clone(&next));
        let write = tokio::task::spawn_blocking(move || files.write(kind, &documents));
        ctx.spawn(write.into_actor(self).map(move |done, documents, ctx| {
            if let Ok(Err(error)) = done {
                tracing::error!(error = %Chain(&error), "a signed document is not on disk; it counts all the same");
            }
            documents.writing = false;
            documents.publish(kind, next, from, ctx);
            if let Some((document, from)) = documents.waiting.pop_front() {
                documents.take(document, from, ctx);
            }
        }));
    }

    fn publish(
        &mut self,
        kind: DocumentKind,
        next: Arc<CurrentDocuments>,
        from: Option<Prefix>,
        ctx: &mut Context<Self>,
    ) {
        let before = self.documents.swap(Arc::clone(&next));
        let version = next.version(kind);
        let source = from.map_or_else(|| "registry".to_owned(), |peer| peer.to_string());
        tracing::info!(document = ?kind, version, from = source, "newer signed document accepted");
        self.publish_versions();
        if kind == DocumentKind::Network {
            self.warn_if_outdated();
        }
        if next.is_ca_revoked(&self.settings.serial) && !before.is_ca_revoked(&self.settings.serial)
        {
            tracing::error!(
                "this node's certificate is revoked: nobody lets it in any more; join again"
            );
        }
        let revoked = next.revoked_since(&before);
        let changed = DocumentsChanged {
            kind: Some(kind),
            documents: next,
            revoked,
        };
        self.changed
            .iter()
            .for_each(|to| to.do_send(changed.clone()));
        for peer in self.neighbours.clone() {
            if Some(peer) != from {
                self.post(peer, kind, TRIES, ctx);
            }
        }
    }

    /// Older software than the network asks for keeps running, and logs a warning.
    fn warn_if_outdated(&self) {
        let documents = self.documents.load();
        let network = documents.network();
        if let Some(least) = network.and_then(|network| network.required_release_above(VERSION)) {
            tracing::warn!(
                least,
                ours = VERSION,
                "the network asks for newer software: upgrade warren"
            );
        }
    }

    fn publish_versions(&self) {
        let documents = self.documents.load();
        let (network_version, revocations_version) = (
            documents.version(DocumentKind::Network),
            documents.version(DocumentKind::Revocations),
        );
        self.node.rcu(|node| NodeDocument {
            network_version,
            revocations_version,
            ..(**node).clone()
        });
    }

    /// Gives a neighbour what we hold; tries `tries` times.
    fn post(&mut self, peer: Prefix, kind: DocumentKind, tries: u32, ctx: &mut Context<Self>) {
        let Some(document) = self.documents.load().signed(kind).cloned() else {
            return;
        };
        let peer_api = self.peer_api.clone();
        let post = async move { peer_api.post(peer, kind, &document).await };
        ctx.spawn(post.into_actor(self).map(move |done, documents, ctx| {
            let Err(error) = done else { return };
            tracing::debug!(%peer, document = ?kind, error = %Chain(&error), "signed document not passed on");
            if tries > 1 && documents.neighbours.contains(&peer) {
                ctx.run_later(RETRY_DELAY, move |documents, ctx| documents.post(peer, kind, tries - 1, ctx));
            }
        }));
    }
}

impl Actor for Documents {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.publish_versions();
        self.warn_if_outdated();
        let changed = DocumentsChanged {
            kind: None,
            documents: self.documents.load_full(),
            revoked: BTreeSet::new(),
        };
        self.changed
            .iter()
            .for_each(|to| to.do_send(changed.clone()));
        self.listen(ctx);
        ctx.run_later(self.random.around(COMPARE), Self::compare_with_one);
    }
}

impl Handler<DocumentOffered> for Documents {
    type Result = ();

    fn handle(&mut self, offered: DocumentOffered, ctx: &mut Self::Context) {
        self.take(offered.document, Some(offered.from), ctx);
    }
}

impl Handler<VersionsReported> for Documents {
    type Result = ();

    fn handle(&mut self, reported: VersionsReported, ctx: &mut Self::Context) {
        let documents = self.documents.load_full();
        // A lower one may be that of a later CA.
        if reported.network != documents.version(DocumentKind::Network) {
            self.fetch(0, "/v1/network", ctx);
        }
        if reported.revocations != documents.version(DocumentKind::Revocations) {
            self.fetch(1, "/v1/revocations", ctx);
        }
    }
}

impl Handler<RoutesRead> for Documents {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, ctx: &mut Self::Context) {
        let Some(table) = read.table else { return };
        let nodes: BTreeSet<Prefix> = table.routes.iter().map(|route| route.node).collect();
        self.nodes = nodes.len().saturating_add(1);
        let neighbours: BTreeSet<Prefix> = table
            .neighbours
            .iter()
            .filter(|one| one.cost < u16::MAX)
            .map(|one| one.peer)
            .collect();
        let old = std::mem::replace(&mut self.neighbours, neighbours);
        for peer in self.neighbours.clone().difference(&old) {
            self.compare(*peer, TRIES, ctx);
        }
    }
}
