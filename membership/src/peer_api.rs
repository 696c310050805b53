//! Calls the peer API of other nodes over the overlay, with the node's certificate on the connection.
//!
//! Answers are limited in size and time, and endpoints that nobody could dial are dropped. The certificate proves which
//! node answers; nothing proves that the answer is true.

mod hole_punching;

use crate::{
    credentials::{self, CredentialsError, NodeCredentials},
    node_names::NodeNames,
};
use arc_swap::ArcSwap;
use policies::{
    endpoint_checks::CheckOutcome,
    names::{Endpoint, Prefix},
    observation::PeerRouteView,
    units::Uptime,
};
use reqwest::tls::TlsInfo;
use serde::de::DeserializeOwned;
use std::{net::SocketAddrV6, sync::Arc, time::Duration};
use wire::{
    endpoints::dialable,
    overlay::Network,
    peer::{
        ANSWER_LIMIT, DOCUMENT_LIMIT, ENDPOINT_CHECKS_PATH, EndpointChecksDocument,
        EndpointChecksRequest, NEXT_HOP_PATH, NextHopDocument, NodeDocument, RESTART_LOCK_PATH,
        RouteViewDocument, VERSION, document_path,
    },
    registry::DocumentKind,
    signed::SignedDocument,
};

/// Maximum duration of a call, with its connection and answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// The document about this node; the actors that change its endpoints or versions publish a new one.
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
    /// The connection failed, TLS rejected a certificate, or the answer was late or an HTTP error.
    #[error("cannot call {peer}")]
    Http {
        /// The node that was called.
        peer: Prefix,
        /// The client's error.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is longer than a valid one can be.
    #[error("{peer} answered with more than {limit} bytes")]
    TooLong {
        /// The node that was called.
        peer: Prefix,
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer is not a document of this version.
    #[error("{peer} answered with something other than the expected document")]
    Document {
        /// The node that was called.
        peer: Prefix,
        /// The parser's error.
        #[source]
        source: serde_json::Error,
    },
    /// The answer is about another node.
    #[error("{peer} answered as {answered}")]
    OtherNode {
        /// The node that was called.
        peer: Prefix,
        /// The node that the answer is about.
        answered: Prefix,
    },
}

impl PeerApiError {
    /// Returns the status with which the node rejected the call; `None` if it did not.
    pub fn status(&self) -> Option<reqwest::StatusCode> {
        match self {
            Self::Http { source, .. } => source.status(),
            Self::TooLong { .. } | Self::Document { .. } | Self::OtherNode { .. } => None,
        }
    }
}

/// A client of the peer API of all nodes; cheap to clone. All clones share one certificate.
#[derive(Clone)]
pub struct PeerApiClient {
    http: Arc<ArcSwap<reqwest::Client>>,
    me: Prefix,
    network: Network,
    port: u16,
    names: NodeNames,
}

/// The settings of the client.
#[derive(Clone, Debug)]
pub struct PeerApiSettings {
    /// The prefix of this node.
    pub me: Prefix,
    /// The network, which maps a prefix to a node address.
    pub network: Network,
    /// The port of other nodes' peer API: [`wire::peer::PORT`].
    pub port: u16,
    /// Where the names are kept that the certificates of other nodes state.
    pub names: NodeNames,
}

impl PeerApiClient {
    /// Builds a client that connects from the node address, which the server compares with the certificate.
    ///
    /// # Errors
    /// TLS cannot be set up with the certificate and key.
    pub fn new(
        settings: &PeerApiSettings,
        credentials: &NodeCredentials,
    ) -> Result<Self, CredentialsError> {
        let (me, network, port) = (settings.me, settings.network, settings.port);
        let http = Arc::new(ArcSwap::from_pointee(http_client(
            network,
            me,
            credentials,
        )?));
        Ok(Self {
            http,
            me,
            network,
            port,
            names: settings.names.clone(),
        })
    }

    /// Replaces the certificate and key of this client and of all its clones, from the next call on.
    ///
    /// # Errors
    /// TLS cannot be set up with the certificate and key; the client keeps the old ones.
    pub fn replace_credentials(
        &self,
        credentials: &NodeCredentials,
    ) -> Result<(), CredentialsError> {
        self.http
            .store(Arc::new(http_client(self.network, self.me, credentials)?));
        Ok(())
    }

    /// Fetches the endpoints and transit cost that a node reports about itself. Endpoints that nobody could dial are
    /// dropped, so that the list may be empty; private ones are kept.
    ///
    /// # Errors
    /// The call failed, or the answer is not the expected document.
    pub async fn fetch_endpoints(&self, peer: Prefix) -> Result<PeerReport, PeerApiError> {
        let document = self.fetch_node_document(peer).await?;
        let is_dialable = |endpoint: &Endpoint| dialable(*endpoint, self.network, true).is_ok();
        let endpoints = document.endpoints.into_iter().filter(is_dialable).collect();
        Ok(PeerReport {
            peer,
            endpoints,
            transit_cost: Some(document.transit_cost),
        })
    }

    /// Fetches a node's document about itself.
    ///
    /// # Errors
    /// The call failed, or the answer is not the expected document.
    pub async fn fetch_node_document(&self, peer: Prefix) -> Result<NodeDocument, PeerApiError> {
        let document: NodeDocument = self.get(peer, "/v1/node", ANSWER_LIMIT).await?;
        if document.prefix != peer {
            return Err(PeerApiError::OtherNode {
                peer,
                answered: document.prefix,
            });
        }
        Ok(document)
    }

    /// Fetches a node's view of the network's routes. Its `at` is zero: the caller sets it to the time of the answer.
    ///
    /// # Errors
    /// The call failed, or the answer is not the expected document.
    pub async fn fetch_route_view(&self, peer: Prefix) -> Result<PeerRouteView, PeerApiError> {
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
            .map(|distance| (distance.node, distance.metric))
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

    /// Asks a node by which tunnel its packets to another node leave.
    ///
    /// # Errors
    /// The call failed, such as because the node has no route to the other, or its software has no such call.
    pub async fn fetch_next_hop(
        &self,
        peer: Prefix,
        to: Prefix,
    ) -> Result<NextHopDocument, PeerApiError> {
        let path = format!("{NEXT_HOP_PATH}?to={to}");
        let document: NextHopDocument = self.get(peer, &path, ANSWER_LIMIT).await?;
        if document.prefix != peer {
            return Err(PeerApiError::OtherNode {
                peer,
                answered: document.prefix,
            });
        }
        Ok(document)
    }

    /// Fetches a node's current signed document. The caller must verify it.
    ///
    /// # Errors
    /// The call failed, or the answer is not a signed document.
    pub async fn fetch_signed_document(
        &self,
        peer: Prefix,
        kind: DocumentKind,
    ) -> Result<SignedDocument, PeerApiError> {
        self.get(peer, document_path(kind), DOCUMENT_LIMIT).await
    }

    /// Posts a signed document to a node. Success only means that the node will verify it.
    ///
    /// # Errors
    /// The call failed, or the node rejected the document unread.
    pub async fn post_signed_document(
        &self,
        peer: Prefix,
        kind: DocumentKind,
        document: &SignedDocument,
    ) -> Result<(), PeerApiError> {
        let http_error = |source| PeerApiError::Http { peer, source };
        let body = serde_json::to_vec(document)
            .map_err(|source| PeerApiError::Document { peer, source })?;
        let url = self.url(peer, document_path(kind));
        let request = self
            .http
            .load()
            .post(url)
            .header("content-type", "application/json")
            .body(body);
        let answer = self.send(peer, request).await;
        answer
            .and_then(reqwest::Response::error_for_status)
            .map(drop)
            .map_err(http_error)
    }

    /// Lets a node try these endpoints; returns the outcome of each that it tried, in the same order.
    ///
    /// # Errors
    /// The call failed, such as because the node was asked a moment ago, or its software has no such call.
    pub async fn check_endpoints(
        &self,
        peer: Prefix,
        endpoints: &[Endpoint],
    ) -> Result<Vec<CheckOutcome>, PeerApiError> {
        let request = EndpointChecksRequest {
            version: VERSION,
            endpoints: endpoints.to_vec(),
        };
        let url = self.url(peer, ENDPOINT_CHECKS_PATH);
        let request = self.http.load().post(url).json(&request);
        let answer = self.send(peer, request).await;
        let document: EndpointChecksDocument = read_answer(peer, answer, ANSWER_LIMIT).await?;
        Ok(document.outcomes.into_iter().map(Into::into).collect())
    }

    /// Acquires a node's restart lock (`POST`), or releases it (`DELETE`); returns whether the
    /// node agreed.
    ///
    /// # Errors
    /// The call failed, or the node's software has no restart lock.
    pub async fn call_restart_lock(
        &self,
        peer: Prefix,
        method: reqwest::Method,
    ) -> Result<bool, PeerApiError> {
        let http_error = |source| PeerApiError::Http { peer, source };
        let request = self
            .http
            .load()
            .request(method, self.url(peer, RESTART_LOCK_PATH));
        let answer = self.send(peer, request).await.map_err(http_error)?;
        let is_rejected = answer.status() == reqwest::StatusCode::CONFLICT;
        if is_rejected {
            Ok(false)
        } else {
            answer.error_for_status().map(|_| true).map_err(http_error)
        }
    }

    /// Makes a call, and learns the name of the node from its certificate.
    async fn send(
        &self,
        peer: Prefix,
        request: reqwest::RequestBuilder,
    ) -> reqwest::Result<reqwest::Response> {
        let answer = request.send().await?;
        let identity = answer
            .extensions()
            .get::<TlsInfo>()
            .and_then(TlsInfo::peer_certificate)
            .and_then(credentials::read_identity)
            .filter(|identity| identity.prefix == peer);
        if let Some(identity) = identity {
            self.names.learn(peer, identity.name, identity.issued_s);
        }
        Ok(answer)
    }

    fn url(&self, peer: Prefix, path: &str) -> String {
        let address = SocketAddrV6::new(self.network.node_address(peer), self.port, 0, 0);
        format!("https://{address}{path}")
    }

    async fn get<T: DeserializeOwned>(
        &self,
        peer: Prefix,
        path: &str,
        limit: usize,
    ) -> Result<T, PeerApiError> {
        let request = self.http.load().get(self.url(peer, path));
        read_answer(peer, self.send(peer, request).await, limit).await
    }
}

/// Reads the document in an answer of at most `limit` bytes.
async fn read_answer<T: DeserializeOwned>(
    peer: Prefix,
    answer: reqwest::Result<reqwest::Response>,
    limit: usize,
) -> Result<T, PeerApiError> {
    let http_error = |source| PeerApiError::Http { peer, source };
    let answer = answer.and_then(reqwest::Response::error_for_status);
    let mut response = answer.map_err(http_error)?;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(http_error)? {
        if text.len() + chunk.len() > limit {
            return Err(PeerApiError::TooLong { peer, limit });
        }
        text.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&text).map_err(|source| PeerApiError::Document { peer, source })
}

fn http_client(
    network: Network,
    me: Prefix,
    credentials: &NodeCredentials,
) -> Result<reqwest::Client, CredentialsError> {
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(credentials.peer_client_config()?)
        .local_address(std::net::IpAddr::V6(network.node_address(me)))
        .tls_info(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .pool_max_idle_per_host(0)
        .timeout(CALL_TIMEOUT)
        .build();
    http.map_err(|error| CredentialsError::Client(Box::new(error)))
}
