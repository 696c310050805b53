//! The network's own document: what all nodes must agree upon, and the keys that they share.

use super::DocumentKind;
use crate::{
    overlay::{Network, Network4},
    text,
};
use ipnet::{Ipv4Net, Ipv6Net};
use policies::{names::Prefix, parameters::Parameters};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The network as all its nodes see it: payload of the signed document `network`.
///
/// Its keys are secrets of the network: the document goes to members only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDocument {
    /// The kind of the payload: [`DocumentKind::Network`].
    pub kind: DocumentKind,
    /// The version, which grows with each change; a node never accepts an older one.
    pub version: u64,
    /// The network's range.
    pub network: Ipv6Net,
    /// The parameters that all nodes use.
    pub parameters: ParametersDocument,
    /// Babel's MAC key, 32 bytes in hex, for babeld's `type hmac-sha256`.
    pub babel_key: String,
    /// OpenVPN's static key (V1, 2048 bit) as `tls-crypt` takes it.
    pub tls_crypt: String,
    /// Whether private addresses may be announced and dialled.
    #[serde(default)]
    pub private_endpoints: bool,
    /// The trusted CAs (PEM); the first one signs at present. If the list is empty, nodes trust the CA
    /// that they got when they joined. While the CA is changed there are two.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "text::at_most::<MAX_AUTHORITIES, _, _>"
    )]
    pub authorities: Vec<String>,
    /// Babel packets with a wrong MAC or none are accepted: while its key is changed, since babeld
    /// has one key per interface.
    #[serde(default, skip_serializing_if = "is_false")]
    pub babel_lenient: bool,
    /// The key that other nodes may use in place of `tls_crypt` while it is changed. A dialling node
    /// tries it second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_crypt_other: Option<String>,
    /// The exit gateways: nodes that may announce a default route.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "text::few")]
    pub gateways: Vec<Prefix>,
    /// The IPv4 range for payload; `None` if the network carries IPv6 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Net>,
    /// The oldest software (`MAJOR.MINOR.PATCH`) that the network accepts; older nodes report that
    /// they are outdated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
    /// The lengths of all prefixes that were handed out or may be, in bits, sorted. If the list is empty, as in
    /// documents of registries before 0.2, nodes accept each length that a prefix can have.
    #[serde(default, deserialize_with = "text::at_most::<MAX_LENGTHS, _, _>")]
    pub prefix_lengths: Vec<u8>,
}

/// A valid value of [`NetworkDocument::ipv4`], in words.
pub const IPV4_RIGHT: &str = "a range of 8 to 24 bits without host bits, such as 10.0.0.0/8";

/// The maximum number of CAs in one document.
pub const MAX_AUTHORITIES: usize = 3;

/// The maximum number of different lengths of prefixes: 1 to 32 bits.
const MAX_LENGTHS: usize = 32;

/// The maximum length of one CA in PEM, in characters.
const AUTHORITY_LIMIT: usize = 4096;

fn is_false(value: &bool) -> bool {
    !value
}

/// [`Parameters`], times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented at `Parameters`")]
pub struct ParametersDocument {
    pub hello_interval_ms: u64,
    pub update_interval_ms: u64,
    pub tunnels_to_dial: u16,
    pub max_accepted: u16,
    pub refresh_ms: u64,
    pub min_age_ms: u64,
    #[serde(default = "probe_ms")]
    pub probe_ms: u64,
    #[serde(default = "idle_probe_ms")]
    pub idle_probe_ms: u64,
}

fn probe_ms() -> u64 {
    ParametersDocument::from(Parameters::default()).probe_ms
}

fn idle_probe_ms() -> u64 {
    ParametersDocument::from(Parameters::default()).idle_probe_ms
}

/// The reason why a document is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The text is not JSON of the expected shape.
    #[error("the {what} document is not well-formed: {why}")]
    Shape {
        /// The document that was read.
        what: &'static str,
        /// The parser's message.
        why: String,
    },
    /// A field has an impossible value.
    #[error("the network document's {field} is {value}, not {right}")]
    Value {
        /// The name of the JSON field.
        field: &'static str,
        /// The value that was found; never a key.
        value: String,
        /// A valid value, in words.
        right: &'static str,
    },
}

