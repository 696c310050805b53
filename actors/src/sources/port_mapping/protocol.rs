//! The protocols by which gateways map ports.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The protocol by which a gateway is asked for a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The Port Control Protocol (RFC 6887).
    Pcp,
    /// The NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// The Internet Gateway Device protocol of UPnP.
    #[default]
    Upnp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// Protocols that are searched together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// PCP and NAT-PMP, which share a port.
    PortControl,
    /// The Internet Gateway Device protocol of UPnP.
    Upnp,
}

impl Family {
    /// All families, in the order in which they are asked if all answer at the same time.
    pub const ALL: [Self; 2] = [Self::PortControl, Self::Upnp];
}

impl Protocol {
    /// Returns the family that the protocol belongs to.
    pub fn family(self) -> Family {
        match self {
            Self::Pcp | Self::NatPmp => Family::PortControl,
            Self::Upnp => Family::Upnp,
        }
    }
}
