//! The table of all calls over HTTP: from it the routers are built, and the tests that ask each call
//! as each kind of caller, so that a new call cannot be forgotten.

use actix_web::http::Method;

/// The callers that may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AllowedCaller {
    /// Anybody; a token decides.
    Anybody,
    /// A node with a live certificate.
    Member,
    /// A node with a certificate that is live, or over but within the grace.
    Renewer,
    /// Root or the registry's user, over the Unix socket.
    Operator,
}

/// A call of the registry's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "`Call::summary` says it")]
pub enum Call {
    Claim,
    Renew,
    Announce,
    Bootstrap,
    Network,
    Revocations,
    Invite,
    Sign,
    Nodes,
    Revoke,
    Rollout,
    Parameters,
    Set,
    RequestCa,
    RotateCa,
    RotateKey,
    Backup,
    AuditLog,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Claim,
        Self::Renew,
        Self::Announce,
        Self::Bootstrap,
        Self::Network,
        Self::Revocations,
        Self::Invite,
        Self::Sign,
        Self::Nodes,
        Self::Revoke,
        Self::Rollout,
        Self::Parameters,
        Self::Set,
        Self::RequestCa,
        Self::RotateCa,
        Self::RotateKey,
        Self::Backup,
        Self::AuditLog,
    ];

    /// Method and path.
    pub fn route(self) -> (Method, &'static str) {
        match self {
            Self::Claim => (Method::POST, "/v1/claims"),
            Self::Renew => (Method::POST, "/v1/renewals"),
            Self::Announce => (Method::PUT, "/v1/nodes/self"),
            Self::Bootstrap => (Method::GET, "/v1/bootstrap"),
            Self::Network => (Method::GET, "/v1/network"),
            Self::Revocations => (Method::GET, "/v1/revocations"),
            Self::Invite => (Method::POST, "/v1/invitations"),
            Self::Sign => (Method::POST, "/v1/signatures"),
            Self::Nodes => (Method::GET, "/v1/nodes"),
            Self::Revoke => (Method::POST, "/v1/revocations"),
            Self::Rollout => (Method::GET, "/v1/rollout"),
            Self::Parameters => (Method::GET, "/v1/parameters"),
            Self::Set => (Method::PUT, "/v1/parameters"),
            Self::RequestCa => (Method::POST, "/v1/authority/requests"),
            Self::RotateCa => (Method::POST, "/v1/authority"),
            Self::RotateKey => (Method::POST, "/v1/keys"),
            Self::Backup => (Method::POST, "/v1/backups"),
            Self::AuditLog => (Method::GET, "/v1/audit-log"),
        }
    }

    /// Returns who may make the call.
    pub fn allowed_caller(self) -> AllowedCaller {
        match self {
            Self::Claim => AllowedCaller::Anybody,
            Self::Renew => AllowedCaller::Renewer,
            Self::Announce | Self::Bootstrap | Self::Network | Self::Revocations => {
                AllowedCaller::Member
            }
            Self::Invite
            | Self::Sign
            | Self::Nodes
            | Self::Revoke
            | Self::Rollout
            | Self::Parameters
            | Self::Set
            | Self::RequestCa
            | Self::RotateCa
            | Self::RotateKey
            | Self::Backup
            | Self::AuditLog => AllowedCaller::Operator,
        }
    }

    /// Returns its purpose in one line.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Claim => "An invitation's token for a certificate",
            Self::Renew => "A fresh certificate for the same prefix",
            Self::Announce => "Where the node can be dialled, and what it holds",
            Self::Bootstrap => "Random nodes that can be dialled",
            Self::Network => "The network's signed document",
            Self::Revocations => "The signed list of revocations",
            Self::Invite => "Make an invitation",
            Self::Sign => "Sign a request that came by file",
            Self::Nodes => "All live certificates",
            Self::Revoke => "Revoke a node",
            Self::Rollout => "How far the documents have come",
            Self::Parameters => "All parameters",
            Self::Set => "Set a parameter",
            Self::RequestCa => "Make the key of the next CA, and what a root is asked with",
            Self::RotateCa => "Change the CA, one step",
            Self::RotateKey => "Change a key of the network, one step",
            Self::Backup => "Copy the database to a new file",
            Self::AuditLog => "The last lines of the log",
        }
    }

    /// Returns whether the request has a body.
    pub fn has_body(self) -> bool {
        self.route().0 != Method::GET
    }

    /// The calls over the Unix socket, or those over TLS; by path, since a path may have several.
    pub fn by_path(operator: bool) -> Vec<(&'static str, Vec<Self>)> {
        let mine = |call: &Self| (call.allowed_caller() == AllowedCaller::Operator) == operator;
        let mut paths: Vec<(&'static str, Vec<Self>)> = Vec::new();
        for call in Self::ALL.into_iter().filter(mine) {
            let (_, path) = call.route();
            match paths.iter_mut().find(|(known, _)| *known == path) {
                Some((_, calls)) => calls.push(call),
                None => paths.push((path, vec![call])),
            }
        }
        paths
    }
}
