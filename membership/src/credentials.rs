//! Our certificate and key, and TLS between members made of them.
//!
//! Both ends show a certificate that the network's CA signed; a server's must bear the address that was
//! asked, a client's the address it comes from. Knows nothing of HTTP.

use arc_swap::ArcSwap;
use policies::names::Prefix;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

/// Why no TLS can be made of the files.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The text is not the expected PEM.
    #[error("cannot read the {what} as PEM")]
    Pem {
        /// `CA certificate`, `certificate`, `key`.
        what: &'static str,
        /// The parser's error.
        #[source]
        source: pem::Error,
    },
    /// They do not fit together, or are of a kind that we do not use.
    #[error("cannot use the CA certificate, certificate and key for TLS")]
    Tls(#[from] rustls::Error),
    /// The HTTP client does not take them.
    #[error("cannot make an HTTP client of the certificate and key")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The CA certificate cannot verify clients.
    #[error("cannot verify members with the CA certificate")]
    Verifier(#[from] VerifierBuilderError),
}

/// The TLS configuration with which the peer API answers; its server restarts when this changes.
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
    /// One of them is no PEM of its kind.
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, CredentialsError> {
        let bad = |what| move |source| CredentialsError::Pem { what, source };
        Ok(Self {
            cas: CertificateDer::pem_slice_iter(ca)
                .collect::<Result<_, _>>()
                .map_err(bad("CA certificate"))?,
            chain: CertificateDer::pem_slice_iter(certificate)
                .collect::<Result<_, _>>()
                .map_err(bad("certificate"))?,
            key: PrivateKeyDer::from_pem_slice(key).map_err(bad("key"))?,
        })
    }

    /// TLS 1.3 towards members: only the network's CA is trusted.
    ///
    /// # Errors
    /// The files do not fit together.
    pub fn client(&self) -> Result<ClientConfig, CredentialsError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// TLS towards the registry.
    ///
    /// # Errors
    /// The files do not fit together.
    pub fn registry_client(&self) -> Result<ClientConfig, CredentialsError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        Ok(config)
    }

    /// TLS 1.3 for members only: who has no certificate of the network's CA does not get in.
    ///
    /// # Errors
    /// The files do not fit together.
    pub fn server(&self) -> Result<ServerConfig, CredentialsError> {
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, CredentialsError> {
        let mut roots = RootCertStore::empty();
        self.cas.iter().try_for_each(|ca| roots.add(ca.clone()))?;
        Ok(roots)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The identity that a node's certificate states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its one common name.
    pub prefix: Prefix,
    /// Serial number, lower-case hex.
    pub serial: String,
    /// SHA-256 of its key's SPKI, lower-case hex.
    pub key: String,
}

/// Reads a node's certificate; `None` where it is none.
pub fn named(certificate: &[u8]) -> Option<Named> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let (name, None) = (names.next()?, names.next()) else {
        return None;
    };
    Some(Named {
        prefix: name.as_str().ok()?.parse().ok()?,
        serial: wire::serial::of_octets(certificate.raw_serial())?,
        key: wire::signed::sha256_hex(certificate.public_key().raw),
    })
}

/// Whether the certificate bears that address as an iPAddress of its subject alternative names.
pub fn bears_address(certificate: &CertificateDer<'_>, address: IpAddr) -> bool {
    let Ok((_, certificate)) = x509_parser::certificate::X509Certificate::from_der(certificate)
    else {
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
