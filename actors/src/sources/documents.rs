//! Keeps the two signed documents (network document, revocation list): accepts newer ones, stores them, and passes them on to
//! the neighbours at once.
//!
//! For each document, on average eight random nodes have a long poll open at the registry, which answers when the document changes. A node that
//! gets a newer document posts it to its neighbours, and they post it to theirs. Each node also compares versions with
//! every new neighbour, and regularly with a random one, so that nodes that were offline catch up.

mod fetching;
mod rewriting;

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
use policies::{
    document_intake::{
        Attempts, COMPARE_INTERVAL, DocumentIntake, MAX_POLL_RETRY_DELAY, PollDelays, PollOutcome,
    },
    names::Prefix,
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use wire::errors::Chain;
use wire::{peer::NodeDocument, registry::DocumentKind, signed::SignedDocument};

/// The version of this software.
const SOFTWARE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// Average number of nodes with an open long poll at the registry.
const MEAN_LISTENERS: usize = 8;
/// Time after which the registry answers a long poll without news, in seconds; the registry allows at most 60.
const LONG_POLL_S: u64 = 50;
/// Interval at which a node without an open long poll draws again whether to open one, ± 50 %.
const LISTENER_REDRAW_INTERVAL: Duration = MAX_POLL_RETRY_DELAY;

/// The settings of the documents actor.
#[derive(Clone, Debug)]
pub struct DocumentSettings {
    /// The serial number of this node's certificate, in hex.
    pub serial: String,
    /// The paths at which the documents are stored.
    pub files: DocumentFiles,
    /// Whether this node is metered, so that it leaves long polls and regular comparisons to others.
    pub is_metered: bool,
}

/// The dependencies of the documents actor.
#[derive(Clone)]
pub struct DocumentsDeps {
    /// The paths of the files, and the serial number of this node's certificate.
    pub settings: DocumentSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The client of the registry.
    pub registry: RegistryApiClient,
    /// The client of the peer API, through which nodes pass documents on.
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
    /// The document about this node, which states the versions of its current documents.
    node_document: SharedNodeDocument,
    readers: Vec<Recipient<DocumentsChanged>>,
    neighbours: BTreeSet<Prefix>,
    /// The number of nodes in babeld's table, with this one.
    node_count: Rc<Cell<usize>>,
    intake: DocumentIntake<SignedDocument>,
    /// The kinds whose current document could not be written to disk.
    unwritten: BTreeSet<DocumentKind>,
    /// The kinds of which the registry has served an older document than the current one.
    older_at_registry: BTreeSet<DocumentKind>,
    /// The kinds of document for which a request to the registry is in flight.
    fetching: BTreeSet<DocumentKind>,
    /// The delays between the long polls for each kind of document.
    poll_delays: BTreeMap<DocumentKind, PollDelays>,
}

impl Documents {
    /// Builds the actor; it uses the current documents in the store.
    pub fn new(deps: DocumentsDeps) -> Self {
        let DocumentsDeps {
            settings,
            store,
            registry,
            peers: peer_api,
            readers,
        } = deps;
        let Store {
            clock,
            random,
            documents,
            node_document,
            node_count,
            ..
        } = store;

        Self {
            settings,
            clock,
            random,
            registry,
            peer_api,
            documents,
            node_document,
            readers,
            neighbours: BTreeSet::new(),
            node_count,
            intake: DocumentIntake::default(),
            unwritten: BTreeSet::new(),
            older_at_registry: BTreeSet::new(),
            fetching: BTreeSet::new(),
            poll_delays: BTreeMap::new(),
        }
    }

    /// Verifies a document now, or once those before it are on disk. `from` is the peer that sent it; `None` means the registry.
    fn handle_document(
        &mut self,
        document: SignedDocument,
        from: Option<Prefix>,
        ctx: &mut Context<Self>,
    ) {
        if self.documents.load().is_current(&document) {
            return;
        }
        if let Some((document, from)) = self.intake.offer(document, from, self.clock.now()) {
            self.verify_document(document, from, ctx);
        }
    }

    /// Accepts a document if it is newer, and answers an older one with the current one.
    fn verify_document(
        &mut self,
        document: SignedDocument,
        from: Option<Prefix>,
        ctx: &mut Context<Self>,
    ) {
        let documents = self.documents.load_full();
        match documents.accept_document(&document) {
            Ok(UpdateOutcome::New(kind, next)) => {
                self.store_document(kind, Arc::new(*next), from, ctx)
            }
            Ok(UpdateOutcome::Same) => {}
            Ok(UpdateOutcome::Older(kind)) => {
                if let Some(peer) = from {
                    self.post_document(peer, kind, Attempts::until_answered(), ctx);
                } else if self.older_at_registry.insert(kind) {
                    tracing::warn!(
                        document = ?kind,
                        current = documents.version(kind),
                        "the registry serves an older signed document, which is ignored: if its database is a copy, put it back by warren registry restore"
                    );
                }
            }
            Err(error) => {
                let from = from.map_or_else(|| "the registry".to_owned(), |peer| peer.to_string());
                tracing::warn!(from, error = %Chain(&error), "signed document rejected");
            }
        }
    }

    /// Writes a document to disk before it becomes current, so that a restart never returns to an older version.
    fn store_document(
        &mut self,
        kind: DocumentKind,
        next: Arc<CurrentDocuments>,
        from: Option<Prefix>,
        ctx: &mut Context<Self>,
    ) {
        self.intake.on_write_started();
        let (files, documents) = (self.settings.files.clone(), Arc::clone(&next));
        let write = tokio::task::spawn_blocking(move || files.write(kind, &documents));
        ctx.spawn(write.into_actor(self).map(move |result, documents, ctx| {
            documents.publish(kind, next, from, ctx);
            match result {
                Ok(Err(error)) => {
                    tracing::error!(error = %Chain(&error), "cannot write a signed document to disk; it is used all the same, and written again every 10 s");
                    documents.write_again_later(kind, ctx);
                }
                Ok(Ok(())) | Err(_) => {
                    documents.unwritten.remove(&kind);
                }
            }
            documents.finish_write(ctx);
        }));
    }

    /// Makes a document current, and passes it on to all neighbours but `from`.
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
        if next.is_serial_revoked(&self.settings.serial)
            && !before.is_serial_revoked(&self.settings.serial)
        {
            tracing::error!(
                "this node's certificate is revoked: no other node accepts it any more; join again with an invitation: warren join --replace -"
            );
        }
        let revoked = next.revoked_since(&before);
        let changed = DocumentsChanged {
            kind: Some(kind),
            documents: next,
            revoked,
        };
        self.readers
            .iter()
            .for_each(|reader| reader.do_send(changed.clone()));
        for peer in self.neighbours.clone() {
            if Some(peer) != from {
                self.post_document(peer, kind, Attempts::until_answered(), ctx);
            }
        }
    }

    /// Logs a warning if the network requires newer software. The node keeps running.
    fn warn_if_outdated(&self) {
        let documents = self.documents.load();
        let network = documents.network();
        if let Some(required) =
            network.and_then(|network| network.required_release_above(SOFTWARE_VERSION))
        {
            tracing::warn!(
                required,
                installed = SOFTWARE_VERSION,
                "the network requires newer software: upgrade warren"
            );
        }
    }

    /// States the versions of the current documents in the document about this node.
    fn publish_versions(&self) {
        let documents = self.documents.load();
        let (network_version, revocations_version) = (
            documents.version(DocumentKind::Network),
            documents.version(DocumentKind::Revocations),
        );
        self.node_document.rcu(|node| NodeDocument {
            network_version,
            revocations_version,
            ..(**node).clone()
        });
    }

    /// Posts the current document of a kind to a peer; a failed call is repeated while the peer is a neighbour.
    fn post_document(
        &mut self,
        peer: Prefix,
        kind: DocumentKind,
        attempts: Attempts,
        ctx: &mut Context<Self>,
    ) {
        let documents = self.documents.load();
        let Some(document) = documents.signed_document(kind).cloned() else {
            return;
        };
        let version = documents.version(kind);
        let peer_api = self.peer_api.clone();
        let call = async move { peer_api.post_signed_document(peer, kind, &document).await };
        ctx.spawn(call.into_actor(self).map(move |result, documents, ctx| {
            let Err(error) = result else { return };
            tracing::debug!(%peer, document = ?kind, error = %Chain(&error), "signed document not passed on");
            let is_neighbour = documents.neighbours.contains(&peer);
            if let Some((delay, next)) = attempts.after_failure(is_neighbour) {
                ctx.run_later(delay, move |documents, ctx| {
                    // A newer document has been posted with attempts of its own.
                    if documents.documents.load().version(kind) == version {
                        documents.post_document(peer, kind, next, ctx);
                    }
                });
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
        self.readers
            .iter()
            .for_each(|reader| reader.do_send(changed.clone()));
        if self.settings.is_metered {
            return;
        }
        for kind in [DocumentKind::Network, DocumentKind::Revocations] {
            self.long_poll_or_wait(kind, ctx);
        }
        ctx.run_later(
            self.random.around(COMPARE_INTERVAL),
            Self::compare_with_random_neighbour,
        );
    }
}

impl Handler<DocumentOffered> for Documents {
    type Result = ();

    fn handle(&mut self, offered: DocumentOffered, ctx: &mut Self::Context) {
        self.handle_document(offered.document, Some(offered.from), ctx);
    }
}

impl Handler<VersionsReported> for Documents {
    type Result = ();

    fn handle(&mut self, reported: VersionsReported, ctx: &mut Self::Context) {
        let documents = self.documents.load_full();
        // A different version may be newer although it is lower: that of a later intermediate CA.
        if reported.network != documents.version(DocumentKind::Network) {
            self.fetch_from_registry(DocumentKind::Network, ctx);
        }
        if reported.revocations != documents.version(DocumentKind::Revocations) {
            self.fetch_from_registry(DocumentKind::Revocations, ctx);
        }
    }
}

impl Handler<RoutesRead> for Documents {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, ctx: &mut Self::Context) {
        let Some(table) = read.table else { return };
        let nodes: BTreeSet<Prefix> = table.routes.iter().map(|route| route.node).collect();
        self.node_count.set(nodes.len().saturating_add(1));
        let neighbours: BTreeSet<Prefix> = table
            .neighbours
            .iter()
            .filter(|neighbour| neighbour.cost < u16::MAX)
            .map(|neighbour| neighbour.peer)
            .collect();
        let old = std::mem::replace(&mut self.neighbours, neighbours);
        for peer in self.neighbours.clone().difference(&old) {
            self.compare_versions(*peer, Attempts::until_answered(), ctx);
        }
    }
}
