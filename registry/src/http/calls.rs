//! The table of all calls over HTTP.
//!
//! The routers are built from it, and so are the tests that make each call as each kind of caller, so that none
//! of them can miss a new call.

use actix_web::http::Method;

/// The kind of caller that may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AllowedCaller {
    /// Anybody who has a valid token.
    Anybody,
    /// A node with a live certificate.
    Member,
    /// A node whose certificate is live, or has expired within the grace period.
    Renewer,
    /// Root or the registry's user, over the Unix socket.
    Operator,
}

/// A call of the registry's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "`Call::summary` describes each call")]
pub enum Call {
    Claim,
    Renew,
    Announce,
    Depart,
    Bootstrap,
    Network,
    Revocations,
    Invite,
    Invitations,
    RevokeInvitation,
    Sign,
    Nodes,
    Rename,
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
    /// All calls, in the order of the OpenAPI document.
    pub const ALL: [Self; 22] = [
        Self::Claim,
        Self::Renew,
        Self::Announce,
        Self::Depart,
        Self::Bootstrap,
        Self::Network,
        Self::Revocations,
        Self::Invite,
        Self::Invitations,
        Self::RevokeInvitation,
        Self::Sign,
        Self::Nodes,
        Self::Rename,
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

    /// Returns the method and the path.
    pub fn route(self) -> (Method, &'static str) {
        match self {
            Self::Claim => (Method::POST, "/v1/claims"),
            Self::Renew => (Method::POST, "/v1/renewals"),
            Self::Announce => (Method::PUT, "/v1/nodes/self"),
            Self::Depart => (Method::POST, "/v1/departures"),
            Self::Bootstrap => (Method::GET, "/v1/bootstrap"),
            Self::Network => (Method::GET, "/v1/network"),
            Self::Revocations => (Method::GET, "/v1/revocations"),
            Self::Invite => (Method::POST, "/v1/invitations"),
            Self::Invitations => (Method::GET, "/v1/invitations"),
            Self::RevokeInvitation => (Method::POST, "/v1/invitations/revocations"),
            Self::Sign => (Method::POST, "/v1/signatures"),
            Self::Nodes => (Method::GET, "/v1/nodes"),
            Self::Rename => (Method::PUT, "/v1/names"),
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
            Self::Announce | Self::Depart | Self::Bootstrap | Self::Network | Self::Revocations => {
                AllowedCaller::Member
            }
            Self::Invite
            | Self::Invitations
            | Self::RevokeInvitation
            | Self::Sign
            | Self::Nodes
            | Self::Rename
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

    /// Describes the call in one line.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Claim => "Exchange an invitation's token for a certificate",
            Self::Renew => "Issue a new certificate for the same prefix",
            Self::Announce => "Announce where the node can be dialled, and which documents it has",
            Self::Depart => "Leave the network: revoke all certificates of the calling node",
            Self::Bootstrap => "List random nodes that can be dialled",
            Self::Network => "Get the signed network document",
            Self::Revocations => "Get the signed list of revocations",
            Self::Invite => "Create an invitation",
            Self::Invitations => "List the invitations that can still be used",
            Self::RevokeInvitation => "Revoke an invitation by its name or id",
            Self::Sign => "Issue a certificate for a request from a file",
            Self::Nodes => "List all unexpired certificates",
            Self::Rename => "Give a node another name",
            Self::Revoke => "Revoke a node",
            Self::Rollout => "Count the nodes that have the latest documents",
            Self::Parameters => "List all parameters",
            Self::Set => "Set a parameter",
            Self::RequestCa => {
                "Create the key of the next CA, and the request for a root to certify it"
            }
            Self::RotateCa => "Take one step to replace the CA",
            Self::RotateKey => "Take one step to replace a key that all nodes share",
            Self::Backup => "Copy the database to a new file",
            Self::AuditLog => "List the last entries of the audit log",
        }
    }

    /// Returns whether the request has a body.
    pub fn has_body(self) -> bool {
        self.route().0 != Method::GET
    }

    /// Returns the operator's calls or those of nodes, grouped by path.
    pub fn by_path(operator: bool) -> Vec<(&'static str, Vec<Self>)> {
        let is_wanted =
            |call: &Self| (call.allowed_caller() == AllowedCaller::Operator) == operator;
        let mut paths: Vec<(&'static str, Vec<Self>)> = Vec::new();
        for call in Self::ALL.into_iter().filter(is_wanted) {
            let (_, path) = call.route();
            match paths.iter_mut().find(|(known, _)| *known == path) {
                Some((_, calls)) => calls.push(call),
                None => paths.push((path, vec![call])),
            }
        }
        paths
    }
}
