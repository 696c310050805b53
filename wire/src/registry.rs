//! The documents that nodes and the registry exchange: claims, announcements, bootstrap, and the
//! network's own document.

mod network;

pub use network::{
    DocumentError, IPV4_RIGHT, MAX_AUTHORITIES, NetworkDocument, ParametersDocument, static_key,
    static_key_text,
};

use crate::{signed::SignedDocument, text};
use policies::names::{Endpoint, Prefix};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The version of all documents in this file.
pub const VERSION: u32 = 1;

/// The registry's usual port.
pub const PORT: u16 = 9443;

/// Most bytes of a request's body.
pub const BODY_LIMIT: usize = 8 * 1024;

/// Most bytes of an answer.
pub const ANSWER_LIMIT: usize = 2 * 1024 * 1024;

/// Most nodes in one bootstrap answer.
pub const MAX_NODES: usize = 64;

/// `POST /v1/claims`: an invitation's token for a certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The token of the invitation; it works once.
    pub token: String,
    /// A request of PKCS #10 in PEM. Only its public key (P-256) is taken.
    pub csr: String,
}

/// The answer to a [`Claim`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The node's part of the network.
    #[serde(with = "text::one")]
    pub prefix: Prefix,
    /// The node's certificate (PEM).
    pub certificate: String,
    /// The network's CA (PEM); its SPKI's SHA-256 is the invitation's pin.
    pub ca: String,
    /// The signed [`NetworkDocument`].
    pub network: SignedDocument,
}

/// The answer that a machine without a route to the registry gets by file, once its request was
/// signed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// `HOST:PORT` of the registry, for later.
    pub registry: String,
    /// As if it had been claimed.
    pub claimed: Claimed,
}

/// `POST /v1/renewals`, with the old certificate on TLS: a fresh certificate for the same prefix.
///
/// From the last third of the old one's life on. For a while after its end too (the registry's
/// `grace_s`), but then with the old key only. Who asks again with the same key, since the answer
/// was lost, gets the same certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// A request of PKCS #10 in PEM, with the old key or a new one.
    pub csr: String,
}

/// The answer to a [`Renewal`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The node's new certificate (PEM).
    pub certificate: String,
}

/// `PUT /v1/nodes/self`: where the node can be dialled, and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// Best first; empty takes the announcement back.
    #[serde(with = "text::few")]
    pub endpoints: Vec<Endpoint>,
    /// What the node runs, at most [`SOFTWARE_LIMIT`] printable characters of ASCII.
    #[serde(default)]
    pub software: String,
    /// The version of the network document that the node holds; 0 if it reports none.
    #[serde(default)]
    pub network_version: u64,
    /// Version of the network document with which all its processes run.
    #[serde(default)]
    pub network_applied: u64,
    /// Version of the revocations that it holds and acts upon.
    #[serde(default)]
    pub revocations_version: u64,
    /// The nodes that were handed to it and that it could not dial.
    #[serde(default, with = "text::few")]
    pub unreachable: Vec<Prefix>,
    /// A random number that the daemon drew at its start; 0 if it says none. By it the registry notices that two machines have the
    /// same certificate.
    #[serde(default)]
    pub instance: u64,
}

/// Most characters of [`Announcement::software`].
pub const SOFTWARE_LIMIT: usize = 64;

/// `POST /v1/departures`: the calling node leaves the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// The version of the document: [`VERSION`].
    pub version: u32,
}

/// The answer to a [`Departure`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The number of certificates that were revoked.
    pub certificates: usize,
}

/// The answer to an [`Announcement`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The lifetime of the announcement, in seconds.
    pub ttl_s: u64,
    /// The endpoints that are not passed on to other nodes.
    pub rejected_endpoints: Vec<RejectedEndpoint>,
    /// The registry's clock, RFC 3339 UTC.
    pub at: String,
    /// Version of the network document at the registry.
    #[serde(default)]
    pub network_version: u64,
    /// Version of the revocations at the registry.
    #[serde(default)]
    pub revocations_version: u64,
    /// Whether the node should renew its certificate now, because it was renamed, or because the registry was restored from a copy without
    /// that certificate.
    #[serde(default)]
    pub renew: bool,
    /// The address of another machine that announces itself in turn with the same certificate; `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_machine: Option<IpAddr>,
    /// Number of nodes that have announced themselves lately; `None` if the registry does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u64>,
}

