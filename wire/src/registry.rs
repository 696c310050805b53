//! What nodes and the registry tell each other: claims, announcements, bootstrap, and the network's
//! own document. `docs/ARCHITECTURE.md` lists the calls.

use crate::{overlay::Network, signed::SignedDocument, text};
use ipnet::Ipv6Net;
use policies::{
    names::{Endpoint, Prefix},
    parameters::Parameters,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The version of all documents in this file.
pub const VERSION: u32 = 1;

/// The registry's usual port.
pub const PORT: u16 = 9443;

/// Most bytes of a request's body.
pub const BODY_LIMIT: usize = 8 * 1024;

/// Most bytes of an answer.
pub const ANSWER_LIMIT: usize = 2 * 1024 * 1024;

/// Most nodes in one bootstrap answer.
pub const MOST_NODES: usize = 64;

/// `POST /v1/claims`: an invitation's token for a certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// [`VERSION`].
    pub version: u32,
    /// From the invitation; works once.
    pub token: String,
    /// A request of PKCS #10 in PEM. Only its public key (P-256) is taken.
    pub csr: String,
}

/// The answer to a [`Claim`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// [`VERSION`].
    pub version: u32,
    /// The node's part of the network.
    #[serde(with = "text::one")]
    pub prefix: Prefix,
    /// The node's certificate (PEM).
    pub certificate: String,
    /// The network's CA (PEM); its SPKI's SHA-256 is the invitation's pin.
    pub ca: String,
    /// A [`NetworkDocument`].
    pub network: SignedDocument,
}

/// `POST /v1/renewals`, with the old certificate on TLS: a fresh certificate for the same prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// [`VERSION`].
    pub version: u32,
    /// A request of PKCS #10 in PEM, with the old key or a new one.
    pub csr: String,
}

/// The answer to a [`Renewal`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// [`VERSION`].
    pub version: u32,
    /// The node's new certificate (PEM).
    pub certificate: String,
}

/// `PUT /v1/nodes/self`: where the node can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// [`VERSION`].
    pub version: u32,
    /// Best first; empty takes the announcement back.
    #[serde(with = "text::few")]
    pub endpoints: Vec<Endpoint>,
}

/// The answer to an [`Announcement`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// [`VERSION`].
    pub version: u32,
    /// How long it is kept, in seconds.
    pub ttl_s: u64,
    /// Endpoints that others will not be told.
    pub refused: Vec<Refused>,
    /// The registry's clock, RFC 3339 UTC.
    pub at: String,
}

/// An endpoint that others will not be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which.
    #[serde(with = "text::one")]
    pub endpoint: Endpoint,
    /// In words.
    pub why: String,
}

/// A node with its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Who.
    #[serde(with = "text::one")]
    pub prefix: Prefix,
    /// Where, best first.
    #[serde(with = "text::few")]
    pub endpoints: Vec<Endpoint>,
}

/// `GET /v1/bootstrap?count=`: random nodes that announced themselves, not the asker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// [`VERSION`].
    pub version: u32,
    /// At most [`MOST_NODES`]; empty where the network has no others yet.
    #[serde(deserialize_with = "text::at_most::<MOST_NODES, _, _>")]
    pub nodes: Vec<Node>,
    /// Version of the network document at the registry.
    pub network_version: u64,
    /// Version of the revocations at the registry.
    pub revocations_version: u64,
}

/// What a payload is, so that none passes for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// [`NetworkDocument`].
    Network,
    /// [`Revocations`].
    Revocations,
}

/// The network as all its nodes see it: payload of the signed document `network`.
///
/// Its keys are secrets of the network: the document goes to members only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDocument {
    /// [`Kind::Network`].
    pub kind: Kind,
    /// Grows with each change; a node never goes back.
    pub version: u64,
    /// The network's range.
    pub network: Ipv6Net,
    /// Numbers that steer the nodes.
    pub parameters: ParametersDocument,
    /// Babel's MAC key, 32 bytes in hex, for babeld's `type hmac-sha256`.
    pub babel_key: String,
    /// OpenVPN's static key (V1, 2048 bit) as `tls-crypt` takes it.
    pub tls_crypt: String,
    /// Whether private addresses may be announced and dialled.
    #[serde(default)]
    pub private_endpoints: bool,
}

/// [`Parameters`], times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "said at `Parameters`")]
pub struct ParametersDocument {
    pub hello_interval_ms: u64,
    pub update_interval_ms: u64,
    pub tunnels_to_dial: u16,
    pub max_accepted: u16,
    pub refresh_ms: u64,
    pub min_age_ms: u64,
}

