//! What things are called: nodes, slots, transports. Each name has one spelling.

use std::{fmt, str::FromStr};

/// A node's part of the network's IPv6 range: the bits that follow the network's own.
///
/// Written `P/L` as in the certificate's common name: decimal ASCII, no sign, no leading zero (but
/// "0" itself), `L` in 1..=32, `P < 2^L`; parsing and printing round-trip exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    number: u32,
    length: u8,
}

impl Prefix {
    /// Fewest and most bits that a prefix has.
    pub const LENGTHS: (u8, u8) = (1, 32);

    /// `None` unless `length` is in 1..=32 and `number < 2^length`.
    pub fn new(number: u32, length: u8) -> Option<Self> {
        let in_range = (1..=32).contains(&length) && u64::from(number) < 1u64 << length;
        in_range.then_some(Self { number, length })
    }

    /// The bits after the network's, as a number below `2^length`.
    pub fn number(self) -> u32 {
        self.number
    }

    /// How many bits follow the network's, 1..=32.
    pub fn length(self) -> u8 {
        self.length
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.length)
    }
}

/// The text was not a name of that kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName {
    /// What was expected, such as "a prefix P/L".
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
        let bad = InvalidName {
            expected: "a prefix P/L, such as 7/16",
        };
        let (number, length) = text.split_once('/').ok_or(bad.clone())?;
        let number: u32 = number.parse().map_err(|_| bad.clone())?;
        let length: u8 = length.parse().map_err(|_| bad.clone())?;
        let prefix = Self::new(number, length).ok_or(bad.clone())?;
        // Refuses "+7/16" and "07/16", which Rust's number parser takes.
        if prefix.to_string() == text {
            Ok(prefix)
        } else {
            Err(bad)
        }
    }
}

/// How OpenVPN's packets travel below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Preferred.
    Udp,
    /// The fallback where UDP does not pass.
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

/// Which end of a tunnel we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// We are the OpenVPN client.
    Dialled,
    /// A client of our server.
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

/// The first accepting slot; VLAN 1 is where OpenVPN puts clients without a `vlan-pvid`.
pub const FIRST_VLAN: u16 = 2;

/// A kernel link made at start and kept for the daemon's whole life: the place of one tunnel.
///
/// Printed as the link's name: `wrn0`, `wrnu.2`, `wrnt.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// A TAP of ours, `wrnK`, K from 0.
    Dialling(u16),
    /// VLAN N, 2..=4094, on the TAP of our server of that transport: `wrnu.N` or `wrnt.N`.
    Accepting(Transport, u16),
}

impl Slot {
    /// Dialled for a dialling slot, accepted for an accepting one.
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
        let bad = InvalidName {
            expected: "a slot, such as wrn0 or wrnu.2",
        };
        let rest = text.strip_prefix("wrn").ok_or(bad.clone())?;
        let number = |digits: &str| digits.parse::<u16>().map_err(|_| bad.clone());
        let slot = match (rest.strip_prefix("u."), rest.strip_prefix("t.")) {
            (Some(vlan), _) => Self::Accepting(Transport::Udp, number(vlan)?),
            (_, Some(vlan)) => Self::Accepting(Transport::Tcp, number(vlan)?),
            _ => Self::Dialling(number(rest)?),
        };
        if slot.to_string() == text {
            Ok(slot)
        } else {
            Err(bad)
        }
    }
}

/// Where a node's OpenVPN server can be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address and port of the underlay.
    pub address: std::net::SocketAddr,
    /// UDP or TCP.
    pub transport: Transport,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport, self.address)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidName;

    /// `udp:192.0.2.1:1194`, `tcp:[2001:db8::1]:1194`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bad = InvalidName {
            expected: "an endpoint, such as udp:192.0.2.1:1194",
        };
        let (transport, address) = text.split_once(':').ok_or(bad.clone())?;
        let endpoint = Self {
            address: address.parse().map_err(|_| bad.clone())?,
            transport: transport.parse()?,
        };
        if endpoint.to_string() == text {
            Ok(endpoint)
        } else {
            Err(bad)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: FromStr<Err = InvalidName> + fmt::Display>(text: &str, good: bool) {
        let round_trip = text.parse::<T>().map(|name| name.to_string());
        assert_eq!(round_trip.as_deref() == Ok(text), good, "{text}");
        assert_eq!(round_trip.is_ok(), good, "{text}");
    }

    #[test]
    fn a_prefix_has_one_spelling() {
        for good in ["0/1", "7/16", "65535/16", "4294967295/32"] {
            check::<Prefix>(good, true);
        }
        for bad in [
            "", "7", "+7/16", "07/16", "7/016", "65536/16", "0/0", "0/33", "１/16", "7/16 ",
        ] {
            check::<Prefix>(bad, false);
        }
    }

    #[test]
    fn a_slot_has_one_spelling() {
        for good in ["wrn0", "wrn12", "wrnu.2", "wrnt.30"] {
            check::<Slot>(good, true);
        }
        for bad in [
            "", "wrn", "wrn01", "wrnu", "wrnu2", "wrnx.2", "wrn-1", "eth0",
        ] {
            check::<Slot>(bad, false);
        }
    }

    #[test]
    fn an_endpoint_has_one_spelling() {
        for good in ["udp:192.0.2.1:1194", "tcp:[2001:db8::1]:1194"] {
            check::<Endpoint>(good, true);
        }
        for bad in [
            "",
            "udp:",
            "udp:host:1",
            "sctp:192.0.2.1:1",
            "udp:192.0.2.1",
            "udp:[2001:DB8::1]:1",
        ] {
            check::<Endpoint>(bad, false);
        }
    }
}
