//! The settings and dependencies of the credentials actor.

use super::*;

/// The settings of the credentials actor.
#[derive(Clone, Debug)]
pub struct CredentialSettings {
    /// The path of the trusted CAs (PEM).
    pub ca: PathBuf,
    /// The path of the node's certificate, followed by its intermediate CA if it has one (PEM).
    pub certificate: PathBuf,
    /// The path of the node's key (PEM), which is never changed.
    pub key: PathBuf,
    /// The path of the `tls-crypt` key.
    pub tls_crypt: PathBuf,
    /// The path of the `tls-crypt` key that other nodes may use during a key rotation; the file exists only then.
    pub tls_crypt_other: PathBuf,
    /// The uid and gid of OpenVPN, which reads the `tls-crypt` keys.
    pub reader: (u32, u32),
    /// The certificate request (PKCS #10 in PEM) for renewals.
    pub request: String,
}

/// The dependencies of the credentials actor.
#[derive(Clone)]
pub struct CredentialsDeps {
    /// The paths of the files, and the user that OpenVPN runs as.
    pub settings: CredentialSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The TLS configuration of the peer API's server, which is replaced together with the certificate.
    pub server_tls: SharedServerTls,
    /// The client of the registry, which signs renewals.
    pub registry: RegistryApiClient,
    /// The client of the peer API, which presents the certificate.
    pub peers: PeerApiClient,
    /// The receivers of changes.
    pub readers: Vec<Recipient<CredentialsChanged>>,
}
