//! The calls and datagrams by which two nodes behind NATs open a path to each other.
//!
//! A node asks the other one for its observers, sends datagrams to one of them, and asks the other node to do the same. The
//! observer reports from which addresses they came. No call contains an address at which the called node would have to believe its
//! caller: a node sends only to addresses that its own neighbour has seen.

use crate::{hex::hex, text};
use policies::{
    hole_punching::NatMapping,
    names::{Endpoint, InvalidName, Prefix},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The path of two calls: `GET` is answered by an [`ObserversDocument`], `POST` of a [`HolePunchRequest`] by a [`HolePunchDocument`]; 409
/// if the node takes no part now, 429 if the caller asks too often, 504 if the observer has not seen both.
pub const HOLE_PUNCHES_PATH: &str = "/v1/hole-punches";
/// The path of the call to an observer: `POST` of an [`ObservationRequest`], answered by an [`ObservationDocument`]; 429 if the caller
/// asks too often.
pub const OBSERVATIONS_PATH: &str = "/v1/observations";
/// Maximum number of observers in an answer.
pub const MAX_OBSERVERS: usize = 4;
/// Maximum number of tokens in a request.
pub const MAX_TOKENS: usize = 2;

/// The datagram that opens a path. It is too short for OpenVPN, which drops it without a word.
pub const OPENING: [u8; 1] = [0];
/// What a datagram for an observer begins with. The first byte is no opcode of OpenVPN's.
const OBSERVED: [u8; 7] = *b"\0warren";
/// Length of a token, in bytes.
const TOKEN_LENGTH: usize = 16;

/// A random number that marks the datagrams of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub [u8; TOKEN_LENGTH]);

impl Token {
    /// Returns the datagram for an observer.
    pub fn datagram(self) -> Vec<u8> {
        [OBSERVED.as_slice(), &self.0].concat()
    }

    /// Returns the token of a datagram; `None` if it is none for an observer.
    pub fn of_datagram(datagram: &[u8]) -> Option<Self> {
        let token = datagram.strip_prefix(&OBSERVED)?;
        token.try_into().ok().map(Self)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for Token {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = InvalidName {
            expected: "a token of 32 lower-case hex digits",
        };
        let mut bytes = [0; TOKEN_LENGTH];
        let (digits, rest) = text.as_bytes().as_chunks::<2>();
        if digits.len() != bytes.len() || !rest.is_empty() {
            return Err(invalid);
        }
        for (byte, digits) in bytes.iter_mut().zip(digits) {
            let digits = std::str::from_utf8(digits).map_err(|_| invalid.clone())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| invalid.clone())?;
        }
        let token = Self(bytes);
        if token.to_string() == text {
            Ok(token)
        } else {
            Err(invalid)
        }
    }
}

/// The nodes that can see the node's datagrams: it has dialled them by UDP at a public address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObserversDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The observers; at most [`MAX_OBSERVERS`].
    #[serde(deserialize_with = "text::at_most::<MAX_OBSERVERS, _, _>")]
    pub observers: Vec<Observer>,
}

/// A node that can see datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observer {
    /// The prefix of the node.
    #[serde(with = "text::one")]
    pub node: Prefix,
    /// Where its server receives datagrams.
    #[serde(with = "text::one")]
    pub endpoint: Endpoint,
}

/// A request to open a path. The caller sends datagrams with its token to the observer meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolePunchRequest {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// One of the called node's observers.
    #[serde(with = "text::one")]
    pub observer: Prefix,
    /// The token of the caller's datagrams.
    #[serde(with = "text::one")]
    pub token: Token,
}

/// The path is open at the called node's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolePunchDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// Where the called node's server can be dialled, as the observer saw it.
    #[serde(with = "text::one")]
    pub endpoint: Endpoint,
    /// The caller's address and port, as the observer saw them.
    #[serde(with = "text::one")]
    pub caller: Endpoint,
    /// How the called node's NAT maps ports.
    pub mapping: Mapping,
}

/// The tokens of datagrams that an observer shall see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservationRequest {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The tokens; at most [`MAX_TOKENS`].
    #[serde(
        serialize_with = "text::few::serialize",
        deserialize_with = "few_tokens"
    )]
    pub tokens: Vec<Token>,
}

/// What an observer has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservationDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The source of the datagrams with each token that was seen; at most [`MAX_TOKENS`].
    #[serde(deserialize_with = "text::at_most::<MAX_TOKENS, _, _>")]
    pub seen: Vec<Seen>,
}

