//! The errors that the service reports to its callers.

use crate::{
    files::FileError,
    init::error::RegistryError,
    pki::{PkiError, request::BadRequest, tls::TlsError},
    store::{IssueError, StorageError},
};
use wire::registry::{DocumentError, VERSION};

/// The reason why a call is rejected.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The document has an unknown version.
    #[error("version {version} is not {VERSION}")]
    Version {
        /// The version of the request.
        version: u32,
    },
    /// The token is unknown, used or expired; the answer does not reveal which.
    #[error("the token is unknown, used or expired")]
    TokenRejected,
    /// Too many claims failed, from the caller's network or from all networks.
    #[error("too many failed claims; try again in a minute")]
    TooManyFailedClaims,
    /// Too many nodes joined from the caller's network by a published invitation.
    #[error("too many nodes joined from your network by a public invitation; try again in an hour")]
    TooManyFromNetwork,
    /// One node sent too many requests of a kind.
    #[error("too many {what}; try again in a minute")]
    TooOften {
        /// The kind of request.
        what: &'static str,
    },
    /// Too many requests wait already.
    #[error("the registry is busy; try again in a moment")]
    Busy,
    /// The certificate request is rejected.
    #[error("{0}")]
    Request(BadRequest),
    /// A live certificate has this key, or a certificate with this key was revoked.
    #[error("this key has a certificate already, or was revoked; create a new key")]
    KeyRejected,
    /// All prefixes of the network are in use.
    #[error("the network has no prefix left")]
    NoPrefixLeft,
    /// The requested prefix is not free.
    #[error("the prefix belongs to a node, or overlaps another one; revoke that node first")]
    PrefixTaken,
    /// The requested name is not free.
    #[error("the name belongs to another node or invitation; choose another one")]
    NameTaken,
    /// The connection has no client certificate.
    #[error("this call needs a certificate of the network")]
    NoCertificate,
    /// The certificate is revoked, unknown or expired.
    #[error("the certificate is unknown, revoked or expired")]
    NotAMember,
    /// The certificate is too young to be renewed.
    #[error("a certificate is renewed in the last third of its life; try again then")]
    TooEarly,
    /// The certificate has expired and the request has another key.
    #[error(
        "the certificate has expired; within the grace period it is renewed with the same key only"
    )]
    KeyChangedAfterExpiry,
    /// No node with a live certificate has this name.
    #[error("{node} is no name, prefix or serial number of a node with a live certificate")]
    UnknownNode {
        /// The name that was given.
        node: String,
    },
    /// No invitation that can still be used has this name or id.
    #[error("{invitation} is no name or id of an invitation that can still be used")]
    UnknownInvitation {
        /// The name or id that was given.
        invitation: String,
    },
    /// A field of a document is out of range.
    #[error("{value} is not {right}")]
    Value {
        /// The field of the document.
        field: &'static str,
        /// The value that was sent.
        value: String,
        /// A valid value, in words.
        right: String,
    },
    /// The certificate of the next CA is rejected.
    #[error("{why}")]
    CaCertificate {
        /// The fault, in words.
        why: String,
    },
    /// The step of a rotation is out of order.
    #[error("{why}")]
    Step {
        /// The fault, in words.
        why: String,
    },
    /// Some nodes would lose access by the step.
    #[error("{} of {live_nodes} nodes are not ready: {}", missing.len(), shown_names(missing))]
    NodesNotReady {
        /// The nodes that are not ready.
        missing: Vec<String>,
        /// The number of all nodes with a live certificate.
        live_nodes: usize,
    },
    /// The registry itself failed; nothing was issued or changed.
    #[error("the registry failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Joins the first names of a list.
fn shown_names(names: &[String]) -> String {
    const MAX_SHOWN: usize = 8;
    let first: Vec<&str> = names.iter().take(MAX_SHOWN).map(String::as_str).collect();
    let dots = if names.len() > MAX_SHOWN { ", …" } else { "" };
    format!("{}{dots}", first.join(", "))
}

macro_rules! failed {
    ($($error:ty),*) => {$(
        impl From<$error> for ServiceError {
            fn from(error: $error) -> Self {
                Self::Failed(Box::new(error))
            }
        }
    )*};
}

failed!(
    StorageError,
    PkiError,
    RegistryError,
    FileError,
    TlsError,
    wire::signed::SignedError
);

impl From<DocumentError> for ServiceError {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::Value {
                field,
                value,
                right,
            } => Self::Value {
                field,
                value,
                right: right.to_owned(),
            },
            error @ DocumentError::Shape { .. } => Self::Failed(Box::new(error)),
        }
    }
}

impl From<IssueError> for ServiceError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::TokenRejected => Self::TokenRejected,
            IssueError::KeyRejected => Self::KeyRejected,
            IssueError::NoPrefixLeft => Self::NoPrefixLeft,
            IssueError::PrefixTaken => Self::PrefixTaken,
            IssueError::NameTaken => Self::NameTaken,
            IssueError::NotRenewable => Self::NotAMember,
            IssueError::Sign(_) | IssueError::Storage(_) => Self::Failed(Box::new(error)),
        }
    }
}
