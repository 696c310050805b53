//! The documents that the operator's calls exchange.

use serde::{Deserialize, Serialize};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The body of `POST /v1/invitations`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// The lifetime of the invitation, in seconds.
    pub ttl_s: i64,
    /// The number of nodes that may join by it; `None` stands for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// The name of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The length of the node's prefix, in bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<u8>,
    /// Exactly this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Whether the invitation may be published; only a few nodes join by it from one network within an hour.
    #[serde(default)]
    pub anonymous: bool,
}

/// The answer to [`InviteRequest`], which `--json` prints too.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteResponse {
    /// The version of the document: 1.
    pub version: u32,
    /// The invitation, `warren://…`.
    pub invitation: String,
    /// The id by which it is revoked; it reveals nothing of the token.
    pub id: String,
    /// The expiry, in RFC 3339 and UTC.
    pub expires_at: String,
}

/// An invitation that can still be used, in the answer to `GET /v1/invitations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationEntry {
    /// The id by which it is revoked; it reveals nothing of the token.
    pub id: String,
    /// The name of the node that it lets in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The prefix of the node that it lets in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The length of the prefixes, in bits; `None` stands for the network's usual length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<u8>,
    /// The number of nodes that may join by it in total.
    pub uses: u32,
    /// The number of nodes that may still join by it.
    pub uses_left: u32,
    /// The time of its creation, in RFC 3339 and UTC.
    pub created_at: String,
    /// The person who created it, such as `uid 0`; `None` if that was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The expiry, in RFC 3339 and UTC.
    pub expires_at: String,
    /// Whether it may be published.
    pub anonymous: bool,
}

/// The answer to `GET /v1/invitations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationList {
    /// The version of the document: 1.
    pub version: u32,
    /// The invitations, the first to expire first.
    pub invitations: Vec<InvitationEntry>,
}

/// The body of `POST /v1/invitations/revocations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeInvitationRequest {
    /// The name or the id of the invitation.
    pub invitation: String,
}

/// The answer to [`RevokeInvitationRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedInvitation {
    /// The version of the document: 1.
    pub version: u32,
    /// The invitation as it was before.
    pub invitation: InvitationEntry,
}

/// The body of `POST /v1/signatures`; the answer is a [`wire::registry::Enrolment`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignRequest {
    /// A certificate request (PKCS #10) in PEM.
    pub csr: String,
    /// The name of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The length of the node's prefix, in bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<u8>,
    /// Exactly this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A certificate in the answer to `GET /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// The prefix of the node.
    pub prefix: String,
    /// The name of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The serial number, in lower-case hex.
    pub serial: String,
    /// The expiry, in RFC 3339 and UTC.
    pub expires_at: String,
    /// Whether the certificate is revoked.
    pub revoked: bool,
    /// The version of the CA that signed it.
    pub authority: u32,
    /// The announcement of the node, if it is still valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announcement: Option<AnnouncementEntry>,
}

/// The announcement of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncementEntry {
    /// The endpoints at which it can be dialled.
    pub endpoints: Vec<String>,
    /// The software that it runs.
    pub software: String,
    /// Version of the network document that it has received.
    pub network_version: u64,
    /// Version of the network document that all its processes run with.
    pub network_applied: u64,
    /// Version of the revocations that it has received.
    pub revocations_version: u64,
}

/// The answer to `GET /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeList {
    /// The version of the document: 1.
    pub version: u32,
    /// The nodes, sorted by prefix.
    pub nodes: Vec<NodeEntry>,
}

/// The body of `PUT /v1/names`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameRequest {
    /// The present name, the prefix or a serial number of the node.
    pub node: String,
    /// The new name; upper case is folded to lower case.
    pub name: String,
}

/// The answer to [`RenameRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenamedNode {
    /// The version of the document: 1.
    pub version: u32,
    /// The prefix of the node.
    pub prefix: String,
    /// The new name in lower case.
    pub name: String,
}

/// The body of `POST /v1/revocations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The name, the prefix or a serial number of the node.
    pub node: String,
}

/// The answer to [`RevokeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedNode {
    /// The version of the document: 1.
    pub version: u32,
    /// The prefix of the revoked node.
    pub prefix: String,
    /// The number of live certificates that were revoked.
    pub certificates: usize,
    /// The version of the list of revocations that contains them.
    pub revocations_version: u64,
}

/// The body of `PUT /v1/parameters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRequest {
    /// The name of the parameter.
    pub key: String,
    /// The new value.
    pub value: String,
}

/// A parameter in the answer to `GET /v1/parameters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// The name of the parameter.
    pub key: String,
    /// The present value.
    pub value: String,
    /// The effect of a new value on nodes: `live`, `drain`, `restart`, or `registry`.
    pub class: String,
}

/// The answer to `GET /v1/parameters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterList {
    /// The version of the document: 1.
    pub version: u32,
    /// All parameters of the network.
    pub parameters: Vec<Parameter>,
}

/// The answer to calls that change the network or copy the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeResult {
    /// The version of the document: 1.
    pub version: u32,
    /// The change that was made, in words.
    pub summary: String,
    /// The version of the network document after the change.
    pub network_version: u64,
}

/// The body of `POST /v1/backups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// The absolute path of a new file, which the registry writes.
    pub path: PathBuf,
    /// The folder of the file as the caller sees it. The registry refuses to write into another one of the same name, such
    /// as its own `/tmp` (systemd's `PrivateTmp=`); absent, it writes into the one that it sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderId>,
}

impl BackupRequest {
    /// A backup to this file, in the folder that the caller sees.
    pub fn to(path: PathBuf) -> Self {
        let folder = FolderId::of(&path);
        Self { path, folder }
    }
}

/// Which folder a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderId {
    /// The number of its file system (stat(2), `st_dev`).
    pub device: u64,
    /// Its inode number there.
    pub inode: u64,
}

impl FolderId {
    /// Returns the folder that holds `path`; `None` if it cannot be seen.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path.parent()?).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }
}

/// An entry in the answer to `GET /v1/audit-log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLogEntry {
    /// The time of the action, in RFC 3339 and UTC.
    pub at: String,
    /// The person who acted, such as `uid 0`.
    pub actor: String,
    /// The action, in words.
    pub action: String,
}

/// The answer to `GET /v1/audit-log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLog {
    /// The version of the document: 1.
    pub version: u32,
    /// The entries, the oldest first.
    pub entries: Vec<AuditLogEntry>,
}