/// The source of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The token of the datagrams.
    #[serde(with = "text::one")]
    pub token: Token,
    /// The address and port from which they came.
    #[serde(with = "text::one")]
    pub source: Endpoint,
}

/// How a NAT maps ports (RFC 4787, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mapping {
    /// All destinations see the same port.
    EndpointIndependent,
    /// Each destination sees another one.
    EndpointDependent,
    /// Not known, or a way that only a newer node knows.
    #[serde(other)]
    Unknown,
}

impl From<NatMapping> for Mapping {
    fn from(mapping: NatMapping) -> Self {
        match mapping {
            NatMapping::Unknown => Self::Unknown,
            NatMapping::EndpointIndependent => Self::EndpointIndependent,
            NatMapping::EndpointDependent => Self::EndpointDependent,
        }
    }
}

impl From<Mapping> for NatMapping {
    fn from(mapping: Mapping) -> Self {
        match mapping {
            Mapping::Unknown => Self::Unknown,
            Mapping::EndpointIndependent => Self::EndpointIndependent,
            Mapping::EndpointDependent => Self::EndpointDependent,
        }
    }
}

/// Reads the tokens of a request.
fn few_tokens<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Token>, D::Error> {
    let tokens: Vec<Token> = text::few::deserialize(from)?;
    if tokens.len() > MAX_TOKENS {
        return Err(serde::de::Error::custom("too many tokens"));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "000102030405060708090a0b0c0d0eff";

    #[track_caller]
    fn check_token(text: &str, is_good: bool) {
        let read = text.parse::<Token>();
        assert_eq!(read.is_ok(), is_good, "{text}");
        if let Ok(token) = read {
            assert_eq!(token.to_string(), text);
            assert_eq!(Token::of_datagram(&token.datagram()), Some(token));
        }
    }

    #[test]
    fn a_token_has_one_spelling() {
        check_token(TOKEN, true);
        for bad in [
            &TOKEN.to_uppercase(),
            &TOKEN[..30],
            &TOKEN[..31],
            &format!("{TOKEN}00"),
            &TOKEN.replacen("00", "+0", 1),
            &TOKEN.replacen("00", "é", 1),
            "",
        ] {
            check_token(bad, false);
        }
    }

    #[test]
    fn only_a_datagram_of_the_exact_length_has_a_token() {
        let datagram = TOKEN.parse::<Token>().unwrap().datagram();
        assert_eq!(Token::of_datagram(&datagram[..22]), None);
        assert_eq!(Token::of_datagram(&[&datagram[..], b"x"].concat()), None);
        assert_eq!(Token::of_datagram(&OPENING), None);
    }

    #[test]
    fn the_numbers_of_tokens_observers_and_sources_are_bounded() {
        let count = |entry: &str, count| vec![entry.to_owned(); count].join(",");
        for extra in [0, 1] {
            let tokens = count(&format!("\"{TOKEN}\""), MAX_TOKENS + extra);
            let text = format!(r#"{{"version":1,"tokens":[{tokens}],"from_the_future":1}}"#);
            let read = serde_json::from_str::<ObservationRequest>(&text);
            assert_eq!(read.is_ok(), extra == 0, "{text}");
            let seen = format!(r#"{{"token":"{TOKEN}","source":"udp:45.67.2.1:9"}}"#);
            let seen = count(&seen, MAX_TOKENS + extra);
            let text = format!(r#"{{"version":1,"seen":[{seen}]}}"#);
            let read = serde_json::from_str::<ObservationDocument>(&text);
            assert_eq!(read.is_ok(), extra == 0, "{text}");
            let observer = r#"{"node":"7/16","endpoint":"udp:45.67.2.1:1194"}"#;
            let observers = count(observer, MAX_OBSERVERS + extra);
            let text = format!(r#"{{"version":1,"observers":[{observers}]}}"#);
            let read = serde_json::from_str::<ObserversDocument>(&text);
            assert_eq!(read.is_ok(), extra == 0, "{text}");
        }
    }

    #[test]
    fn a_mapping_of_a_newer_node_is_unknown() {
        let text = r#"{"version":1,"endpoint":"udp:45.67.2.1:7","caller":"udp:45.67.2.2:8","mapping":"by_moon"}"#;
        let document: HolePunchDocument = serde_json::from_str(text).unwrap();
        assert_eq!(NatMapping::from(document.mapping), NatMapping::Unknown);
    }
}
