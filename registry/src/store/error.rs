//! Errors of the store, by what they mean to its caller; each names the database file.

use crate::pki::PkiError;
use std::path::PathBuf;

/// The reason why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database cannot be opened, read or written now. Nothing of the operation was stored.
    #[error("database {}: cannot {action}", path.display())]
    Unavailable {
        /// The path of the database.
        path: PathBuf,
        /// The action that failed.
        action: &'static str,
        /// The error of the database or the system.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk is full. Nothing of the operation was stored; with free space a later attempt succeeds.
    #[error("database {}: cannot {action}: the disk is full, free some space", path.display())]
    DiskFull {
        /// The path of the database.
        path: PathBuf,
        /// The action that failed.
        action: &'static str,
    },
    /// The content of the database is damaged, or contradicts itself.
    #[error(
        "database {} is corrupt: {detail}; stop the registry and put a copy back with \
         `warren registry restore`",
        path.display()
    )]
    Corrupt {
        /// The path of the database.
        path: PathBuf,
        /// The damage, in words.
        detail: String,
    },
    /// The file belongs to another program, or to a later version of the registry.
    #[error("database {} cannot be used by this version of the registry: {detail}", path.display())]
    Incompatible {
        /// The path of the database.
        path: PathBuf,
        /// The mark that does not fit, in words.
        detail: String,
    },
}

/// The reason why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The token is unknown, used or expired; the error does not reveal which.
    #[error("the token is unknown, used or expired")]
    TokenRejected,
    /// A live certificate has this key, or a certificate with this key was revoked.
    #[error("the key has a certificate, or was revoked")]
    KeyRejected,
    /// All prefixes of the requested length are in use.
    #[error("no prefix is left")]
    NoPrefixLeft,
    /// The requested prefix belongs to a live node, or overlaps another prefix.
    #[error("the prefix has a live certificate, or overlaps another")]
    PrefixTaken,
    /// The requested name belongs to another node or to an open invitation.
    #[error("the name belongs to another node or invitation")]
    NameTaken,
    /// The certificate to be renewed is revoked, or expired longer ago than the grace period.
    #[error("the certificate cannot be renewed any more")]
    NotRenewable,
    /// The certificate could not be signed.
    #[error("cannot sign the certificate")]
    Sign(#[source] PkiError),
    /// The database failed; nothing was issued.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
