//! Errors when an operator creates, opens or changes a registry.

use crate::{
    files::FileError,
    pki::{PkiError, offline_root::RootError},
    store::StorageError,
};
use ipnet::Ipv6Net;
use std::path::PathBuf;
use wire::registry::DocumentError;

/// The reason why a registry cannot be created, opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The folders hold a registry already.
    #[error("{} exists: there is a registry already, and nothing was changed", path.display())]
    Exists {
        /// The file that exists already.
        path: PathBuf,
    },
    /// None of the files of a registry exists.
    #[error("there is no registry at {} (create one with `warren registry init`)", path.display())]
    NoRegistry {
        /// The path of the missing settings.
        path: PathBuf,
    },
    /// The registry must be stopped first.
    #[error("the registry runs: stop it first (a process listens at {})", path.display())]
    Running {
        /// The path of the operator's socket.
        path: PathBuf,
    },
    /// No network can have this range.
    #[error(
        "the network {network} must have 16 to 64 bits, no bits set after them, and room for prefixes"
    )]
    Network {
        /// The range that was requested.
        network: Ipv6Net,
    },
    /// A value of a document is out of range.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A key or certificate cannot be created or read.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The offline root cannot be created, opened or used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl RegistryError {
    /// Returns whether the user lacks the permission to use a file.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::File(error) | Self::Root(RootError::File(error)) => error.is_permission(),
            Self::Exists { .. }
            | Self::NoRegistry { .. }
            | Self::Running { .. }
            | Self::Network { .. }
            | Self::Document(_)
            | Self::Pki(_)
            | Self::Root(_)
            | Self::Storage(_) => false,
        }
    }
}
