//! The error of the credentials actor.

use super::*;

/// The reason why credentials could not be read, written, used or renewed.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read or removed.
    #[error("cannot read or remove {path}", path = path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// TLS cannot be set up with the files.
    #[error(transparent)]
    NodeCredentials(#[from] membership::credentials::CredentialsError),
    /// The registry's client cannot be built with the files.
    #[error(transparent)]
    Call(#[from] RegistryApiError),
    /// The certificate was not renewed.
    #[error(transparent)]
    Renewal(#[from] renewal::RenewalError),
}
