//! The documents of the operator's calls.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `POST /v1/invitations`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// How long it is good, in seconds.
    pub ttl_s: i64,
    /// How many nodes it lets in; one where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// What people will call the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long its prefix shall be, in bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<u8>,
    /// Exactly this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Its line may be published: few may join by it from one network within an hour.
    #[serde(default)]
    pub anonymous: bool,
}

/// The answer to [`Invite`]; also what `--json` prints.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// 1.
    pub version: u32,
    /// `warren://…`.
    pub invitation: String,
    /// RFC 3339 UTC.
    pub expires: String,
}

/// `POST /v1/signatures`; the answer is an [`Enrolment`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignFile {
    /// A request of PKCS #10 in PEM.
    pub csr: String,
    /// What people will call the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long its prefix shall be, in bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<u8>,
    /// Exactly this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A certificate in the answer to `GET /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The prefix of the node.
    pub prefix: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Lower-case hex.
    pub serial: String,
    /// RFC 3339 UTC.
    pub expires: String,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Generation of the CA that signed it.
    pub authority: u32,
    /// What its node announced last, unless that is too long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Heard>,
}

/// What a node announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Where it can be dialled.
    pub endpoints: Vec<String>,
    /// What it runs.
    pub software: String,
    /// Version of the network document that it holds.
    pub network_version: u64,
    /// Version of the network document that all its processes run with.
    pub network_applied: u64,
    /// Version of the revocations that it holds.
    pub revocations_version: u64,
}

/// The answer to `GET /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// 1.
    pub version: u32,
    /// By prefix.
    pub nodes: Vec<Listed>,
}

/// `POST /v1/revocations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Name, prefix or serial number.
    pub node: String,
}

/// The answer to [`Revoke`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedNode {
    /// 1.
    pub version: u32,
    /// Whose certificates.
    pub prefix: String,
    /// How many certificates were live.
    pub certificates: usize,
    /// Version of the list that says so.
    pub revocations_version: u64,
}

/// `PUT /v1/parameters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// The key.
    pub key: String,
    /// What it shall be.
    pub value: String,
}

/// One of the answer to `GET /v1/parameters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// The key.
    pub key: String,
    /// What it is.
    pub value: String,
    /// `live`, `drain`, `restart`, or `registry`.
    pub class: String,
}

/// The answer to `GET /v1/parameters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterList {
    /// 1.
    pub version: u32,
    /// All.
    pub parameters: Vec<Parameter>,
}

/// What was done, in words, and the version of the network document since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// 1.
    pub version: u32,
    /// In words.
    pub done: String,
    /// Of the network document.
    pub network_version: u64,
}

/// `POST /v1/backups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// A file that does not exist yet; the registry writes it.
    pub path: PathBuf,
}

/// A line of the answer to `GET /v1/log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// RFC 3339 UTC.
    pub at: String,
    /// `uid N`.
    pub who: String,
    /// What was tried.
    pub what: String,
}

/// The answer to `GET /v1/log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// 1.
    pub version: u32,
    /// The oldest first.
    pub lines: Vec<Line>,
}
