//! The facts about nodes on the LANs of the host.

use actix::Message;
use policies::{
    lan_discovery::Verdict,
    names::{Endpoint, Prefix},
    units::Uptime,
};
use std::collections::BTreeMap;

/// The nodes on the LANs of the host were read.
#[derive(Clone, Debug, Default, Message)]
#[rtype(result = "()")]
pub struct LanRead {
    /// When the reading was taken; `None` while the node does not search its LANs.
    pub at: Option<Uptime>,
    /// The links that are searched, by name, each with the error that keeps it from being searched.
    pub links: BTreeMap<String, Option<String>>,
    /// The nodes that answer, by prefix.
    pub nodes: BTreeMap<Prefix, LanPeer>,
    /// Number of messages since the actor started.
    pub messages: BTreeMap<LanOutcome, u64>,
}

/// A node on a LAN of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanPeer {
    /// The names of the links on which it answers.
    pub links: Vec<String>,
    /// Where it can be dialled there, best first; empty if it accepts no tunnels, or has no address in a subnet of the links.
    pub endpoints: Vec<Endpoint>,
    /// When it last answered.
    pub answered_at: Uptime,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LanOutcome {
    /// It was sent.
    Sent,
    /// It could not be sent.
    NotSent,
    /// It arrived, and no key of the network opens it.
    Foreign,
    /// It arrived, and had this outcome.
    Received(Verdict),
}

impl LanOutcome {
    /// All outcomes that a message can have.
    pub const ALL: [Self; 9] = [
        Self::Sent,
        Self::NotSent,
        Self::Foreign,
        Self::Received(Verdict::Believed),
        Self::Received(Verdict::Searched),
        Self::Received(Verdict::Stale),
        Self::Received(Verdict::Own),
        Self::Received(Verdict::OwnPrefix),
        Self::Received(Verdict::Limited),
    ];

    /// The labels of the metric.
    pub const LABELS: [&'static str; 3] = ["sent", "accepted", "rejected"];

    /// Returns the label of the metric, which several outcomes share.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received(Verdict::Believed | Verdict::Searched) => "accepted",
            Self::NotSent
            | Self::Foreign
            | Self::Received(
                Verdict::Stale | Verdict::Own | Verdict::OwnPrefix | Verdict::Limited,
            ) => "rejected",
        }
    }
}
