//! Makes one call to a registry, bounded in time and size; knows nothing of when and why.

use crate::credentials::NodeCredentials;
use arc_swap::ArcSwap;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring as provider},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{error::Error, sync::Arc, time::Duration};
use wire::registry::{ANSWER_LIMIT, Problem};

/// A registry that does not take the connection within this is away.
const CONNECT: Duration = Duration::from_secs(5);

/// A call that took longer has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum RegistryApiError {
    /// Certificates or keys that cannot be used.
    #[error("cannot set up TLS for the registry")]
    Tls(#[source] Box<dyn Error + Send + Sync>),
    /// Nobody there, or the connection broke.
    #[error("the registry at {url} cannot be reached")]
    Unreachable {
        /// The registry's address, `https://HOST:PORT`.
        url: String,
        /// The client's error.
        #[source]
        source: reqwest::Error,
    },
    /// It took too long.
    #[error("the registry at {url} did not answer in time")]
    TimedOut {
        /// The registry's address, `https://HOST:PORT`.
        url: String,
    },
    /// The server has another key than the one that the invitation names.
    #[error("{url} is not the registry that the invitation names: its CA has another key")]
    WrongPin {
        /// The registry's address, `https://HOST:PORT`.
        url: String,
    },
    /// The answer is no.
    #[error("the registry says {status}: {title}: {detail}")]
    No {
        /// The HTTP status.
        status: u16,
        /// Always the same for the same problem.
        title: String,
        /// The explanation, in words.
        detail: String,
    },
    /// Too long, or not the document expected.
    #[error("the registry at {url} gave an answer that cannot be read: {why}")]
    Unreadable {
        /// The registry's address, `https://HOST:PORT`.
        url: String,
        /// The fault, in words.
        why: String,
    },
}

fn tls_error<E: Error + Send + Sync + 'static>(error: E) -> RegistryApiError {
    RegistryApiError::Tls(Box::new(error))
}

/// A client of one registry. Its clones share the certificate that they show.
#[derive(Clone, Debug)]
pub struct RegistryApiClient {
    client: Arc<ArcSwap<Client>>,
    url: String,
}

impl RegistryApiClient {
    /// For a newcomer, who knows the registry by the SHA-256 of its CA's SPKI only.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn pinned(url: &str, pin: [u8; 32]) -> Result<Self, RegistryApiError> {
        let provider = Arc::new(provider::default_provider());
        let verifier = Arc::new(Pinned {
            pin,
            provider: Arc::clone(&provider),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls_error)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Self::with(url, config)
    }

    /// For a member, who trusts the network's CA alone and shows its own certificate.
    ///
    /// # Errors
    /// TLS cannot be set up with these.
    pub fn member(url: &str, member: &NodeCredentials) -> Result<Self, RegistryApiError> {
        Self::with(url, member.registry_client().map_err(tls_error)?)
    }

    /// From the next call on it, and each clone of it, shows that member's certificate.
    ///
    /// # Errors
    /// TLS cannot be set up with it.
    pub fn renew(&self, member: &NodeCredentials) -> Result<(), RegistryApiError> {
        let client = Self::client(member.registry_client().map_err(tls_error)?)?;
        self.client.store(Arc::new(client));
        Ok(())
    }

    fn with(url: &str, config: ClientConfig) -> Result<Self, RegistryApiError> {
        let client = Arc::new(ArcSwap::from_pointee(Self::client(config)?));
        Ok(Self {
            client,
            url: url.trim_end_matches('/').to_owned(),
        })
    }