/// The error about a field with an impossible value.
fn wrong(field: &'static str, value: impl ToString, right: &'static str) -> DocumentError {
    DocumentError::Value {
        field,
        value: value.to_string(),
        right,
    }
}

impl NetworkDocument {
    /// The oldest release that the network accepts, if that is newer than `ours` (`MAJOR.MINOR.PATCH`).
    pub fn required_release_above(&self, ours: &str) -> Option<&str> {
        let least = self.min_version.as_deref()?;
        (release(ours)? < release(least)?).then_some(least)
    }

    /// Reads a payload and checks each value.
    ///
    /// # Errors
    /// Names the field and what would be right.
    pub fn read(payload: &[u8]) -> Result<Self, DocumentError> {
        let shape = |why: String| DocumentError::Shape {
            what: "network",
            why,
        };
        let document: Self =
            serde_json::from_slice(payload).map_err(|error| shape(error.to_string()))?;
        document.check()?;
        Ok(document)
    }

    /// Checks that each value is possible.
    ///
    /// # Errors
    /// Names the field and a valid value.
    pub fn check(&self) -> Result<(), DocumentError> {
        if self.kind != DocumentKind::Network {
            return Err(wrong("kind", "another", "network"));
        }
        if Network::new(self.network).is_none() {
            let right = "a range of 16 to 64 bits without host bits";
            return Err(wrong("network", self.network, right));
        }
        self.check_keys()?;
        if self
            .authorities
            .iter()
            .any(|pem| certificate(pem).is_none())
        {
            return Err(wrong(
                "authorities",
                "something else",
                "certificates in PEM",
            ));
        }
        let is_wrong = |version: &&String| !is_release(version);
        if let Some(version) = self.min_version.as_ref().filter(is_wrong) {
            let shown: String = version.chars().take(40).collect();
            return Err(wrong("min_version", shown, "MAJOR.MINOR.PATCH"));
        }
        let is_wrong = |length: &&u8| Prefix::new(0, **length).is_none();
        if let Some(length) = self.prefix_lengths.iter().find(is_wrong) {
            return Err(wrong("prefix_lengths", length, "1 to 32 bits"));
        }
        if let Some(ipv4) = self.ipv4.filter(|ipv4| Network4::new(*ipv4).is_none()) {
            return Err(wrong("ipv4", ipv4, IPV4_RIGHT));
        }
        self.parameters.check()
    }

    /// Checks the keys; their values never appear in the error.
    fn check_keys(&self) -> Result<(), DocumentError> {
        let is_hex = |text: &str| {
            text.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if self.babel_key.len() != 64 || !is_hex(&self.babel_key) {
            return Err(wrong("babel_key", "hidden", "32 bytes in lower-case hex"));
        }
        let right = "an OpenVPN static key V1 of 2048 bits";
        if static_key(&self.tls_crypt).is_none() {
            return Err(wrong("tls_crypt", "hidden", right));
        }
        let is_wrong = |key: &String| static_key(key).is_none();
        if self.tls_crypt_other.as_ref().is_some_and(is_wrong) {
            return Err(wrong("tls_crypt_other", "hidden", right));
        }
        Ok(())
    }

    /// The CAs of the document (DER), the one that signs now first.
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        self.authorities
            .iter()
            .filter_map(|pem| certificate(pem))
            .collect()
    }

    /// The numbers as the policies take them.
    pub fn parameters(&self) -> Parameters {
        Parameters {
            ipv4: self.ipv4.is_some(),
            ..self.parameters.parameters()
        }
    }

    /// The plan of IPv4 addresses for payload, where there is one.
    pub fn payload4(&self) -> Option<Network4> {
        self.ipv4.and_then(Network4::new)
    }

    /// The network's address plan.
    pub fn range(&self) -> Option<Network> {
        Network::new(self.network)
    }
}

/// The DER of one certificate in PEM.
fn certificate(pem: &str) -> Option<Vec<u8>> {
    if pem.len() > AUTHORITY_LIMIT {
        return None;
    }
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    block.parse_x509().ok()?;
    Some(block.contents)
}

