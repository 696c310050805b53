//! Compares the versions of documents with other nodes and the registry, and fetches newer ones.

use super::*;

impl Documents {
    /// Compares versions with a node; who has the older one gets the newer.
    pub(super) fn compare(&mut self, peer: Prefix, tries: u32, ctx: &mut Context<Self>) {
        let peer_api = self.peer_api.clone();
        let ask = async move { peer_api.node(peer).await };
        ctx.spawn(
            ask.into_actor(self)
                .map(move |answer, documents, ctx| match answer {
                    Ok(node) => documents.compared(peer, &node, ctx),
                    Err(error) => {
                        tracing::debug!(%peer, error = %Chain(&error), "versions not compared");
                        if tries > 1 && documents.neighbours.contains(&peer) {
                            ctx.run_later(RETRY_DELAY, move |documents, ctx| {
                                documents.compare(peer, tries - 1, ctx)
                            });
                        }
                    }
                }),
        );
    }

    pub(super) fn compared(&mut self, peer: Prefix, node: &NodeDocument, ctx: &mut Context<Self>) {
        let theirs = [
            (DocumentKind::Network, node.network_version),
            (DocumentKind::Revocations, node.revocations_version),
        ];
        for (kind, version) in theirs {
            let ours = self.documents.load().version(kind);
            if version < ours {
                self.post(peer, kind, TRIES, ctx);
            } else if version > ours {
                let peer_api = self.peer_api.clone();
                let get = async move { peer_api.document(peer, kind).await };
                ctx.spawn(get.into_actor(self).map(move |answer, documents, ctx| {
                    documents.got_from_peer(peer, answer, ctx);
                }));
            }
        }
    }

    pub(super) fn got_from_peer(
        &mut self,
        peer: Prefix,
        answer: Result<SignedDocument, PeerApiError>,
        ctx: &mut Context<Self>,
    ) {
        match answer {
            Ok(document) => self.take(document, Some(peer), ctx),
            Err(error) => tracing::debug!(%peer, error = %Chain(&error), "signed document not got"),
        }
    }

    /// Holds a question open at the registry, or leaves that to others.
    pub(super) fn listen(&mut self, ctx: &mut Context<Self>) {
        if self.random.index(self.nodes) >= LISTENERS {
            ctx.run_later(self.random.around(DICE), Self::listen);
            return;
        }
        let (registry, version) = (
            self.registry.clone(),
            self.documents.load().version(DocumentKind::Revocations),
        );
        let call = format!("/v1/revocations?after={version}&wait={LONG_POLL_S}");
        let longest = Duration::from_secs(LONG_POLL_S + 10);
        let ask = async move { registry.news::<SignedDocument>(&call, longest).await };
        ctx.spawn(ask.into_actor(self).map(|answer, documents, ctx| {
            let wait = match &answer {
                Ok(Some(_)) => {
                    documents.wait = FIRST;
                    // Its version has grown, or it is one that we do not believe.
                    RETRY_DELAY
                }
                Ok(None) => {
                    documents.wait = FIRST;
                    Duration::ZERO
                }
                Err(error) => {
                    tracing::debug!(error = %Chain(error), "no news of the registry");
                    let wait = documents.wait;
                    documents.wait = (wait * 2).min(DICE);
                    wait
                }
            };
            documents.got_from_registry(answer, ctx);
            let pause = documents.random.around(wait);
            ctx.run_later(pause, Self::listen);
        }));
    }

    pub(super) fn got_from_registry(
        &mut self,
        answer: Result<Option<SignedDocument>, RegistryApiError>,
        ctx: &mut Context<Self>,
    ) {
        match answer {
            Ok(Some(document)) => self.take(document, None, ctx),
            Ok(None) => {}
            Err(error) => tracing::debug!(error = %Chain(&error), "registry gave no document"),
        }
    }

    pub(super) fn fetch(&mut self, number: u64, call: &'static str, ctx: &mut Context<Self>) {
        if !self.fetching.insert(number) {
            return;
        }
        let registry = self.registry.clone();
        let get = async move { registry.get::<SignedDocument>(call).await };
        ctx.spawn(get.into_actor(self).map(move |answer, documents, ctx| {
            documents.fetching.remove(&number);
            documents.got_from_registry(answer.map(Some), ctx);
        }));
    }

    pub(super) fn compare_with_one(&mut self, ctx: &mut Context<Self>) {
        let neighbours: Vec<Prefix> = self.neighbours.iter().copied().collect();
        if let Some(peer) = self.random.choose(&neighbours) {
            self.compare(*peer, 1, ctx);
        }
        ctx.run_later(self.random.around(COMPARE), Self::compare_with_one);
    }
}
