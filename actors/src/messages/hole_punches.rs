//! The facts about paths between nodes behind NATs.

use actix::Message;
use policies::{
    hole_punching::{NatMapping, PunchResult},
    names::{Prefix, Slot},
};
use std::collections::{BTreeMap, BTreeSet};

/// The attempts to open paths to nodes behind NATs were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct HolePunchesRead {
    /// The slots of tunnels that came by hole punching, at this node's request or at that of the peer.
    pub slots: BTreeSet<Slot>,
    /// How this node's NAT maps ports, as the last attempt showed.
    pub mapping: NatMapping,
    /// The result of the last attempt with each node.
    pub results: BTreeMap<Prefix, PunchResult>,
    /// Number of attempts of this node since the actor started.
    pub totals: BTreeMap<PunchResult, u64>,
}
