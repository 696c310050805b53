//! The errors of credentials.

use super::*;

/// The files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// One of them cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
    /// One of them cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// They do not fit together.
    #[error(transparent)]
    NodeCredentials(#[from] membership::credentials::CredentialsError),
    /// The registry's client does not take them.
    #[error(transparent)]
    Call(#[from] RegistryApiError),
    /// The certificate is not renewed.
    #[error(transparent)]
    Renewal(#[from] renewal::RenewalError),
}