/// The three numbers of a release; text after a hyphen or a plus sign is ignored. Each number has at most 6 digits; otherwise `None`.
fn release(text: &str) -> Option<[u32; 3]> {
    let numbers = text
        .split(['-', '+'])
        .next()
        .filter(|numbers| is_release(numbers))?;
    let numbers: Option<Vec<u32>> = numbers
        .split('.')
        .map(|number| number.parse().ok())
        .collect();
    numbers?.try_into().ok()
}

fn is_release(text: &str) -> bool {
    let number = |part: &str| {
        (1..=6).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    text.split('.').count() == 3 && text.split('.').all(number)
}

/// The maximum length of an OpenVPN static key in characters, comments included.
const STATIC_KEY_LIMIT: usize = 2048;

/// The 256 bytes of an OpenVPN static key V1; `None` if the text is no such key.
pub fn static_key(text: &str) -> Option<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN OpenVPN Static key V1-----\n";
    const END: &str = "\n-----END OpenVPN Static key V1-----";
    if text.len() > STATIC_KEY_LIMIT {
        return None;
    }
    let (_, rest) = text.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    let digits: Vec<u32> = body
        .chars()
        .filter(|c| *c != '\n')
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
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
    /// Checks that each value lies in its range.
    ///
    /// # Errors
    /// Names the first that does not.
    pub fn check(&self) -> Result<(), DocumentError> {
        let day = 24 * 3600 * 1000;
        let ranges = [
            (
                "hello_interval_ms",
                self.hello_interval_ms,
                500..=15_000,
                "500 to 15000",
            ),
            (
                "update_interval_ms",
                self.update_interval_ms,
                4_000..=120_000,
                "4000 to 120000",
            ),
            (
                "tunnels_to_dial",
                self.tunnels_to_dial.into(),
                1..=30,
                "1 to 30",
            ),
            (
                "max_accepted",
                self.max_accepted.into(),
                0..=250,
                "0 to 250",
            ),
            // Real networks use 30 s or more; a lab may use less.
            (
                "refresh_ms",
                self.refresh_ms,
                1_000..=3_600_000,
                "1000 to 3600000",
            ),
            ("min_age_ms", self.min_age_ms, 0..=day, "0 to 86400000"),
            ("probe_ms", self.probe_ms, 250..=5_000, "250 to 5000"),
            (
                "idle_probe_ms",
                self.idle_probe_ms,
                1_000..=300_000,
                "1000 to 300000",
            ),
        ];
        match ranges
            .into_iter()
            .find(|(_, value, range, _)| !range.contains(value))
        {
            None => Ok(()),
            Some((field, value, _, right)) => Err(DocumentError::Value {
                field,
                value: value.to_string(),
                right,
            }),
        }
    }

    fn parameters(&self) -> Parameters {
        Parameters {
            hello_interval: Duration::from_millis(self.hello_interval_ms),
            update_interval: Duration::from_millis(self.update_interval_ms),
            tunnels_to_dial: self.tunnels_to_dial,
            max_accepted: self.max_accepted,
            refresh: Duration::from_millis(self.refresh_ms),
            min_age: Duration::from_millis(self.min_age_ms),
            probe: Duration::from_millis(self.probe_ms),
            idle_probe: Duration::from_millis(self.idle_probe_ms),
            ipv4: false,
        }
    }
}

impl From<Parameters> for ParametersDocument {
    /// Durations are truncated to milliseconds.
    fn from(parameters: Parameters) -> Self {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            hello_interval_ms: ms(parameters.hello_interval),
            update_interval_ms: ms(parameters.update_interval),
            tunnels_to_dial: parameters.tunnels_to_dial,
            max_accepted: parameters.max_accepted,
            refresh_ms: ms(parameters.refresh),
            min_age_ms: ms(parameters.min_age),
            probe_ms: ms(parameters.probe),
            idle_probe_ms: ms(parameters.idle_probe),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> NetworkDocument {
        NetworkDocument {
            kind: DocumentKind::Network,
            version: 1,
            network: "fd12:3456:789a::/48".parse().unwrap(),
            parameters: Parameters::default().into(),
            babel_key: "0f".repeat(32),
            tls_crypt: static_key_text(&[0xa5; 256]),
            private_endpoints: false,
            authorities: Vec::new(),
            babel_lenient: false,
            tls_crypt_other: None,
            gateways: Vec::new(),
            ipv4: None,
            min_version: None,
            prefix_lengths: vec![16],
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
                let message = read.err().unwrap().to_string();
                assert!(message.contains(words), "{message:?} lacks {words:?}");
            }
        }
    }

