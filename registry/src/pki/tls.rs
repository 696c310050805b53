//! The TLS configuration of the registry: its own certificate, and the CAs whose clients it accepts. Both can be
//! replaced while it serves.

use crate::{
    clock::{UnixSeconds, WallClock},
    pki::{authority::Authorities, credentials::Credentials},
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    time_provider::TimeProvider,
};
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// The reason why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS")]
pub struct TlsError(#[source] Box<dyn std::error::Error + Send + Sync>);

fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> TlsError {
    TlsError(Box::new(error))
}

/// The registry's clock, by which rustls judges certificates.
struct Now(WallClock);

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time((self.0)())
    }
}

/// The certificate and the verifier for one state of the CAs.
#[derive(Debug)]
struct Material {
    own: Arc<CertifiedKey>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Material {
    fn make(authorities: &Authorities, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let Authorities { current, other, .. } = authorities;
        let mut roots = RootCertStore::empty();
        for credentials in std::iter::once(current).chain(other) {
            roots
                .add(
                    CertificateDer::from_pem_slice(credentials.anchor().as_bytes())
                        .map_err(failed)?,
                )
                .map_err(failed)?;
        }
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .allow_unauthenticated()
                .build()
                .map_err(failed)?;
        Ok(Self {
            own: own(current, provider)?,
            clients,
        })
    }
}

/// Loads the registry's certificate and chain. The chain contains the trusted CA, which newcomers compare with the
/// pin of their invitation, and the cross certificate, for nodes that know only the previous CA.
fn own(
    credentials: &Credentials,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let read = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(failed);
    let mut chain = vec![read(&credentials.tls)?, read(&credentials.ca)?];
    for more in [&credentials.root, &credentials.cross]
        .into_iter()
        .filter(|pem| !pem.is_empty())
    {
        chain.push(read(more)?);
    }
    let key = PrivateKeyDer::from_pem_slice(credentials.tls_key.as_bytes()).map_err(failed)?;
    CertifiedKey::from_der(chain, key, provider)
        .map(Arc::new)
        .map_err(failed)
}

/// The TLS configuration, shared by the server and the service that replaces CAs.
#[derive(Clone, Debug)]
pub(crate) struct ReloadableTls {
    material: Arc<RwLock<Arc<Material>>>,
    provider: Arc<CryptoProvider>,
}

impl ReloadableTls {
    pub(crate) fn new(authorities: &Authorities) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let material = Arc::new(Material::make(authorities, &provider)?);
        Ok(Self {
            material: Arc::new(RwLock::new(material)),
            provider,
        })
    }

    /// Replaces the certificates from the next handshake on.
    pub(crate) fn replace(&self, authorities: &Authorities) -> Result<(), TlsError> {
        let material = Arc::new(Material::make(authorities, &self.provider)?);
        *self
            .material
            .write()
            .unwrap_or_else(PoisonError::into_inner) = material;
        Ok(())
    }

    /// Returns the configuration of a server that judges certificates by `clock`.
    pub(crate) fn config(&self, clock: &WallClock) -> Result<ServerConfig, TlsError> {
        let now = Arc::new(Now(Arc::clone(clock)));
        Ok(
            ServerConfig::builder_with_details(Arc::clone(&self.provider), now)
                .with_safe_default_protocol_versions()
                .map_err(failed)?
                .with_client_cert_verifier(Arc::new(self.clone()))
                .with_cert_resolver(Arc::new(self.clone())),
        )
    }

    fn material(&self) -> Arc<Material> {
        Arc::clone(&self.material.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for ReloadableTls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.material().own))
    }
}

/// Returns the moment at which a certificate expires.
fn expiry(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    unix_time(UnixSeconds(certificate.validity().not_after.timestamp()))
}

/// Converts a moment to the type of rustls, which has none before 1970.
fn unix_time(moment: UnixSeconds) -> Option<UnixTime> {
    let seconds = u64::try_from(moment.0).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

impl ClientCertVerifier for ReloadableTls {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Accepts an expired certificate too, since its owner may renew it within the grace period. The service checks
    /// with each request that the owner does nothing else.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let clients = &self.material().clients;
        let is_expired = |error: &CertificateError| {
            matches!(
                error,
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            )
        };
        match (
            clients.verify_client_cert(end_entity, intermediates, now),
            expiry(end_entity),
        ) {
            (Err(Error::InvalidCertificate(error)), Some(expiry)) if is_expired(&error) => {
                clients.verify_client_cert(end_entity, intermediates, expiry)
            }
            (outcome, _) => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.material()
            .clients
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.material()
            .clients
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.material().clients.supported_verify_schemes()
    }
}