/// Payload of the signed document `revocations`: complete, never a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// [`Kind::Revocations`].
    pub kind: Kind,
    /// Grows with each change; a node never goes back.
    pub version: u64,
    /// All that stand.
    pub revoked: Vec<Revoked>,
}

/// A certificate that is no longer good, and its key with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revoked {
    /// Whose.
    #[serde(with = "text::one")]
    pub prefix: Prefix,
    /// Serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// SHA-256 of the SPKI (DER), lower-case hex: the key is barred, whatever certificate holds it.
    pub key: String,
}

/// An error, as RFC 9457 has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank` where the title says it all.
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

/// Why a document is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// No JSON of that shape.
    #[error("the {what} document is not well-formed: {why}")]
    Shape {
        /// Which document.
        what: &'static str,
        /// The parser's words.
        why: String,
    },
    /// A value that cannot be.
    #[error("the network document's {field} is {value}, not {right}")]
    Value {
        /// Which.
        field: &'static str,
        /// What it is; never a key.
        value: String,
        /// What would be right.
        right: &'static str,
    },
}

impl NetworkDocument {
    /// Reads a payload and checks each value.
    ///
    /// # Errors
    /// Names the field and what would be right.
    pub fn read(payload: &[u8]) -> Result<Self, DocumentError> {
        let shape = |why: String| DocumentError::Shape { what: "network", why };
        let document: Self = serde_json::from_slice(payload).map_err(|error| shape(error.to_string()))?;
        document.check()?;
        Ok(document)
    }

    /// Whether each value can be.
    ///
    /// # Errors
    /// Names the field and what would be right.
    pub fn check(&self) -> Result<(), DocumentError> {
        let bad = |field, value: String, right| Err(DocumentError::Value { field, value, right });
        if self.kind != Kind::Network {
            return bad("kind", "another".into(), "network");
        }
        if Network::new(self.network).is_none() {
            return bad("network", self.network.to_string(), "a range of 16 to 64 bits without host bits");
        }
        let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if self.babel_key.len() != 64 || !is_hex(&self.babel_key) {
            return bad("babel_key", "hidden".into(), "32 bytes in lower-case hex");
        }
        if static_key(&self.tls_crypt).is_none() {
            return bad("tls_crypt", "hidden".into(), "an OpenVPN static key V1 of 2048 bits");
        }
        self.parameters.check()
    }

    /// The network's address plan.
    pub fn range(&self) -> Option<Network> {
        Network::new(self.network)
    }
}

/// Most characters of an OpenVPN static key, comments included.
const STATIC_KEY_LIMIT: usize = 2048;

/// The 256 bytes of an OpenVPN static key V1; `None` where the text is none.
pub fn static_key(text: &str) -> Option<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN OpenVPN Static key V1-----\n";
    const END: &str = "\n-----END OpenVPN Static key V1-----";
    if text.len() > STATIC_KEY_LIMIT {
        return None;
    }
    let (_, rest) = text.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    let digits: Vec<u32> =
        body.chars().filter(|c| *c != '\n').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let bytes = digits.chunks_exact(2).map(|pair| match pair {
        [high, low] => u8::try_from(high << 4 | low).ok(),
        _ => None,
    });
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    (digits.len() == 512).then_some(bytes)
}

/// An OpenVPN static key V1 in its usual form.
pub fn static_key_text(bytes: &[u8; 256]) -> String {
    let lines: Vec<String> = bytes.chunks(16).map(crate::signed::hex).collect();
    let body = lines.join("\n");
    format!("-----BEGIN OpenVPN Static key V1-----\n{body}\n-----END OpenVPN Static key V1-----\n")
}

impl ParametersDocument {
    /// Whether each value lies in its range.
    ///
    /// # Errors
    /// Names the first that does not.
    pub fn check(&self) -> Result<(), DocumentError> {
        let day = 24 * 3600 * 1000;
        let ranges = [
            ("hello_interval_ms", self.hello_interval_ms, 500..=15_000, "500 to 15000"),
            ("update_interval_ms", self.update_interval_ms, 4_000..=120_000, "4000 to 120000"),
            ("tunnels_to_dial", self.tunnels_to_dial.into(), 1..=30, "1 to 30"),
            ("max_accepted", self.max_accepted.into(), 0..=250, "0 to 250"),
            // Networks keep to 30 s and more; a laboratory may be quicker.
            ("refresh_ms", self.refresh_ms, 1_000..=3_600_000, "1000 to 3600000"),
            ("min_age_ms", self.min_age_ms, 0..=day, "0 to 86400000"),
        ];
        match ranges.into_iter().find(|(_, value, range, _)| !range.contains(value)) {
            None => Ok(()),
            Some((field, value, _, right)) => {
                Err(DocumentError::Value { field, value: value.to_string(), right })
            }
        }
    }

