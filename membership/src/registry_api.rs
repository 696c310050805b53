//! Calls the registry's API, with limits on time and size. The caller decides when and why.

mod name_lookup;
mod pinned_ca;

use crate::credentials::NodeCredentials;
use arc_swap::{ArcSwap, ArcSwapOption};
use name_lookup::NameLookup;
use pinned_ca::{PinnedCaVerifier, is_pin_error};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use rustls::{ClientConfig, crypto::ring as provider};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    error::Error,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use wire::registry::{ANSWER_LIMIT, Problem};

/// Maximum duration of a connection attempt, with its TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum duration of a call that is not a long poll.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason why a call to the registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryApiError {
    /// TLS cannot be set up with the certificates and key.
    #[error("cannot set up TLS for the registry")]
    Tls(#[source] Box<dyn Error + Send + Sync>),
    /// No connection was made, or it broke.
    #[error("the registry at {url} cannot be reached")]
    Unreachable {
        /// The registry's address, `https://HOST:PORT`.
        url: String,
        /// The client's error.
        #[source]
        source: reqwest::Error,
    },
    /// The connection or the answer took too long.
    #[error("the registry at {url} did not answer in time")]
    TimedOut {
        /// The registry's address, `https://HOST:PORT`.
        url: String,
    },
    /// No CA in the server's chain has the key that the invitation names.
    #[error("{url} is not the registry that the invitation names: its CA has another key")]
    WrongPin {
        /// The registry's address, `https://HOST:PORT`.
        url: String,
    },
    /// The registry answered with an HTTP error.
    #[error("the registry rejected the request with HTTP status {status}: {title}: {detail}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The title of the problem document (RFC 9457), which is the same for the same kind of problem.
        title: String,
        /// The detail of the problem document, about this request.
        detail: String,
    },
    /// The answer is too long, or not the expected document.
    #[error("the registry at {url} sent an answer that cannot be read: {why}")]
    Unreadable {
        /// The registry's address, `https://HOST:PORT`.
        url: String,
        /// The fault that was found, in words.
        why: String,
    },
}

fn tls_error<E: Error + Send + Sync + 'static>(error: E) -> RegistryApiError {
    RegistryApiError::Tls(Box::new(error))
}

/// A client of one registry. All clones share one certificate and one address.
#[derive(Clone, Debug)]
pub struct RegistryApiClient {
    client: Arc<ArcSwap<Client>>,
    url: Arc<ArcSwap<String>>,
    /// The address that answered last.
    address: Arc<ArcSwapOption<IpAddr>>,
    /// The registry's wall clock in its last answer; `None` if no answer said it.
    date: Arc<ArcSwapOption<SystemTime>>,
}

impl RegistryApiError {
    /// Returns whether the registry no longer accepts the certificate with which it was called.
    pub fn is_certificate_rejected(&self) -> bool {
        matches!(self, Self::Rejected { status: 403, .. })
    }
}

impl RegistryApiClient {
    /// Builds a client for a machine that is about to join. It has no certificate, and knows of the registry only the
    /// SHA-256 of its CA's SPKI.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn with_pinned_ca(url: &str, pin: [u8; 32]) -> Result<Self, RegistryApiError> {
        let provider = Arc::new(provider::default_provider());
        let verifier = Arc::new(PinnedCaVerifier {
            pin,
            provider: Arc::clone(&provider),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls_error)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Self::with_tls(url, config)
    }

    /// Builds a client for a node. It trusts only the network's CAs, and presents the node's certificate.
    ///
    /// # Errors
    /// TLS cannot be set up with the certificate and key.
    pub fn with_credentials(
        url: &str,
        credentials: &NodeCredentials,
    ) -> Result<Self, RegistryApiError> {
        Self::with_tls(
            url,
            credentials.registry_client_config().map_err(tls_error)?,
        )
    }

    /// Replaces the certificate and key of this client and of all its clones, from the next call on.
    ///
    /// # Errors
    /// TLS cannot be set up with the certificate and key; the client keeps the old ones.
    pub fn replace_credentials(
        &self,
        credentials: &NodeCredentials,
    ) -> Result<(), RegistryApiError> {
        let config = credentials.registry_client_config().map_err(tls_error)?;
        let client = Self::http_client(config, Arc::clone(&self.address))?;
        self.client.store(Arc::new(client));
        Ok(())
    }

    fn with_tls(url: &str, config: ClientConfig) -> Result<Self, RegistryApiError> {
        let address = Arc::<ArcSwapOption<IpAddr>>::default();
        let client = Self::http_client(config, Arc::clone(&address))?;
        Ok(Self {
            client: Arc::new(ArcSwap::from_pointee(client)),
            url: Arc::new(ArcSwap::from_pointee(url.trim_end_matches('/').to_owned())),
            address,
            date: Arc::default(),
        })
    }

    /// Returns the registry's wall clock at its last answer, down to seconds; `None` if no answer said it.
    pub fn date(&self) -> Option<SystemTime> {
        self.date.load().as_deref().copied()
    }

