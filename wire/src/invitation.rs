//! The line by which somebody is let in: where the registry is, how to know it, and a token.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{fmt, net::Ipv6Addr, str::FromStr};

/// Bytes of a token.
pub const TOKEN_BYTES: usize = 16;

/// Most characters of an invitation.
const LONGEST: usize = 512;

/// An invitation, `warren://HOST:PORT/?pin=…&token=…`. Printing and parsing round-trip exactly.
///
/// Its holder can join once, so it is never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// `HOST:PORT` as in a URL: an IPv6 address stands in brackets.
    pub address: RegistryAddress,
    /// SHA-256 of the SPKI of the network's CA.
    pub pin: [u8; 32],
    /// The secret token, which works once.
    pub token: [u8; TOKEN_BYTES],
}

/// `HOST:PORT` of a registry; the host is a name or an address, IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryAddress {
    host: String,
    port: u16,
}

/// The text is no invitation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an invitation (warren://HOST:PORT/?pin=…&token=…): {why}")]
pub struct BadInvitation {
    why: &'static str,
}

/// The text is no address of a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not HOST[:PORT]; an IPv6 address with a port stands in brackets")]
pub struct BadAddress {
    text: String,
}

impl RegistryAddress {
    /// Reads `HOST`, `HOST:PORT`, `[V6]:PORT` or a bare IPv6 address.
    ///
    /// # Errors
    /// The host is neither a name of DNS nor an address, or the port is none.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, BadAddress> {
        let bad = || BadAddress {
            text: text.chars().take(80).collect(),
        };
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self {
                host: address.to_string(),
                port: default_port,
            });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| bad())?),
            Some(_) | None => (text, default_port),
        };
        let host = match host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(inside) => inside.parse::<Ipv6Addr>().map_err(|_| bad())?.to_string(),
            None if is_host_name(host) => host.to_owned(),
            None => return Err(bad()),
        };
        if port == 0 {
            Err(bad())
        } else {
            Ok(Self { host, port })
        }
    }

    /// The name or address alone, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Letters, digits, hyphens and dots, as DNS has them; also IPv4 addresses.
fn is_host_name(host: &str) -> bool {
    let good = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    host.len() <= 253 && host.split('.').all(good)
}

impl fmt::Display for RegistryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pin, token) = (
            URL_SAFE_NO_PAD.encode(self.pin),
            URL_SAFE_NO_PAD.encode(self.token),
        );
        write!(f, "warren://{}/?pin={pin}&token={token}", self.address)
    }
}

impl FromStr for Invitation {
    type Err = BadInvitation;

    fn from_str(text: &str) -> Result<Self, BadInvitation> {
        let bad = |why| BadInvitation { why };
        if text.len() > LONGEST {
            return Err(bad("it is too long"));
        }
        let rest = text
            .strip_prefix("warren://")
            .ok_or(bad("it does not begin with warren://"))?;
        let (address, query) = rest.split_once("/?").ok_or(bad("it has no query"))?;
        let address = RegistryAddress::parse(address, crate::registry::PORT)
            .map_err(|_| bad("its HOST:PORT is not good"))?;
        let (mut pin, mut token) = (None, None);
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("pin", value)) if pin.is_none() => pin = Some(value),
                Some(("token", value)) if token.is_none() => token = Some(value),
                Some(_) | None => return Err(bad("its query has more than one pin and one token")),
            }
        }
        let pin = pin
            .and_then(bytes)
            .ok_or(bad("its pin is not 32 bytes in base64url"))?;
        let token = token
            .and_then(bytes)
            .ok_or(bad("its token is not 16 bytes in base64url"))?;
        Ok(Self {
            address,
            pin,
            token,
        })
    }
}

/// Exactly `N` bytes of base64url without padding.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// A token as it is written in claims.
pub fn token_text(token: &[u8; TOKEN_BYTES]) -> String {
    URL_SAFE_NO_PAD.encode(token)
}

/// Reads a token from a claim; `None` where the text is none.
pub fn token_from_text(text: &str) -> Option<[u8; TOKEN_BYTES]> {
    bytes(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, good: bool) {
        let read = text.parse::<Invitation>();
        assert_eq!(read.is_ok(), good, "{text}: {:?}", read.as_ref().err());
        if let Ok(invitation) = read {
            assert_eq!(invitation.to_string(), text);
        }
    }

    fn invitation(address: &str) -> String {
        let (pin, token) = (
            URL_SAFE_NO_PAD.encode([7; 32]),
            URL_SAFE_NO_PAD.encode([8; 16]),
        );
        format!("warren://{address}/?pin={pin}&token={token}")
    }

    #[test]
    fn an_invitation_has_one_spelling() {
        for good in [
            "registry.example:9443",
            "45.67.0.1:443",
            "[2001:db8::1]:9443",
        ] {
            check(&invitation(good), true);
        }
    }

    #[test]
    fn what_is_no_invitation_is_refused() {
        let good = invitation("registry.example:9443");
        for bad in ["", "warren://", "https://registry.example/"] {
            check(bad, false);
        }
        check(&good.replace("warren:", "http:"), false);
        check(&good.replace("pin=", "pin=A"), false);
        check(&good.replace("token=", "token=A"), false);
        check(&good.replace("&token", "&pin"), false);
        check(&format!("{good}&more=1"), false);
        check(&invitation("user@host:1"), false);
        check(&invitation("host:0"), false);
        check(&invitation("host:65536"), false);
        check(&invitation("[::zz]:1"), false);
        check(&invitation(&"a.".repeat(400)), false);
    }

    #[test]
    fn an_address_without_a_port_takes_the_default() {
        for (text, printed) in [
            ("registry.example", "registry.example:9443"),
            ("2001:db8::1", "[2001:db8::1]:9443"),
            ("[2001:db8::1]", "[2001:db8::1]:9443"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
            ("45.67.0.1:7", "45.67.0.1:7"),
        ] {
            assert_eq!(
                RegistryAddress::parse(text, 9443).unwrap().to_string(),
                printed
            );
        }
    }
}
