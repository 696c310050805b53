//! The node's certificate and key, and the TLS configurations that are made from them.
//!
//! Both ends of a connection present a certificate that the network's CA signed. A server's certificate must
//! contain the address that the client dialled, a client's the address that it connects from. Knows nothing of HTTP.

use arc_swap::ArcSwap;
use policies::{names::Prefix, node_name::NodeName};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier},
};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// The reason why no TLS configuration can be made from the files.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The text is not the expected PEM.
    #[error("cannot read the {content} as PEM")]
    Pem {
        /// The expected content: `CA certificate`, `certificate` or `key`.
        content: &'static str,
        /// The parser's error.
        #[source]
        source: pem::Error,
    },
    /// The key does not belong to the certificate, or rustls does not support their algorithms.
    #[error("cannot use the CA certificate, certificate and key for TLS")]
    Tls(#[from] rustls::Error),
    /// The HTTP client cannot be built with the certificate and key.
    #[error("cannot build an HTTP client with the certificate and key")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The CA certificate cannot be used to verify clients.
    #[error("cannot verify members with the CA certificate")]
    Verifier(#[from] VerifierBuilderError),
}

/// Maximum number of TLS sessions that the peer API's server keeps, so that callers can resume them. Each takes about
/// 1.2 KiB, since it contains the caller's chain. rustls keeps 256 by default, which took a node hours to fill.
pub const MAX_SERVER_SESSIONS: usize = 64;
/// Maximum number of nodes whose TLS sessions the client of the peer API keeps.
pub const MAX_SERVERS_REMEMBERED: usize = 16;
/// Maximum number of sessions that rustls keeps of one server: its `MAX_TLS13_TICKETS_PER_SERVER`.
const MAX_SESSIONS_OF_A_SERVER: usize = 8;
/// Number of sessions that a connection to the peer API can be followed by. A resumed session is used up, so with one ticket the
/// number of sessions stays that of the callers; with two, which is rustls' default, it grows with each connection.
const TICKETS_PER_CONNECTION: usize = 1;

/// The TLS configuration of the peer API's server, which restarts whenever this changes.
pub type SharedServerTls = Arc<ArcSwap<ServerConfig>>;

/// The node's certificate and key, which prove its membership. The debug output omits the key.
pub struct NodeCredentials {
    cas: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for NodeCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCredentials { .. }")
    }
}

impl NodeCredentials {
    /// Reads the contents of `ca.crt`, `node.crt` and `node.key`.
    ///
    /// # Errors
    /// One of them is not PEM of the expected kind.
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, CredentialsError> {
        let bad_pem = |content| move |source| CredentialsError::Pem { content, source };
        Ok(Self {
            cas: CertificateDer::pem_slice_iter(ca)
                .collect::<Result<_, _>>()
                .map_err(bad_pem("CA certificate"))?,
            chain: CertificateDer::pem_slice_iter(certificate)
                .collect::<Result<_, _>>()
                .map_err(bad_pem("certificate"))?,
            key: PrivateKeyDer::from_pem_slice(key).map_err(bad_pem("key"))?,
        })
    }

    /// Returns the configuration for calls to other nodes: TLS 1.3, and only the network's CAs are trusted.
    ///
    /// # Errors
    /// The key does not belong to the certificate, or a CA certificate cannot be used.
    pub fn peer_client_config(&self) -> Result<ClientConfig, CredentialsError> {
        let mut config = ClientConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.root_store()?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption =
            Resumption::in_memory_sessions(MAX_SERVERS_REMEMBERED * MAX_SESSIONS_OF_A_SERVER);
        Ok(config)
    }

    /// Returns the configuration for calls to the registry: rustls' default TLS versions, and only the network's CAs are trusted.
    ///
    /// # Errors
    /// The key does not belong to the certificate, or a CA certificate cannot be used.
    pub fn registry_client_config(&self) -> Result<ClientConfig, CredentialsError> {
        let mut config = ClientConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.root_store()?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        // There is one registry.
        config.resumption = Resumption::in_memory_sessions(MAX_SESSIONS_OF_A_SERVER);
        Ok(config)
    }

    /// Returns the configuration of the peer API's server: TLS 1.3, and every client must present a certificate of the
    /// network's CA.
    ///
    /// # Errors
    /// The key does not belong to the certificate, or a CA certificate cannot be used.
    pub fn server_config(&self) -> Result<ServerConfig, CredentialsError> {
        let roots = Arc::new(self.root_store()?);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, crypto_provider()).build()?;
        let mut config = ServerConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(MAX_SERVER_SESSIONS);
        config.send_tls13_tickets = TICKETS_PER_CONNECTION;
        Ok(config)
    }

    fn root_store(&self) -> Result<RootCertStore, CredentialsError> {
        let mut roots = RootCertStore::empty();
        self.cas.iter().try_for_each(|ca| roots.add(ca.clone()))?;
        Ok(roots)
    }
}

fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The identity that a node's certificate states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The node's prefix, which is the certificate's only common name.
    pub prefix: Prefix,
    /// The node's name: the one DNS name among the subject alternative names; `None` if there is no valid one, or several.
    pub name: Option<NodeName>,
    /// notBefore, in seconds since 1970.
    pub issued_s: i64,
    /// Serial number, lower-case hex.
    pub serial: String,
    /// SHA-256 of the public key's SPKI, lower-case hex.
    pub key: String,
}

/// Reads the identity from a node's certificate (DER); `None` if it is not a node's.
pub fn read_identity(certificate: &[u8]) -> Option<CertificateIdentity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let (name, None) = (names.next()?, names.next()) else {
        return None;
    };
    Some(CertificateIdentity {
        prefix: name.as_str().ok()?.parse().ok()?,
        name: read_name(&certificate),
        issued_s: certificate.validity().not_before.timestamp(),
        serial: wire::serial::of_octets(certificate.raw_serial())?,
        key: wire::signed::sha256_hex(certificate.public_key().raw),
    })
}

/// Reads the node's name from its certificate.
fn read_name(certificate: &X509Certificate<'_>) -> Option<NodeName> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut dns = names.value.general_names.iter().filter_map(|name| {
        let GeneralName::DNSName(name) = name else {
            return None;
        };
        Some(name)
    });
    let (name, None) = (dns.next()?, dns.next()) else {
        return None;
    };
    name.parse().ok()
}

/// Returns whether an iPAddress among the certificate's subject alternative names is this address.
pub fn has_address(certificate: &CertificateDer<'_>, address: IpAddr) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    names.value.general_names.iter().any(|name| {
        let GeneralName::IPAddress(bytes) = name else {
            return false;
        };
        <[u8; 16]>::try_from(*bytes).is_ok_and(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)) == address)
    })
}
