//! Calls other nodes over the overlay, with our certificate on the connection.
//!
//! Answers are bounded in size and time, and filtered; they prove nothing but what the certificate
//! proves.

use crate::{
    credentials::{CredentialsError, NodeCredentials},
    documents::PrivateEndpoints,
};
use arc_swap::ArcSwap;
use policies::{
    names::{Endpoint, Prefix},
    observation::PeerRouteView,
    units::Uptime,
};
use serde::de::DeserializeOwned;
use std::{net::SocketAddrV6, sync::Arc, time::Duration};
use wire::{
    endpoints::dialable,
    overlay::Network,
    peer::{
        ANSWER_LIMIT, DOCUMENT_LIMIT, NodeDocument, RESTART_LOCK_PATH, RouteViewDocument,
        document_path,
    },
    registry::DocumentKind,
    signed::SignedDocument,
};

/// Largest time that an answer may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// This node's own document; whoever learns of new endpoints publishes a new one.
pub type SharedNodeDocument = Arc<ArcSwap<NodeDocument>>;

/// The endpoints of one peer, as reported by it or by another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// The prefix of the peer.
    pub peer: Prefix,
    /// The endpoints of the peer, best first.
    pub endpoints: Vec<Endpoint>,
    /// The cost that the peer adds to the metric of others' routes; `None` if the reporter does
    /// not know it.
    pub transit_cost: Option<u16>,
}

/// The reason why a node's answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerApiError {
    /// No connection, no such certificate, no answer in time.
    #[error("cannot ask {peer}")]
    Http {
        /// The node that was asked.
        peer: Prefix,
        /// The client's error.
        #[source]
        source: reqwest::Error,
    },
    /// Longer than any honest one.
    #[error("{peer} answered more than {limit} bytes")]
    TooLong {
        /// The node that was asked.
        peer: Prefix,
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer is not a document of this version.
    #[error("{peer} answered no document of ours")]
    Document {
        /// The node that was asked.
        peer: Prefix,
        /// The parser's error.
        #[source]
        source: serde_json::Error,
    },
    /// It speaks of another node.
    #[error("{peer} answered as {answered}")]
    OtherNode {
        /// The node that was asked.
        peer: Prefix,
        /// The node that the answer is about.
        answered: Prefix,
    },
}

/// Asks members; cheap to clone. Its clones share the certificate that they show.
#[derive(Clone)]
pub struct PeerApiClient {
    http: Arc<ArcSwap<reqwest::Client>>,
    me: Prefix,
    network: Network,
    port: u16,
    private: PrivateEndpoints,
}

/// The settings of the client.
#[derive(Clone, Debug)]
pub struct PeerApiSettings {
    /// The prefix of this node.
    pub me: Prefix,
    /// The network: from a prefix to an address.
    pub network: Network,
    /// The others' port: [`wire::peer::PORT`].
    pub port: u16,
    /// Believe private endpoints.
    pub private: PrivateEndpoints,
}

impl PeerApiClient {
    /// Comes from our node address, so that the other end can compare it with our certificate.
    ///
    /// # Errors
    /// No TLS can be made of the certificate and key.
    pub fn new(
        settings: &PeerApiSettings,
        member: &NodeCredentials,
    ) -> Result<Self, CredentialsError> {
        let (me, network, port, private) = (
            settings.me,
            settings.network,
            settings.port,
            settings.private.clone(),
        );
        let http = Arc::new(ArcSwap::from_pointee(http(network, me, member)?));
        Ok(Self {
            http,
            me,
            network,
            port,
            private,
        })
    }

    /// From the next question on it, and each clone of it, shows that member's certificate.
    ///
    /// # Errors
    /// No TLS can be made of the certificate and key.
    pub fn renew(&self, member: &NodeCredentials) -> Result<(), CredentialsError> {
        self.http
            .store(Arc::new(http(self.network, self.me, member)?));
        Ok(())
    }

    /// Returns the endpoints of a node, as it reports them; empty if it reports none.
    ///
    /// # Errors
    /// It did not answer, or not with what it should.
    pub async fn ask(&self, peer: Prefix) -> Result<PeerReport, PeerApiError> {
        let document = self.node(peer).await?;
        let private = self.private.allowed();
        let good = |endpoint: &Endpoint| dialable(*endpoint, self.network, private).is_ok();
        let endpoints = document.endpoints.into_iter().filter(good).collect();
        Ok(PeerReport {
            peer,
            endpoints,
            transit_cost: Some(document.transit_cost),
        })
    }

