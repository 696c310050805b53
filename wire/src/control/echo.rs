//! One echo request to another node and what came back: `warren ping` and `warren trace`.

use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;
use time::OffsetDateTime;

/// Longest wait for the answer to an echo request, in milliseconds.
pub const MAX_ECHO_WAIT_MS: u64 = 5_000;

/// An echo request that the daemon shall send, as the query of its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EchoQuery {
    /// The node to which it is sent, by its prefix.
    pub node: String,
    /// The number of links that it may pass, 1 to 255.
    pub hop_limit: u8,
    /// How long to wait for an answer, in milliseconds; at most [`MAX_ECHO_WAIT_MS`].
    pub wait_milliseconds: u64,
}

/// Asks by which tunnel a node sends packets to another one, as the query of its address; the answer is a
/// [`NextHopDocument`](crate::peer::NextHopDocument), or 404 if the node does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopQuery {
    /// The node that sends, by its prefix; this node if there is none.
    pub at: Option<String>,
    /// The node that packets go to, by its prefix.
    pub to: String,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EchoOutcome {
    /// The node answered.
    Reply,
    /// A node on the path reported that the hop limit was exceeded there.
    TimeExceeded,
    /// A node on the path, or this one, has no route.
    Unreachable,
    /// No answer came in time.
    Lost,
}

/// One echo request and what came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EchoDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The time at which the document was created.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The node to which the request was sent, by its prefix.
    pub node: String,
    /// Its name; `None` if it has none, or it is not known.
    pub node_name: Option<String>,
    /// Its address in the network.
    pub address: Ipv6Addr,
    /// The number of links that the request could pass.
    pub hop_limit: u8,
    /// The slot by which packets to the node leave this one; `None` where babeld has installed no route.
    pub tunnel: Option<String>,
    /// What came back.
    pub outcome: EchoOutcome,
    /// The address that answered.
    pub from: Option<Ipv6Addr>,
    /// The node whose address that is, where it is one.
    pub from_node: Option<String>,
    /// The name of that node; `None` if it has none, or it is not known.
    pub from_name: Option<String>,
    /// Time between request and answer.
    pub rtt_seconds: Option<f64>,
}
