//! What the keeper of leases requires of a gateway.
//!
//! A gateway may speak PCP (RFC 6887), NAT-PMP (RFC 6886), UPnP IGD, or several of them. Each is a [`Gateway`] of its own.

use super::{
    ledger::Mapping,
    protocol::{Family, Protocol},
};
use policies::names::Transport;
use std::{
    error::Error,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// The reason why the gateway could not be found, or a request failed.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The host has no IPv4 default route.
    #[error("there is no default gateway")]
    NoDefaultRoute,
    /// The default route, or our address on it, cannot be read from the kernel.
    #[error("cannot read the default route")]
    Routes(#[source] io::Error),
    /// The host's own address towards the gateway is one of the internet, so there is no NAT in front of it.
    #[error("this host has the public address {local} itself")]
    NotNeeded {
        /// The host's address.
        local: Ipv4Addr,
    },
    /// The gateway does not answer by any protocol that maps ports.
    #[error("gateway {gateway} does not answer {protocols}")]
    NoAnswer {
        /// The default gateway.
        gateway: Ipv4Addr,
        /// The protocols that were tried.
        protocols: &'static str,
    },
    /// Another client of the gateway uses the port.
    #[error("the port is taken by another client")]
    PortInUse,
    /// The gateway rejected a lease that expires, or has no more room, or the port is taken: its code means one of these.
    #[error("the gateway rejected the mapping with error {code}")]
    Ambiguous {
        /// The error code of UPnP: 402, 501 or 725.
        code: u16,
    },
    /// The external and the internal port must be the same (UPnP error 724).
    #[error("the gateway maps a port only to the same port")]
    SamePortOnly,
    /// A mapping was made by a protocol that the gateway does not answer any more.
    #[error("the gateway does not answer by {protocol}, by which a mapping was made")]
    OtherProtocol {
        /// The protocol of the mapping.
        protocol: Protocol,
    },
    /// A mapping leads to an address that this host does not have any more, so it cannot be removed.
    #[error(
        "a mapping to {address}, the host's earlier address, cannot be removed by {protocol}, and stays until it expires"
    )]
    OtherAddress {
        /// The protocol of the mapping.
        protocol: Protocol,
        /// The earlier address.
        address: Ipv4Addr,
    },
    /// The gateway reported another error, or did not answer.
    #[error("the gateway did not {action} by {protocol}")]
    Failed {
        /// The protocol of the request.
        protocol: Protocol,
        /// The requested action.
        action: &'static str,
        /// The error of the request.
        #[source]
        source: Box<dyn Error>,
    },
}

/// What a gateway reports of its address on the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalAddress {
    /// The gateway has this address.
    Known(IpAddr),
    /// The gateway has no external address.
    Missing,
    /// The gateway reports its address only in the answer to a mapping request.
    WithMapping,
}

/// What a gateway shows of one of its external ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The gateway cannot show mappings, or has not answered in time.
    Unknown,
    /// No mapping is shown at this port.
    Free,
    /// The port is mapped.
    Taken(Entry),
}

/// A port mapping in the gateway's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address that the mapping leads to, as the gateway spells it.
    pub client: String,
    /// The port at that address.
    pub internal_port: u16,
    /// The description, which some gateways shorten or replace.
    pub description: String,
    /// The remaining time of the lease; `None` if it is shown as one that never expires.
    pub remaining: Option<Duration>,
}

/// How thoroughly a gateway's table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Only what a single request answers.
    Quick,
    /// The whole table if need be, for a few seconds.
    Thorough,
}

/// A mapping that a gateway granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The port on the gateway, which need not be the requested one.
    pub external_port: u16,
    /// The duration of the lease; `None` if it never expires.
    pub lease: Option<Duration>,
    /// The external address, if it comes with the mapping.
    pub address: Option<IpAddr>,
}

/// Finds the host's gateway: the real one, or a test's fake.
pub trait Finder: 'static {
    /// The type of the gateway that is found.
    type Gateway: Gateway;

    /// Searches the gateway by the protocols of a family. Returns each protocol and service by which
    /// it maps ports, the best first.
    fn find(
        &self,
        family: Family,
    ) -> impl Future<Output = Result<Vec<Self::Gateway>, GatewayError>>;

    /// Whether the gateway that was found earlier is still this host's, and the host has the same address towards it.
    fn is_current(&self, gateway: &Self::Gateway) -> bool;
}

/// One protocol of a gateway that maps ports.
pub trait Gateway {
    /// Returns the protocol.
    fn protocol(&self) -> Protocol;

    /// Returns the host's address towards the gateway.
    fn local_address(&self) -> Ipv4Addr;

    /// Fetches the gateway's address on the internet.
    fn external_address(&self) -> impl Future<Output = Result<ExternalAddress, GatewayError>>;

    /// Looks up which mappings the gateway has at these ports. The answers have the order of the ports.
    fn look_up(
        &self,
        ports: &[(Transport, u16)],
        effort: Effort,
    ) -> impl Future<Output = Vec<Lookup>>;

    /// Requests a mapping, or renews it. `None` requests a lease that never expires.
    fn add(
        &self,
        mapping: Mapping,
        lease: Option<Duration>,
        description: &str,
    ) -> impl Future<Output = Result<Grant, GatewayError>>;

    /// Removes a mapping. It is no error if there is none.
    fn remove(&self, mapping: Mapping) -> impl Future<Output = Result<(), GatewayError>>;
}

/// The gateway of the IPv4 default route, and this host's address towards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// This host's address.
    pub local: Ipv4Addr,
}