    fn client(config: ClientConfig) -> Result<Client, RegistryApiError> {
        Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(REQUEST_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(10))
            .build()
            .map_err(tls_error)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// No answer, or not the document.
    pub async fn get<T: DeserializeOwned>(&self, call: &str) -> Result<T, RegistryApiError> {
        self.ask(Method::GET, call, None).await
    }

    /// Reads a document that the registry gives only once there is news; `None`: there was none within
    /// the time that the call names. Takes at most `longest`.
    ///
    /// # Errors
    /// No answer, or not the document.
    pub async fn news<T: DeserializeOwned>(
        &self,
        call: &str,
        longest: Duration,
    ) -> Result<Option<T>, RegistryApiError> {
        let request = self.request(Method::GET, call, None).timeout(longest);
        match self.answer(request).await? {
            (StatusCode::NO_CONTENT, _) => Ok(None),
            (status, bytes) => self.document(status, &bytes).map(Some),
        }
    }

    /// Sends a document, and reads the answer.
    ///
    /// # Errors
    /// No answer, or it is no, or not the document expected.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        call: &str,
        document: &impl Serialize,
    ) -> Result<T, RegistryApiError> {
        let body =
            serde_json::to_vec(document).map_err(|error| self.unreadable(error.to_string()))?;
        self.ask(method, call, Some(body)).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        call: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, RegistryApiError> {
        let (status, bytes) = self.answer(self.request(method, call, body)).await?;
        self.document(status, &bytes)
    }

    fn request(&self, method: Method, call: &str, body: Option<Vec<u8>>) -> RequestBuilder {
        let request = self
            .client
            .load()
            .request(method, format!("{}{call}", self.url));
        match body {
            Some(body) => request
                .header("content-type", "application/json")
                .body(body),
            None => request,
        }
    }

    async fn answer(
        &self,
        request: RequestBuilder,
    ) -> Result<(StatusCode, Vec<u8>), RegistryApiError> {
        let mut answer = request.send().await.map_err(|error| self.failed(error))?;
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| self.failed(error))? {
            if bytes.len() + part.len() > ANSWER_LIMIT {
                return Err(self.unreadable(format!("it is longer than {ANSWER_LIMIT} bytes")));
            }
            bytes.extend_from_slice(&part);
        }
        Ok((answer.status(), bytes))
    }

    fn document<T: DeserializeOwned>(
        &self,
        status: StatusCode,
        bytes: &[u8],
    ) -> Result<T, RegistryApiError> {
        if status == StatusCode::OK {
            return serde_json::from_slice(bytes)
                .map_err(|error| self.unreadable(error.to_string()));
        }
        let problem: Problem = serde_json::from_slice(bytes).unwrap_or_default();
        Err(RegistryApiError::No {
            status: status.as_u16(),
            title: printable(&problem.title),
            detail: printable(&problem.detail),
        })
    }

    fn unreadable(&self, why: String) -> RegistryApiError {
        RegistryApiError::Unreadable {
            url: self.url.clone(),
            why,
        }
    }

    fn failed(&self, source: reqwest::Error) -> RegistryApiError {
        let url = self.url.clone();
        if source.is_timeout() {
            return RegistryApiError::TimedOut { url };
        }
        let mut cause: Option<&(dyn Error + 'static)> = Some(&source);
        while let Some(error) = cause {
            if is_wrong_pin(error) {
                return RegistryApiError::WrongPin { url };
            }
            cause = error.source();
        }
        RegistryApiError::Unreachable { url, source }
    }
}

/// rustls' error travels inside `io::Error`s, which show the cause of what they hold as their source,
/// but never what they hold.
fn is_wrong_pin(error: &(dyn Error + 'static)) -> bool {
    let wrong = rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return *tls == wrong;
    }
    match error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
    {
        Some(source) => is_wrong_pin(source),
        None => false,
    }
}

/// What another program wrote, fit for one line of ours.
fn printable(text: &str) -> String {
    text.chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Takes a server whose chain holds a CA with this pin, if that CA stands behind its certificate for the
/// name that was called.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn has_pin(&self, certificate: &CertificateDer<'_>) -> bool {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        parsed.is_ok_and(|(_, certificate)| {
            ring::digest::digest(&ring::digest::SHA256, certificate.public_key().raw).as_ref()
                == self.pin
        })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let wrong =
            rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let ca = intermediates
            .iter()
            .find(|certificate| self.has_pin(certificate))
            .ok_or(wrong)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
