//! The names of nodes, slots, transports and endpoints. Each name has one spelling.

use std::{fmt, str::FromStr};

/// A node's part of the network's IPv6 range: the bits that follow the network's own.
///
/// It is written `P/L`, as in the certificate's common name: decimal ASCII, no sign, no leading zero (but "0"
/// itself), `L` in 1..=32, `P < 2^L`. Parsing and printing round-trip exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    number: u32,
    length: u8,
}

impl Prefix {
    /// The fewest and the most bits that a prefix has.
    pub const LENGTHS: (u8, u8) = (1, 32);

    /// A prefix; `None` unless `length` is in 1..=32 and `number < 2^length`.
    pub fn new(number: u32, length: u8) -> Option<Self> {
        let in_range = (1..=32).contains(&length) && u64::from(number) < 1u64 << length;
        in_range.then_some(Self { number, length })
    }

    /// The bits after the network's, as a number below `2^length`.
    pub fn number(self) -> u32 {
        self.number
    }

    /// The number of bits after the network's, 1..=32.
    pub fn length(self) -> u8 {
        self.length
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.length)
    }
}

/// The error of a text that is no name of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName {
    /// The kind of name that was expected, such as "a prefix P/L".
    pub expected: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {}", self.expected)
    }
}

impl std::error::Error for InvalidName {}

impl FromStr for Prefix {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = InvalidName {
            expected: "a prefix P/L, such as 7/16",
        };
        let (number, length) = text.split_once('/').ok_or(invalid.clone())?;
        let number: u32 = number.parse().map_err(|_| invalid.clone())?;
        let length: u8 = length.parse().map_err(|_| invalid.clone())?;
        let prefix = Self::new(number, length).ok_or(invalid.clone())?;
        // Rust's number parser accepts "+7/16" and "07/16", which are not the one spelling.
        if prefix.to_string() == text {
            Ok(prefix)
        } else {
            Err(invalid)
        }
    }
}

/// The protocol that carries OpenVPN's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// The preferred transport.
    Udp,
    /// The fallback for networks that UDP does not pass.
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

impl FromStr for Transport {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "udp" => Ok(Self::Udp),
            "tcp" => Ok(Self::Tcp),
            _ => Err(InvalidName {
                expected: "a transport, udp or tcp",
            }),
        }
    }
}

/// The end of a tunnel that this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// This node is the OpenVPN client.
    Dialled,
    /// The peer is a client of this node's server.
    Accepted,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dialled => "dialled",
            Self::Accepted => "accepted",
        })
    }
}

/// The VLAN of the first accepting slot; OpenVPN puts clients without a `vlan-pvid` into VLAN 1.
pub const FIRST_VLAN: u16 = 2;

/// The place of one tunnel: a kernel link that is made at start and kept as long as the daemon runs.
///
/// It is printed as the link's name: `wrn0`, `wrnu.2`, `wrnt.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The TAP `wrnK`, K from 0.
    Dialling(u16),
    /// VLAN N, 2..=4094, on the TAP of this node's server of that transport: `wrnu.N` or `wrnt.N`.
    Accepting(Transport, u16),
}

impl Slot {
    /// The role of tunnels on this slot.
    pub fn role(self) -> Role {
        match self {
            Self::Dialling(_) => Role::Dialled,
            Self::Accepting(..) => Role::Accepted,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dialling(number) => write!(f, "wrn{number}"),
            Self::Accepting(Transport::Udp, vlan) => write!(f, "wrnu.{vlan}"),
            Self::Accepting(Transport::Tcp, vlan) => write!(f, "wrnt.{vlan}"),
        }
    }
}

impl FromStr for Slot {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = InvalidName {
            expected: "a slot, such as wrn0 or wrnu.2",
        };
        let rest = text.strip_prefix("wrn").ok_or(invalid.clone())?;
        let number = |digits: &str| digits.parse::<u16>().map_err(|_| invalid.clone());
        let slot = if let Some(vlan) = rest.strip_prefix("u.") {
            Self::Accepting(Transport::Udp, number(vlan)?)
        } else if let Some(vlan) = rest.strip_prefix("t.") {
            Self::Accepting(Transport::Tcp, number(vlan)?)
        } else {
            Self::Dialling(number(rest)?)
        };
        if slot.to_string() == text {
            Ok(slot)
        } else {
            Err(invalid)
        }
    }
}

/// An address at which a node's OpenVPN server can be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address and port in the underlay.
    pub address: std::net::SocketAddr,
    /// The transport, UDP or TCP.
    pub transport: Transport,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport, self.address)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidName;

    /// Parses `udp:192.0.2.1:1194` or `tcp:[2001:db8::1]:1194`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = InvalidName {
            expected: "an endpoint, such as udp:192.0.2.1:1194",
        };
        let (transport, address) = text.split_once(':').ok_or(invalid.clone())?;
        let endpoint = Self {
            address: address.parse().map_err(|_| invalid.clone())?,
            transport: transport.parse()?,
        };
        if endpoint.to_string() == text {
            Ok(endpoint)
        } else {
            Err(invalid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: FromStr<Err = InvalidName> + fmt::Display>(text: &str, is_valid: bool) {
        let round_trip = text.parse::<T>().map(|name| name.to_string());
        assert_eq!(round_trip.as_deref() == Ok(text), is_valid, "{text}");
        assert_eq!(round_trip.is_ok(), is_valid, "{text}");
    }

    #[test]
    fn a_prefix_has_one_spelling() {
        for text in ["0/1", "7/16", "65535/16", "4294967295/32"] {
            check::<Prefix>(text, true);
        }
        for text in [
            "", "7", "+7/16", "07/16", "7/016", "65536/16", "0/0", "0/33", "１/16", "7/16 ",
        ] {
            check::<Prefix>(text, false);
        }
    }

    #[test]
    fn a_slot_has_one_spelling() {
        for text in ["wrn0", "wrn12", "wrnu.2", "wrnt.30"] {
            check::<Slot>(text, true);
        }
        for text in [
            "", "wrn", "wrn01", "wrnu", "wrnu2", "wrnx.2", "wrn-1", "eth0",
        ] {
            check::<Slot>(text, false);
        }
    }

    #[test]
    fn an_endpoint_has_one_spelling() {
        for text in ["udp:192.0.2.1:1194", "tcp:[2001:db8::1]:1194"] {
            check::<Endpoint>(text, true);
        }
        for text in [
            "",
            "udp:",
            "udp:host:1",
            "sctp:192.0.2.1:1",
            "udp:192.0.2.1",
            "udp:[2001:DB8::1]:1",
        ] {
            check::<Endpoint>(text, false);
        }
    }
}
