//! The errors if a port cannot be mapped.

use super::super::{gateway::GatewayError, ledger::LedgerError};
use crate::messages::MissingReason;
use policies::names::Transport;
use std::net::IpAddr;
use wire::endpoints::EndpointError;

/// The error if a port has no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The gateway was not found or rejected a request.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The gateway reports no address on the internet.
    #[error(
        "the gateway has no external address: it is offline, or behind another router or carrier-grade NAT"
    )]
    NoExternalAddress,
    /// The gateway's external address is one of a private network.
    #[error(
        "the gateway's external address {address} is private: it is behind another router (double NAT)"
    )]
    DoubleNat {
        /// The address that it reported.
        address: IpAddr,
    },
    /// The gateway's external address is one that only carriers use (RFC 6598).
    #[error("the gateway's external address {address} is behind carrier-grade NAT of the provider")]
    CarrierNat {
        /// The address that it reported.
        address: IpAddr,
    },
    /// The gateway's external address is of no use for another reason.
    #[error("the gateway's external address {address} cannot be used: {class}")]
    Unusable {
        /// The address that it reported.
        address: IpAddr,
        /// What is wrong with it.
        class: EndpointError,
    },
    /// All external ports that were tried are taken.
    #[error("no free port for {transport} {port} on the gateway")]
    NoPort {
        /// UDP or TCP.
        transport: Transport,
        /// The port on this host.
        port: u16,
        /// The error of the last port that was tried.
        #[source]
        source: GatewayError,
    },
    /// The ledger cannot be read or written; without it, no mapping is requested.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl LeaseError {
    /// The error for an external address of this class.
    pub(super) fn not_routable(address: IpAddr, class: EndpointError) -> Self {
        match (class, address) {
            (EndpointError::Private, IpAddr::V4(v4))
                if matches!(v4.octets(), [100, 64..=127, ..]) =>
            {
                Self::CarrierNat { address }
            }
            (EndpointError::Private, _) => Self::DoubleNat { address },
            (class, _) => Self::Unusable { address, class },
        }
    }

    /// Returns the kind of the error.
    pub fn reason(&self) -> MissingReason {
        match self {
            Self::Gateway(GatewayError::NoDefaultRoute | GatewayError::Routes(_)) => {
                MissingReason::NoGateway
            }
            Self::Gateway(GatewayError::NotNeeded { .. }) => MissingReason::NotNeeded,
            Self::Gateway(GatewayError::NoAnswer { .. }) => MissingReason::NoAnswer,
            Self::Gateway(
                GatewayError::PortInUse
                | GatewayError::Ambiguous { .. }
                | GatewayError::SamePortOnly
                | GatewayError::OtherProtocol { .. }
                | GatewayError::OtherAddress { .. }
                | GatewayError::Failed { .. },
            ) => MissingReason::Rejected,
            Self::NoExternalAddress | Self::Unusable { .. } => MissingReason::NoExternalAddress,
            Self::DoubleNat { .. } => MissingReason::DoubleNat,
            Self::CarrierNat { .. } => MissingReason::CarrierNat,
            Self::NoPort { .. } => MissingReason::NoFreePort,
            Self::Ledger(_) => MissingReason::Ledger,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: MissingReason) {
        let address = address.parse().unwrap();
        let class = wire::endpoints::class_of(address).unwrap();
        assert_eq!(LeaseError::not_routable(address, class).reason(), expected);
    }

    #[test]
    fn nat_behind_nat_is_recognised_by_the_external_address() {
        check("192.168.1.2", MissingReason::DoubleNat);
        check("10.0.0.1", MissingReason::DoubleNat);
        check("100.64.0.1", MissingReason::CarrierNat);
        check("100.127.255.255", MissingReason::CarrierNat);
        check("127.0.0.1", MissingReason::NoExternalAddress);
    }
}