    /// As the policies take them.
    pub fn parameters(&self) -> Parameters {
        Parameters {
            hello_interval: Duration::from_millis(self.hello_interval_ms),
            update_interval: Duration::from_millis(self.update_interval_ms),
            tunnels_to_dial: self.tunnels_to_dial,
            max_accepted: self.max_accepted,
            refresh: Duration::from_millis(self.refresh_ms),
            min_age: Duration::from_millis(self.min_age_ms),
        }
    }
}

impl From<Parameters> for ParametersDocument {
    /// Spans are cut to whole milliseconds.
    fn from(parameters: Parameters) -> Self {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            hello_interval_ms: ms(parameters.hello_interval),
            update_interval_ms: ms(parameters.update_interval),
            tunnels_to_dial: parameters.tunnels_to_dial,
            max_accepted: parameters.max_accepted,
            refresh_ms: ms(parameters.refresh),
            min_age_ms: ms(parameters.min_age),
        }
    }
}

impl Revocations {
    /// Reads a payload.
    ///
    /// # Errors
    /// No JSON of that shape.
    pub fn read(payload: &[u8]) -> Result<Self, DocumentError> {
        let shape = |why: String| DocumentError::Shape { what: "revocations", why };
        let document: Self = serde_json::from_slice(payload).map_err(|error| shape(error.to_string()))?;
        if document.kind != Kind::Revocations {
            return Err(shape("it is of another kind".into()));
        }
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> NetworkDocument {
        NetworkDocument {
            kind: Kind::Network,
            version: 1,
            network: "fd12:3456:789a::/48".parse().unwrap(),
            parameters: Parameters::default().into(),
            babel_key: "0f".repeat(32),
            tls_crypt: static_key_text(&[0xa5; 256]),
            private_endpoints: false,
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut NetworkDocument), complaint: Option<&str>) {
        let mut changed = document();
        change(&mut changed);
        let read = NetworkDocument::read(&serde_json::to_vec(&changed).unwrap());
        match complaint {
            None => assert!(read == Ok(changed)),
            Some(words) => {
                let said = read.err().unwrap().to_string();
                assert!(said.contains(words), "{said:?} does not say {words:?}");
            }
        }
    }

    #[test]
    fn a_network_document_round_trips() {
        check(|_| (), None);
        assert_eq!(document().parameters.parameters(), Parameters::default());
        assert_eq!(static_key(&document().tls_crypt), Some(vec![0xa5; 256]));
    }

    #[test]
    fn each_bad_value_is_named() {
        check(|d| d.kind = Kind::Revocations, Some("kind"));
        check(|d| d.network = "fd00::1/48".parse().unwrap(), Some("network is fd00::1/48"));
        check(|d| d.network = "fd00::/72".parse().unwrap(), Some("network is fd00::/72"));
        check(|d| d.babel_key = "0f".repeat(31), Some("babel_key"));
        check(|d| d.babel_key = "0F".repeat(32), Some("babel_key"));
        check(|d| d.tls_crypt = "hello".into(), Some("tls_crypt"));
        check(|d| d.tls_crypt = static_key_text(&[1; 256]).replace("01\n", "\n"), Some("tls_crypt"));
        check(|d| d.parameters.hello_interval_ms = 499, Some("hello_interval_ms is 499, not 500 to 15000"));
        check(|d| d.parameters.tunnels_to_dial = 31, Some("tunnels_to_dial"));
        check(|d| d.parameters.max_accepted = 251, Some("max_accepted"));
        check(|d| d.parameters.refresh_ms = 0, Some("refresh_ms"));
    }

    #[test]
    fn a_complaint_never_shows_a_key() {
        let mut bad = document();
        bad.babel_key = "secret".into();
        assert!(!bad.check().unwrap_err().to_string().contains("secret"));
    }

    #[test]
    fn a_list_of_endpoints_is_cut_where_it_is_too_long() {
        let list = |count| vec!["\"udp:192.0.2.1:1\""; count].join(",");
        let read = |count| {
            serde_json::from_str::<Announcement>(&format!(r#"{{"version":1,"endpoints":[{}]}}"#, list(count)))
        };
        assert!(read(text::FEW).is_ok());
        assert!(read(text::FEW + 1).is_err());
    }

    #[test]
    fn a_problem_has_the_names_of_rfc_9457() {
        let problem = Problem { kind: "about:blank".into(), status: 422, ..Problem::default() };
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "about:blank");
        assert!(json.get("field").is_none());
    }
}
