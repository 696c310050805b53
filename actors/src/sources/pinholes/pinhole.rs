//! A port for which a router has opened its firewall, or why it has not.

use crate::sources::port_mapping::protocol::Protocol;
use os::randomness::Randomness;
use policies::names::Transport;
use serde::{Deserialize, Serialize};
use std::{
    error::Error,
    net::{Ipv6Addr, SocketAddrV6},
};
use wire::pcp::NONCE_LENGTH;

/// The random number by which a router recognises a pinhole by PCP.
pub type Nonce = [u8; NONCE_LENGTH];

/// The router of the IPv6 default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// The address of the router, mostly a link-local one.
    pub address: Ipv6Addr,
    /// The index of the link that leads to it.
    pub link: u32,
}

/// A port of this host for which the firewall is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pinhole {
    /// The address and port of this host.
    pub internal: SocketAddrV6,
    /// UDP or TCP.
    #[serde(with = "crate::sources::port_mapping::ledger::text")]
    pub transport: Transport,
    /// The number by which the router knows it.
    #[serde(flatten)]
    pub key: Key,
}

/// The number by which a router knows a pinhole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The random number of PCP, without which nobody can renew or end it.
    Nonce(Nonce),
    /// The number that the router returned by UPnP; `None` before its answer.
    UniqueId(Option<u16>),
}

impl Key {
    fn new(protocol: Protocol, random: &Randomness) -> Self {
        match protocol {
            Protocol::Pcp | Protocol::NatPmp => Self::Nonce(new_nonce(random)),
            Protocol::Upnp => Self::UniqueId(None),
        }
    }
}

impl Pinhole {
    /// A pinhole that is to be requested by this protocol.
    pub(super) fn new(
        (internal, transport): (SocketAddrV6, Transport),
        protocol: Protocol,
        random: &Randomness,
    ) -> Self {
        Self {
            internal,
            transport,
            key: Key::new(protocol, random),
        }
    }

    /// Returns the protocol by which it was requested.
    pub(super) fn protocol(&self) -> Protocol {
        match self.key {
            Key::Nonce(_) => Protocol::Pcp,
            Key::UniqueId(_) => Protocol::Upnp,
        }
    }

    /// Returns the address and port of this host, and the transport.
    pub(super) fn port(&self) -> (SocketAddrV6, Transport) {
        (self.internal, self.transport)
    }

    /// Returns whether both are for the same port, by the same protocol.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.port(), self.protocol()) == (other.port(), other.protocol())
    }
}

/// The reason why the firewall is not open.
#[derive(Debug, thiserror::Error)]
pub enum PinholeError {
    /// The router does not answer, or its answer makes no sense.
    #[error("the router does not open its firewall by {protocol}")]
    Silent {
        /// The protocol of the request.
        protocol: Protocol,
        /// The error of the request.
        #[source]
        source: Box<dyn Error>,
    },
    /// The router rejects the request.
    #[error("the router rejects the request by {protocol} with error {code}")]
    Rejected {
        /// The protocol of the request.
        protocol: Protocol,
        /// The code of RFC 6887, section 7.4, or of WANIPv6FirewallControl:1, section 2.5.
        code: u16,
    },
    /// The router would have others use another port or address.
    #[error("the router has a NAT for IPv6")]
    Translated,
    /// The router lets everything pass.
    #[error("the router's firewall for IPv6 is off, so nothing has to be opened")]
    NotNeeded,
    /// An administrator of the router does not want it.
    #[error("the router lets no host open its firewall (InboundPinholeAllowed is 0)")]
    NotAllowed,
}

impl PinholeError {
    /// The error if the router did not answer.
    pub(super) fn silent(protocol: Protocol, source: impl Into<Box<dyn Error>>) -> Self {
        Self::Silent {
            protocol,
            source: source.into(),
        }
    }
}

/// Returns a number for a new pinhole.
fn new_nonce(random: &Randomness) -> Nonce {
    let bits = [random.bits(), random.bits()].map(u64::to_be_bytes);
    let mut nonce = [0; NONCE_LENGTH];
    let bytes = bits.as_flattened().iter();
    nonce
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, key: Key) {
        let pinhole: Pinhole = serde_json::from_str(text).unwrap();
        assert_eq!(pinhole.key, key);
        assert_eq!(serde_json::to_string(&pinhole).unwrap(), text);
    }

    #[test]
    fn an_entry_of_the_ledger_says_by_which_protocol_the_router_was_asked() {
        let entry =
            |key: &str| format!(r#"{{"internal":"[2001:db8::7]:1194","transport":"udp",{key}}}"#);
        let nonce = r#""nonce":[1,2,3,4,5,6,7,8,9,10,11,12]"#;
        check(
            &entry(nonce),
            Key::Nonce([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        );
        check(&entry(r#""unique_id":7"#), Key::UniqueId(Some(7)));
        check(&entry(r#""unique_id":null"#), Key::UniqueId(None));
    }
}
