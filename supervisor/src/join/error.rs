//! The errors of joining, and their exit codes.

use crate::leave::LeaveError;
use membership::registry_api::RegistryApiError;
use std::{io, path::PathBuf};

/// The error if a machine cannot become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The machine is a node already.
    #[error("{} exists: this machine has joined already, and nothing was changed (warren join --replace - replaces its identity)", path.display())]
    Exists {
        /// The file that exists already.
        path: PathBuf,
    },
    /// A file or folder cannot be read, created or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The action that was tried.
        what: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Another command is about to make this machine a node.
    #[error("another `warren join`, `request` or `install` works in {}: wait until it has ended", path.display())]
    Busy {
        /// The folder of the files.
        path: PathBuf,
    },
    /// The file with the key of an earlier attempt cannot be used.
    #[error("cannot make a key: {} {why}: remove it, and repeat the command", path.display())]
    PendingKey {
        /// The path of the key.
        path: PathBuf,
        /// The fault, in words.
        why: &'static str,
    },
    /// No key can be generated, or a request for it cannot be signed.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// The former identity cannot be replaced.
    #[error(transparent)]
    Replace(#[from] LeaveError),
    /// The registry rejects the invitation.
    #[error("the invitation is not good: it was used, has expired, or is none of this registry's")]
    Refused,
    /// The registry did not answer, or rejected the request.
    #[error(transparent)]
    Call(RegistryApiError),
    /// The registry's answer is malformed, or does not match the invitation.
    #[error("the registry's answer is not good: {why}")]
    Answer {
        /// The fault, in words.
        why: String,
    },
}

impl JoinError {
    /// Returns the exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 4,
            Self::Call(RegistryApiError::TimedOut { .. }) => 5,
            Self::Replace(error) => error.exit_code(),
            Self::Exists { .. }
            | Self::Io { .. }
            | Self::Busy { .. }
            | Self::PendingKey { .. }
            | Self::Key(_)
            | Self::Refused
            | Self::Call(_)
            | Self::Answer { .. } => 1,
        }
    }
}

impl From<RegistryApiError> for JoinError {
    fn from(error: RegistryApiError) -> Self {
        if matches!(error, RegistryApiError::Rejected { status: 403, .. }) {
            Self::Refused
        } else {
            Self::Call(error)
        }
    }
}
