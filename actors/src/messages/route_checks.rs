//! The facts about routes that cannot be those of the neighbour that announces them.

use actix::Message;
use policies::{
    names::{Prefix, Slot},
    route_checks::{ForeignRange, OriginClaim, SuspicionKind},
};

/// A Babel packet arrived that says something about the origins of nodes' ranges which does not fit its sender.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct OriginsClaimed {
    /// What the packet says about nodes' ranges.
    pub claims: Vec<OriginClaim>,
    /// A range of the packet that is no node's.
    pub foreign: Option<ForeignRange>,
}

/// A neighbour announces routes that cannot be its own.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct RoutesSuspected {
    /// The slot of the tunnel to the neighbour.
    pub slot: Slot,
    /// The prefix of the neighbour.
    pub peer: Prefix,
    /// What is wrong with its routes.
    pub kind: SuspicionKind,
}