    /// Returns the address at which the registry answered last or, before the first answer, the one in its URL.
    pub fn address(&self) -> Option<IpAddr> {
        let answered = self.address.load().as_deref().copied();
        answered.or_else(|| {
            let url = reqwest::Url::parse(&self.url()).ok()?;
            let host = url.host_str()?;
            host.trim_matches(['[', ']']).parse().ok()
        })
    }

    /// Replaces the address of the registry, `https://HOST:PORT`, for this client and all its clones, from the next call on.
    pub fn replace_url(&self, url: &str) {
        self.url
            .store(Arc::new(url.trim_end_matches('/').to_owned()));
    }

    fn url(&self) -> String {
        self.url.load().as_ref().clone()
    }

    fn http_client(
        config: ClientConfig,
        last_address: Arc<ArcSwapOption<IpAddr>>,
    ) -> Result<Client, RegistryApiError> {
        Client::builder()
            .dns_resolver(NameLookup::new(last_address))
            .tls_backend_preconfigured(config)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(10))
            .build()
            .map_err(tls_error)
    }

    /// Fetches a document.
    ///
    /// # Errors
    /// The call failed, or the answer is not the expected document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RegistryApiError> {
        self.call(Method::GET, path, None).await
    }

    /// Fetches a document by a long poll: the registry answers once there is a newer one, or after the time that the path
    /// states. Returns `None` if there was no newer one. `timeout` limits the whole call.
    ///
    /// # Errors
    /// The call failed, or the answer is not the expected document.
    pub async fn long_poll<T: DeserializeOwned>(
        &self,
        path: &str,
        timeout: Duration,
    ) -> Result<Option<T>, RegistryApiError> {
        let request = self.request(Method::GET, path, None).timeout(timeout);
        match self.read_answer(request).await? {
            (StatusCode::NO_CONTENT, _) => Ok(None),
            (status, bytes) => self.parse_answer(status, &bytes).map(Some),
        }
    }

    /// Sends a document, and returns the document in the answer.
    ///
    /// # Errors
    /// The call failed, or the answer is not the expected document.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        document: &impl Serialize,
    ) -> Result<T, RegistryApiError> {
        let body =
            serde_json::to_vec(document).map_err(|error| self.unreadable(error.to_string()))?;
        self.call(method, path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, RegistryApiError> {
        let (status, bytes) = self.read_answer(self.request(method, path, body)).await?;
        self.parse_answer(status, &bytes)
    }

    fn request(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> RequestBuilder {
        let request = self
            .client
            .load()
            .request(method, format!("{}{path}", self.url.load()));
        match body {
            Some(body) => request
                .header("content-type", "application/json")
                .body(body),
            None => request,
        }
    }

    async fn read_answer(
        &self,
        request: RequestBuilder,
    ) -> Result<(StatusCode, Vec<u8>), RegistryApiError> {
        let mut answer = request
            .send()
            .await
            .map_err(|error| self.call_error(error))?;
        if let Some(remote) = answer.remote_addr() {
            self.address
                .store(Some(Arc::new(remote.ip().to_canonical())));
        }
        let date = answer.headers().get(reqwest::header::DATE);
        let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        self.date.store(date.map(Arc::new));
        let mut bytes = Vec::new();
        while let Some(part) = answer
            .chunk()
            .await
            .map_err(|error| self.call_error(error))?
        {
            if bytes.len() + part.len() > ANSWER_LIMIT {
                return Err(self.unreadable(format!("it is longer than {ANSWER_LIMIT} bytes")));
            }
            bytes.extend_from_slice(&part);
        }
        Ok((answer.status(), bytes))
    }

    fn parse_answer<T: DeserializeOwned>(
        &self,
        status: StatusCode,
        bytes: &[u8],
    ) -> Result<T, RegistryApiError> {
        if status == StatusCode::OK {
            return serde_json::from_slice(bytes)
                .map_err(|error| self.unreadable(error.to_string()));
        }
        let problem: Problem = serde_json::from_slice(bytes).unwrap_or_default();
        Err(RegistryApiError::Rejected {
            status: status.as_u16(),
            title: printable(&problem.title),
            detail: printable(&problem.detail),
        })
    }

    fn unreadable(&self, why: String) -> RegistryApiError {
        RegistryApiError::Unreadable {
            url: self.url(),
            why,
        }
    }

    fn call_error(&self, source: reqwest::Error) -> RegistryApiError {
        let url = self.url();
        if source.is_timeout() {
            return RegistryApiError::TimedOut { url };
        }
        let mut cause: Option<&(dyn Error + 'static)> = Some(&source);
        while let Some(error) = cause {
            if is_pin_error(error) {
                return RegistryApiError::WrongPin { url };
            }
            cause = error.source();
        }
        RegistryApiError::Unreachable { url, source }
    }
}

/// Makes another program's text fit for one line of a log: at most 200 characters, without control characters.
fn printable(text: &str) -> String {
    text.chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