/// An endpoint that is not passed on to other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedEndpoint {
    /// The endpoint that was announced.
    #[serde(with = "text::one")]
    pub endpoint: Endpoint,
    /// The reason, in words.
    pub reason: String,
}

/// A node with its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The node's prefix.
    #[serde(with = "text::one")]
    pub prefix: Prefix,
    /// The node's endpoints, best first.
    #[serde(with = "text::few")]
    pub endpoints: Vec<Endpoint>,
}

/// `GET /v1/bootstrap?count=`: random nodes that announced themselves, without the asking node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// At most [`MAX_NODES`]; empty where the network has no others yet.
    #[serde(deserialize_with = "text::at_most::<MAX_NODES, _, _>")]
    pub nodes: Vec<Node>,
    /// The number of other nodes that have private endpoints only, and announced themselves from elsewhere than the asking node.
    #[serde(default)]
    pub hidden_nodes: u32,
    /// Version of the network document at the registry.
    pub network_version: u64,
    /// Version of the revocations at the registry.
    pub revocations_version: u64,
}

/// The kind of a signed payload, which is part of the payload, so that no kind can pass for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DocumentKind {
    /// The payload is a [`NetworkDocument`].
    Network,
    /// The payload is a list of [`Revocations`].
    Revocations,
}

/// Payload of the signed document `revocations`: complete, never a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// The kind of the payload: [`DocumentKind::Revocations`].
    pub kind: DocumentKind,
    /// Grows with each change; a node never goes back.
    pub version: u64,
    /// All that stand.
    pub revoked: Vec<Revoked>,
    /// Serial numbers (lower-case hex) of CAs between whose certificates and documents are good no more: CAs
    /// that a root certified, while the root stays.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "text::at_most::<MAX_REVOKED_CAS, _, _>"
    )]
    pub authorities: Vec<String>,
}

/// Most CAs in [`Revocations::authorities`].
pub const MAX_REVOKED_CAS: usize = 64;

/// A certificate that is no longer good, and its key with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revoked {
    /// The prefix of the revoked node.
    #[serde(with = "text::one")]
    pub prefix: Prefix,
    /// Serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// SHA-256 of the SPKI (DER), in lower-case hex. The key is blocked, whatever certificate
    /// holds it.
    pub key: String,
}

/// An error, as RFC 9457 has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The problem type; `about:blank` if the title is enough.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Short and always the same for the same problem.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This time, in words.
    #[serde(default)]
    pub detail: String,
    /// The field of the request that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Revocations {
    /// Reads a payload.
    ///
    /// # Errors
    /// No JSON of that shape.
    pub fn read(payload: &[u8]) -> Result<Self, DocumentError> {
        let shape = |why: String| DocumentError::Shape {
            what: "revocations",
            why,
        };
        let document: Self =
            serde_json::from_slice(payload).map_err(|error| shape(error.to_string()))?;
        if document.kind != DocumentKind::Revocations {
            return Err(shape("it is of another kind".into()));
        }
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_endpoints_is_cut_where_it_is_too_long() {
        let list = |count| vec!["\"udp:192.0.2.1:1\""; count].join(",");
        let read = |count| {
            serde_json::from_str::<Announcement>(&format!(
                r#"{{"version":1,"endpoints":[{}]}}"#,
                list(count)
            ))
        };
        assert!(read(text::FEW).is_ok());
        assert!(read(text::FEW + 1).is_err());
    }

    #[test]
    fn a_problem_has_the_names_of_rfc_9457() {
        let problem = Problem {
            kind: "about:blank".into(),
            status: 422,
            ..Problem::default()
        };
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "about:blank");
        assert!(json.get("field").is_none());
    }
}
