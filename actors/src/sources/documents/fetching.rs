//! Compares document versions with other nodes and the registry, and fetches newer documents.

use super::*;

/// The path of a document at the registry.
fn path(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Network => "/v1/network",
        DocumentKind::Revocations => "/v1/revocations",
    }
}

impl Documents {
    /// Compares versions with a node; the side with the older document gets the newer one.
    pub(super) fn compare_versions(
        &mut self,
        peer: Prefix,
        attempts: Attempts,
        ctx: &mut Context<Self>,
    ) {
        let peer_api = self.peer_api.clone();
        let call = async move { peer_api.fetch_node_document(peer).await };
        ctx.spawn(
            call.into_actor(self)
                .map(move |answer, documents, ctx| match answer {
                    Ok(node) => documents.exchange_documents(peer, &node, ctx),
                    Err(error) => {
                        tracing::debug!(%peer, error = %Chain(&error), "cannot compare document versions");
                        let is_neighbour = documents.neighbours.contains(&peer);
                        if let Some((delay, next)) = attempts.after_failure(is_neighbour) {
                            ctx.run_later(delay, move |documents, ctx| {
                                documents.compare_versions(peer, next, ctx)
                            });
                        }
                    }
                }),
        );
    }

    /// Posts each document that is older at the peer, and fetches each one that is newer there.
    fn exchange_documents(&mut self, peer: Prefix, node: &NodeDocument, ctx: &mut Context<Self>) {
        let theirs = [
            (DocumentKind::Network, node.network_version),
            (DocumentKind::Revocations, node.revocations_version),
        ];
        for (kind, version) in theirs {
            let ours = self.documents.load().version(kind);
            if version < ours {
                self.post_document(peer, kind, Attempts::until_answered(), ctx);
            } else if version > ours {
                let peer_api = self.peer_api.clone();
                let call = async move { peer_api.fetch_signed_document(peer, kind).await };
                ctx.spawn(call.into_actor(self).map(move |answer, documents, ctx| {
                    documents.handle_peer_answer(peer, answer, ctx);
                }));
            }
        }
    }

    fn handle_peer_answer(
        &mut self,
        peer: Prefix,
        answer: Result<SignedDocument, PeerApiError>,
        ctx: &mut Context<Self>,
    ) {
        match answer {
            Ok(document) => self.handle_document(document, Some(peer), ctx),
            Err(error) => {
                tracing::debug!(%peer, error = %Chain(&error), "cannot fetch a signed document")
            }
        }
    }

    /// Opens a long poll at the registry, or leaves that to other nodes for now: with the probability at which
    /// [`MEAN_LISTENERS`] nodes of the network have one open.
    pub(super) fn long_poll_or_wait(&mut self, kind: DocumentKind, ctx: &mut Context<Self>) {
        if self.random.index(self.node_count.get()) >= MEAN_LISTENERS {
            ctx.run_later(
                self.random.around(LISTENER_REDRAW_INTERVAL),
                move |documents, ctx| documents.long_poll_or_wait(kind, ctx),
            );
            return;
        }
        let (registry, version) = (self.registry.clone(), self.documents.load().version(kind));
        let path = format!("{}?after={version}&wait={LONG_POLL_S}", path(kind));
        let timeout = Duration::from_secs(LONG_POLL_S + 10);
        let call = async move { registry.long_poll::<SignedDocument>(&path, timeout).await };
        ctx.spawn(call.into_actor(self).map(move |answer, documents, ctx| {
            let outcome = match &answer {
                Ok(Some(_)) => PollOutcome::Document,
                Ok(None) => PollOutcome::NoNews,
                Err(error) => {
                    tracing::debug!(error = %Chain(error), "long poll at the registry failed");
                    PollOutcome::Failed
                }
            };
            let delay = documents
                .poll_delays
                .entry(kind)
                .or_default()
                .after(outcome);
            documents.handle_registry_answer(answer, ctx);
            let delay = documents.random.around(delay);
            ctx.run_later(delay, move |documents, ctx| {
                documents.long_poll_or_wait(kind, ctx)
            });
        }));
    }

    fn handle_registry_answer(
        &mut self,
        answer: Result<Option<SignedDocument>, RegistryApiError>,
        ctx: &mut Context<Self>,
    ) {
        match answer {
            Ok(Some(document)) => self.handle_document(document, None, ctx),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot fetch a signed document from the registry")
            }
        }
    }

    /// Fetches a document from the registry, unless a request for it is in flight.
    pub(super) fn fetch_from_registry(&mut self, kind: DocumentKind, ctx: &mut Context<Self>) {
        if !self.fetching.insert(kind) {
            return;
        }
        let registry = self.registry.clone();
        let call = async move { registry.get::<SignedDocument>(path(kind)).await };
        ctx.spawn(call.into_actor(self).map(move |answer, documents, ctx| {
            documents.fetching.remove(&kind);
            documents.handle_registry_answer(answer.map(Some), ctx);
        }));
    }

    /// Compares versions with one random neighbour, and schedules the next comparison.
    pub(super) fn compare_with_random_neighbour(&mut self, ctx: &mut Context<Self>) {
        let neighbours: Vec<Prefix> = self.neighbours.iter().copied().collect();
        if let Some(peer) = self.random.choose(&neighbours) {
            self.compare_versions(*peer, Attempts::one(), ctx);
        }
        ctx.run_later(
            self.random.around(COMPARE_INTERVAL),
            Self::compare_with_random_neighbour,
        );
    }
}
