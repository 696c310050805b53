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
    /// A document of another version.
    #[error("version {version} is not {VERSION}")]
    Version {
        /// The version of the request.
        version: u32,
    },
    /// The token is unknown, used or expired; the answer does not reveal which.
    #[error("the token is unknown, used or expired")]
    TokenRejected,
    /// Too many failures from there, or overall.
    #[error("too many failed claims; try again in a minute")]
    TooManyFailedClaims,
    /// Too many who joined from there by an invitation that is known to everybody.
    #[error("enough joined from your network by this public invitation; try again in an hour")]
    TooManyFromNetwork,
    /// Too many requests of one kind by one node.
    #[error("too many {what}; try again in a minute")]
    TooOften {
        /// The kind of request.
        what: &'static str,
    },
    /// More work waits than can be done in time.
    #[error("the registry is busy; try again in a moment")]
    Busy,
    /// The certificate request.
    #[error("{0}")]
    Request(BadRequest),
    /// The key is another's, or was revoked.
    #[error("this key has a certificate already, or was revoked; make a new one")]
    KeyRejected,
    /// All prefixes of the network are in use.
    #[error("the network has no prefix left")]
    NoPrefixLeft,
    /// The prefix that was asked for is not free.
    #[error("the prefix is somebody's, or overlaps another; revoke its node first")]
    PrefixTaken,
    /// The name that was asked for is not free.
    #[error("the name is another node's, or another invitation's")]
    NameTaken,
    /// The connection has no client certificate.
    #[error("this needs a certificate of the network")]
    NoCertificate,
    /// The certificate is revoked, unknown or expired.
    #[error("the certificate is not one of a member")]
    NotAMember,
    /// A renewal that comes too early.
    #[error("renewals begin in the last third of a certificate's life")]
    TooEarly,
    /// A renewal that comes late, with another key.
    #[error("the certificate is over: within the grace it is renewed with its own key only")]
    LateKey,
    /// A node without a live certificate.
    #[error("{node} is no name, prefix or serial number of a node with a live certificate")]
    UnknownNode {
        /// The name that was asked for.
        node: String,
    },
    /// A field of an operator's document that cannot be.
    #[error("{value} is not {right}")]
    Value {
        /// The field of the document.
        field: &'static str,
        /// The value that was sent.
        value: String,
        /// A valid value, in words.
        right: String,
    },
    /// The CA certificate is not what the root should have signed.
    #[error("{why}")]
    CaCertificate {
        /// The fault, in words.
        why: String,
    },
    /// A step of a rotation out of order.
    #[error("{why}")]
    Step {
        /// The fault, in words.
        why: String,
    },
    /// A step that would cut nodes off.
    #[error("{} of {live} nodes are not ready: {}", missing.len(), shown(missing))]
    NodesNotReady {
        /// The nodes that are not ready.
        missing: Vec<String>,
        /// Of how many.
        live: usize,
    },
    /// A fault of the registry itself; nothing was issued.
    #[error("the registry failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The first few of a list.
fn shown(names: &[String]) -> String {
    const MOST: usize = 8;
    let first: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    let dots = if names.len() > MOST { ", …" } else { "" };
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