    /// Returns a node's document about itself.
    ///
    /// # Errors
    /// It did not answer, or not with what it should.
    pub async fn node(&self, peer: Prefix) -> Result<NodeDocument, PeerApiError> {
        let document: NodeDocument = self.get(peer, "/v1/node", ANSWER_LIMIT).await?;
        if document.prefix != peer {
            return Err(PeerApiError::OtherNode {
                peer,
                answered: document.prefix,
            });
        }
        Ok(document)
    }

    /// Returns a node's view of the network's routes; the caller adds the time of the request.
    ///
    /// # Errors
    /// It did not answer, or not with what it should.
    pub async fn view(&self, peer: Prefix) -> Result<PeerRouteView, PeerApiError> {
        let document: RouteViewDocument = self.get(peer, "/v1/route-view", ANSWER_LIMIT).await?;
        let RouteViewDocument {
            version: _,
            prefix,
            accepts_tunnels,
            accepted,
            regret,
            distances,
        } = document;
        if prefix != peer {
            return Err(PeerApiError::OtherNode {
                peer,
                answered: prefix,
            });
        }
        let mut distances: Vec<_> = distances
            .into_iter()
            .map(|one| (one.node, one.metric))
            .collect();
        distances.sort_unstable();
        distances.dedup_by_key(|(node, _)| *node);
        Ok(PeerRouteView {
            peer,
            at: Uptime::default(),
            accepts_tunnels,
            accepted,
            regret,
            distances,
        })
    }

    /// The signed document that it holds; not verified here.
    ///
    /// # Errors
    /// It did not answer, or not what it should.
    pub async fn document(
        &self,
        peer: Prefix,
        kind: DocumentKind,
    ) -> Result<SignedDocument, PeerApiError> {
        self.get(peer, document_path(kind), DOCUMENT_LIMIT).await
    }

    /// Gives it a signed document.
    ///
    /// # Errors
    /// It did not take it.
    pub async fn post(
        &self,
        peer: Prefix,
        kind: DocumentKind,
        document: &SignedDocument,
    ) -> Result<(), PeerApiError> {
        let failed = |source| PeerApiError::Http { peer, source };
        let body = serde_json::to_vec(document)
            .map_err(|source| PeerApiError::Document { peer, source })?;
        let url = self.url(peer, document_path(kind));
        let request = self
            .http
            .load()
            .post(url)
            .header("content-type", "application/json")
            .body(body);
        let answer = request
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        answer.map(drop).map_err(failed)
    }

    /// Acquires a node's restart lock (`POST`), or releases it (`DELETE`); returns whether the
    /// node agreed.
    ///
    /// # Errors
    /// It did not answer, or knows no restart lock.
    pub async fn restart_lock(
        &self,
        peer: Prefix,
        method: reqwest::Method,
    ) -> Result<bool, PeerApiError> {
        let failed = |source| PeerApiError::Http { peer, source };
        let answer = self
            .http
            .load()
            .request(method, self.url(peer, RESTART_LOCK_PATH))
            .send()
            .await
            .map_err(failed)?;
        let refused = answer.status() == reqwest::StatusCode::CONFLICT;
        if refused {
            Ok(false)
        } else {
            answer.error_for_status().map(|_| true).map_err(failed)
        }
    }

    fn url(&self, peer: Prefix, call: &str) -> String {
        let address = SocketAddrV6::new(self.network.node_address(peer), self.port, 0, 0);
        format!("https://{address}{call}")
    }

    async fn get<T: DeserializeOwned>(
        &self,
        peer: Prefix,
        call: &str,
        limit: usize,
    ) -> Result<T, PeerApiError> {
        let failed = |source| PeerApiError::Http { peer, source };
        let request = self.http.load().get(self.url(peer, call));
        let asked = request.send().await;
        let mut response = asked
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if answer.len() + chunk.len() > limit {
                return Err(PeerApiError::TooLong { peer, limit });
            }
            answer.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&answer).map_err(|source| PeerApiError::Document { peer, source })
    }
}

fn http(
    network: Network,
    me: Prefix,
    member: &NodeCredentials,
) -> Result<reqwest::Client, CredentialsError> {
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(member.client()?)
        .local_address(std::net::IpAddr::V6(network.node_address(me)))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .pool_max_idle_per_host(0)
        .timeout(CALL_TIMEOUT)
        .build();
    http.map_err(|error| CredentialsError::Client(Box::new(error)))
}
