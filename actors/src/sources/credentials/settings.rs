//! The settings of credentials.

use super::*;

/// The settings of the credentials actor.
#[derive(Clone, Debug)]
pub struct CredentialSettings {
    /// The CAs (PEM).
    pub ca: PathBuf,
    /// The node's certificate (PEM).
    pub certificate: PathBuf,
    /// The node's key (PEM), which stays.
    pub key: PathBuf,
    /// The `tls-crypt` key.
    pub tls_crypt: PathBuf,
    /// The key that others may use while it is changed; there only then.
    pub tls_crypt_other: PathBuf,
    /// Uid and gid of OpenVPN, who reads the keys.
    pub reader: (u32, u32),
    /// The request (PKCS #10 in PEM) with which the certificate is renewed.
    pub request: String,
}

/// The dependencies of the credentials actor.
#[derive(Clone)]
pub struct CredentialsDeps {
    /// Paths of the files, and who reads them.
    pub settings: CredentialSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The TLS configuration of the peer API, which is replaced with the certificate.
    pub server_tls: SharedServerTls,
    /// The client of the registry, which signs renewals.
    pub registry: RegistryApiClient,
    /// The client of the peer API, which shows the certificate.
    pub peers: PeerApiClient,
    /// The receivers of changes.
    pub readers: Vec<Recipient<CredentialsChanged>>,
}