    #[test]
    fn releases_are_compared_number_by_number() {
        let required = |least: Option<&str>, ours: &str| {
            let network = NetworkDocument {
                min_version: least.map(str::to_owned),
                ..document()
            };
            network.required_release_above(ours).map(str::to_owned)
        };
        assert_eq!(required(Some("0.10.0"), "0.9.9"), Some("0.10.0".to_owned()));
        assert_eq!(required(Some("0.10.0"), "0.10.0"), None);
        assert_eq!(required(Some("0.10.0"), "1.0.0-rc.1"), None);
        assert_eq!(required(Some("0.10.0"), "unknown"), None);
        assert_eq!(required(None, "0.0.1"), None);
    }

    #[test]
    fn a_network_document_round_trips() {
        check(|_| (), None);
        assert_eq!(document().parameters(), Parameters::default());
        assert_eq!(static_key(&document().tls_crypt), Some(vec![0xa5; 256]));
    }

    #[test]
    fn each_bad_value_is_named() {
        check(|d| d.kind = DocumentKind::Revocations, Some("kind"));
        check(
            |d| d.network = "fd00::1/48".parse().unwrap(),
            Some("network is fd00::1/48"),
        );
        check(
            |d| d.network = "fd00::/72".parse().unwrap(),
            Some("network is fd00::/72"),
        );
        check(|d| d.babel_key = "0f".repeat(31), Some("babel_key"));
        check(|d| d.babel_key = "0F".repeat(32), Some("babel_key"));
        check(|d| d.tls_crypt = "hello".into(), Some("tls_crypt"));
        check(
            |d| d.tls_crypt = static_key_text(&[1; 256]).replace("01\n", "\n"),
            Some("tls_crypt"),
        );
        check(
            |d| d.parameters.hello_interval_ms = 499,
            Some("hello_interval_ms is 499, not 500 to 15000"),
        );
        check(
            |d| d.parameters.tunnels_to_dial = 31,
            Some("tunnels_to_dial"),
        );
        check(|d| d.parameters.max_accepted = 251, Some("max_accepted"));
        check(|d| d.parameters.refresh_ms = 0, Some("refresh_ms"));
        check(
            |d| d.parameters.probe_ms = 249,
            Some("probe_ms is 249, not 250 to 5000"),
        );
        check(|d| d.parameters.idle_probe_ms = 999, Some("idle_probe_ms"));
        check(
            |d| d.tls_crypt_other = Some("hello".into()),
            Some("tls_crypt_other"),
        );
        check(
            |d| d.authorities = vec!["hello".into()],
            Some("authorities"),
        );
        check(
            |d| d.min_version = Some("1.2".into()),
            Some("min_version is 1.2, not MAJOR.MINOR.PATCH"),
        );
        check(|d| d.min_version = Some("1.2.3".into()), None);
        check(|d| d.ipv4 = Some("10.0.0.0/8".parse().unwrap()), None);
        check(
            |d| d.ipv4 = Some("10.0.0.1/8".parse().unwrap()),
            Some("ipv4 is 10.0.0.1/8, not a range"),
        );
        check(
            |d| d.ipv4 = Some("127.0.0.0/8".parse().unwrap()),
            Some("ipv4"),
        );
        check(
            |d| d.ipv4 = Some("10.1.2.0/25".parse().unwrap()),
            Some("ipv4"),
        );
    }

    #[test]
    fn prefixes_have_1_to_32_bits_and_an_older_document_lists_no_lengths() {
        check(
            |d| d.prefix_lengths = vec![16, 33],
            Some("prefix_lengths is 33, not 1 to 32 bits"),
        );
        check(|d| d.prefix_lengths = Vec::new(), None);
    }

    #[test]
    fn a_complaint_never_shows_a_key() {
        let mut bad = document();
        bad.babel_key = "secret".into();
        assert!(!bad.check().unwrap_err().to_string().contains("secret"));
    }
}
