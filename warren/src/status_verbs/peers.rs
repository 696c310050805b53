//! The text of `warren peers`: one line a peer that the node could dial.

use super::{
    format::{node, or_dash, printable, time_span},
    layout::{self, Fit},
};
use wire::control::{PeerEntry, PeersDocument};

const HEADER: [&str; 6] = [
    "PEER",
    "TUNNEL",
    "CONFIRMED",
    "LAST FAILURE",
    "FAILURES",
    "ENDPOINTS",
];

/// The endpoints are shortened in a narrow table.
const FIT: Fit = Fit {
    numbers: 4..5,
    drop_order: &[3, 2],
    elastic: 5,
};

/// Shows the document.
pub(super) fn render(document: &PeersDocument, width: Option<usize>) -> String {
    if document.peers.is_empty() && document.unused_endpoints.is_empty() {
        return "no peers known".to_owned();
    }
    let ago = |seconds: f64| format!("{} ago", time_span(seconds));
    let row = |peer: &PeerEntry| {
        [
            node(&peer.prefix, peer.name.as_deref()),
            or_dash(peer.slot.clone()),
            or_dash(peer.confirmed_seconds_ago.map(ago)),
            or_dash(peer.failed_seconds_ago.map(ago)),
            peer.failures.to_string(),
            printable(&peer.endpoints.join(" ")),
        ]
    };
    let mut text = if document.peers.is_empty() {
        "no peers that can be dialled".to_owned()
    } else {
        let rows = document.peers.iter().map(row).collect();
        layout::table(HEADER, rows, &FIT, width)
    };
    for unused in &document.unused_endpoints {
        let line = format!(
            "not dialled: {} {}: {}",
            node(&unused.prefix, unused.name.as_deref()),
            unused.endpoint,
            unused.reason
        );
        text.push('\n');
        text.push_str(&layout::wrap(&printable(&line), width));
    }
    text
}
