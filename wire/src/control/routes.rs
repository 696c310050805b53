//! The document of `warren routes`: babeld's neighbours, and its routes to nodes and to exit gateways.

use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;
use time::OffsetDateTime;

/// The tables of babeld.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutesDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The time at which the document was created.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// babeld answered when last asked; where it did not, the lists below are empty.
    pub babeld_answers: bool,
    /// Neighbours on slots.
    pub neighbours: Vec<NeighbourEntry>,
    /// Routes towards nodes, installed or not.
    pub routes: Vec<RouteEntry>,
    /// Default routes for the network's packets, installed or not.
    #[serde(default)]
    pub exit_routes: Vec<ExitRouteEntry>,
}

/// A Babel neighbour on a slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighbourEntry {
    /// The slot on which babeld receives the neighbour's hellos.
    pub slot: String,
    /// The neighbour's prefix.
    pub peer: String,
    /// Its name; `None` if it has none, or it is not known.
    #[serde(default)]
    pub peer_name: Option<String>,
    /// Bit vector of received hellos, newest in the highest of 16 bits.
    pub reach: u16,
    /// Cost of receiving from it.
    pub rxcost: u16,
    /// Cost that it advertised to us.
    pub txcost: u16,
    /// Round trip as babeld measures it.
    pub rtt_seconds: Option<f64>,
    /// Cost of the link; 65535: unreachable.
    pub cost: u16,
}

/// A route of babeld towards a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteEntry {
    /// The prefix of the destination.
    pub node: String,
    /// Its name; `None` if it has none, or it is not known.
    #[serde(default)]
    pub node_name: Option<String>,
    /// The destination's address in the network.
    pub address: Ipv6Addr,
    /// The slot it leaves by.
    pub slot: String,
    /// The neighbour it goes through.
    pub via: String,
    /// The name of that neighbour; `None` if it has none, or it is not known.
    #[serde(default)]
    pub via_name: Option<String>,
    /// babeld chose it.
    pub installed: bool,
    /// Total metric; 65535: unreachable.
    pub metric: u16,
    /// The metric that the neighbour announced.
    pub refmetric: u16,
}

/// A default route of babeld, for the network's packets only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRouteEntry {
    /// The exit gateway to which the route leads.
    pub gateway: String,
    /// Its name; `None` if it has none, or it is not known.
    #[serde(default)]
    pub gateway_name: Option<String>,
    /// The slot it leaves by.
    pub slot: String,
    /// The neighbour it goes through.
    pub via: String,
    /// The name of that neighbour; `None` if it has none, or it is not known.
    #[serde(default)]
    pub via_name: Option<String>,
    /// babeld chose it.
    pub installed: bool,
    /// Total metric; 65535: it leads nowhere, or `gateway` is none of the network's.
    pub metric: u16,
    /// The metric that the neighbour announced.
    pub refmetric: u16,
}
