//! The documents that members exchange over the overlay: endpoints, and the versions of documents
//! that they hold.

mod endpoint_checks;
mod hole_punching;
mod next_hop;

pub use endpoint_checks::*;
pub use hole_punching::*;
pub use next_hop::*;

use crate::{
    registry::{DocumentKind, Node},
    text,
};
use policies::names::{Endpoint, Prefix};
use serde::{Deserialize, Serialize};

/// TCP port of the peer API, on node addresses only.
pub const PORT: u16 = 326;

/// Most bytes of any answer of the peer API.
pub const ANSWER_LIMIT: usize = 64 * 1024;

/// Most bytes of a signed document, which is passed on by `GET` and `POST` of [`document_path`] its kind.
pub const DOCUMENT_LIMIT: usize = 2 * 1024 * 1024;

/// The call by which a signed document is passed on.
pub fn document_path(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Network => "/v1/network",
        DocumentKind::Revocations => "/v1/revocations",
    }
}

/// The path of the restart lock: `POST` acquires it (204: granted, 409: not now), `DELETE`
/// releases it (204).
pub const RESTART_LOCK_PATH: &str = "/v1/restart-lock";

/// Most nodes in one sample.
pub const MAX_NODES: usize = 64;

/// The version of all documents in this file.
pub const VERSION: u32 = 1;

/// `GET /v1/node`: a node about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDocument {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The node's prefix; must be that of the node that was asked.
    #[serde(with = "text::one")]
    pub prefix: Prefix,
    /// Where it can be dialled, best first; empty where nobody can reach it.
    #[serde(with = "text::few")]
    pub endpoints: Vec<Endpoint>,
    /// Name and version of its software, such as `warren 0.1.0`; at most 64 characters are believed.
    pub software: String,
    /// Version of the network document that it holds; 0: none.
    pub network_version: u64,
    /// Version of the revocations that it holds; 0: none.
    pub revocations_version: u64,
    /// The cost that the node adds to Babel's metric of others' routes when it announces them;
    /// 65535 if it never does. Older nodes, which add nothing, leave the field out.
    #[serde(default)]
    pub transit_cost: u16,
}

/// `GET /v1/peers?count=`: a random sample of the nodes that it knows endpoints of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersDocument {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The nodes, at most [`MAX_NODES`].
    #[serde(deserialize_with = "text::at_most::<MAX_NODES, _, _>")]
    pub nodes: Vec<Node>,
}

/// Most metrics in one view: 20 kB of JSON.
pub const MAX_DISTANCES: usize = 512;

/// `GET /v1/route-view`: how a node sees the network, for those who think of dialling it, or of leaving it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteViewDocument {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The node's prefix; must be that of the node that was asked.
    #[serde(with = "text::one")]
    pub prefix: Prefix,
    /// Whether the node accepts one more tunnel.
    pub accepts_tunnels: bool,
    /// How many tunnels others dialled to it; absent at older nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u16>,
    /// The growth of its routes, in metric summed over all nodes, without the tunnel that the
    /// asking node dialled. Absent if there is no such tunnel, or if some node would become
    /// unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regret: Option<u64>,
    /// Its metrics to some nodes, the same ones at all nodes as far as they are known.
    #[serde(deserialize_with = "text::at_most::<MAX_DISTANCES, _, _>")]
    pub distances: Vec<Distance>,
}

/// The metric of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distance {
    /// The destination's prefix.
    #[serde(with = "text::one")]
    pub node: Prefix,
    /// The metric (RFC 8966).
    pub metric: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, good: bool) {
        let read = serde_json::from_str::<NodeDocument>(json);
        assert_eq!(read.is_ok(), good, "{json}: {read:?}");
        if let Ok(document) = read {
            let read_back =
                serde_json::from_str(&serde_json::to_string(&document).unwrap()).unwrap();
            assert_eq!(document, read_back);
        }
    }

    fn document(prefix: &str, endpoints: &str) -> String {
        format!(
            r#"{{"version":1,"prefix":"{prefix}","endpoints":[{endpoints}],"software":"warren 0.1.0",
               "network_version":1,"revocations_version":0,"from_the_future":true}}"#
        )
    }

    #[test]
    fn a_node_document_round_trips_and_bears_fields_of_later_versions() {
        check(
            &document("7/16", r#""udp:192.0.2.1:1194","tcp:[2001:db8::1]:443""#),
            true,
        );
        check(&document("7/16", ""), true);
    }

    #[test]
    fn a_node_that_says_no_price_has_none() {
        let price =
            |json: &str| serde_json::from_str::<NodeDocument>(json).map(|node| node.transit_cost);
        let priced = |price: &str| {
            document("7/16", "").replace("true", &format!("1, \"transit_cost\": {price}"))
        };
        assert_eq!(price(&document("7/16", "")).unwrap(), 0);
        assert_eq!(price(&priced("65535")).unwrap(), u16::MAX);
        assert!(price(&priced("65536")).is_err());
    }

    #[test]
    fn a_node_document_is_bounded_and_its_names_are_strict() {
        check(&document("07/16", ""), false);
        check(&document("7/16", r#""udp:localhost:1""#), false);
        check(
            &document(
                "7/16",
                &[r#""udp:192.0.2.1:1194""#; text::FEW + 1].join(","),
            ),
            false,
        );
    }

    #[test]
    fn a_view_is_bounded_and_round_trips() {
        let distance = r#"{"node":"7/16","metric":96}"#;
        let view = |count: usize| {
            let distances = vec![distance; count].join(",");
            format!(
                r#"{{"version":1,"prefix":"7/16","accepts_tunnels":true,"distances":[{distances}]}}"#
            )
        };
        let read: RouteViewDocument = serde_json::from_str(&view(MAX_DISTANCES)).unwrap();
        assert_eq!((read.regret, read.distances.len()), (None, MAX_DISTANCES));
        assert_eq!(
            serde_json::from_str::<RouteViewDocument>(&serde_json::to_string(&read).unwrap())
                .unwrap(),
            read
        );
        assert!(serde_json::from_str::<RouteViewDocument>(&view(MAX_DISTANCES + 1)).is_err());
        assert!(view(MAX_DISTANCES).len() < ANSWER_LIMIT);
    }
}
