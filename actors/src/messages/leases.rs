//! The facts about port mappings on the router in front of the host.

use actix::Message;
use policies::{names::Transport, units::Uptime};
use std::net::SocketAddr;

/// All leases of port mappings were read.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct LeasesRead {
    /// When the reading was taken.
    pub at: Uptime,
    /// The leases that have not expired.
    pub leases: Vec<Lease>,
    /// Why a port has no lease; `None` if all have one, or if none is wanted.
    pub missing: Option<MissingLease>,
}

/// A port mapping on the router in front of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// UDP or TCP.
    pub transport: Transport,
    /// The port on this host.
    pub internal_port: u16,
    /// The router's address and port, at which others reach the port on this host.
    pub external: SocketAddr,
    /// When the lease expires unless it is renewed.
    pub until: Uptime,
}

/// Why a port that others should reach has no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingLease {
    /// The kind of the reason.
    pub reason: MissingReason,
    /// The reason for people, with all its causes.
    pub text: String,
}

/// The kind of reason why a port has no lease. A later one says more of the gateway than an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingReason {
    /// The host has a public address itself.
    NotNeeded,
    /// The host has no default gateway.
    NoGateway,
    /// The gateway answers by no protocol that maps ports.
    NoAnswer,
    /// The gateway rejected the requests, or did not answer them.
    Rejected,
    /// All ports that were tried on the gateway are taken.
    NoFreePort,
    /// The gateway has no address on the internet.
    NoExternalAddress,
    /// The gateway is behind another router.
    DoubleNat,
    /// The gateway is behind carrier-grade NAT.
    CarrierNat,
    /// The ledger of leases cannot be read or written.
    Ledger,
}

impl MissingReason {
    /// All reasons, as values of a label.
    pub const ALL: [Self; 9] = [
        Self::NotNeeded,
        Self::NoGateway,
        Self::NoAnswer,
        Self::Rejected,
        Self::NoFreePort,
        Self::NoExternalAddress,
        Self::DoubleNat,
        Self::CarrierNat,
        Self::Ledger,
    ];

    /// Returns the name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotNeeded => "not_needed",
            Self::NoGateway => "no_gateway",
            Self::NoAnswer => "no_answer",
            Self::Rejected => "rejected",
            Self::NoFreePort => "no_free_port",
            Self::NoExternalAddress => "no_external_address",
            Self::DoubleNat => "double_nat",
            Self::CarrierNat => "carrier_nat",
            Self::Ledger => "ledger",
        }
    }
}

/// The ports for which the router's firewall is open for IPv6 were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct PinholesRead {
    /// The open ports, with the address and port of this host as the external ones.
    pub pinholes: Vec<Lease>,
    /// Why one is not open; `None` if all are, or the router answers neither PCP nor UPnP.
    pub missing: Option<MissingLease>,
}
