//! The text of `warren peers`: one line a peer that the node could dial.

use super::format::{align_right, node, or_dash, plain_table, printable, time_span};
use wire::control::PeersDocument;

const HEADER: [&str; 6] = [
    "PEER",
    "TUNNEL",
    "CONFIRMED",
    "LAST FAILURE",
    "FAILURES",
    "ENDPOINTS",
];

/// Shows the document.
pub(super) fn render(document: &PeersDocument) -> String {
    if document.peers.is_empty() && document.unused_endpoints.is_empty() {
        return "no peers known".to_owned();
    }
    let mut table = plain_table();
    table.set_header(HEADER);
    let ago = |seconds: f64| format!("{} ago", time_span(seconds));
    for peer in &document.peers {
        table.add_row([
            node(&peer.prefix, peer.name.as_deref()),
            or_dash(peer.slot.clone()),
            or_dash(peer.confirmed_seconds_ago.map(ago)),
            or_dash(peer.failed_seconds_ago.map(ago)),
            peer.failures.to_string(),
            printable(&peer.endpoints.join(" ")),
        ]);
    }
    align_right(&mut table, 4..5);
    let mut text = if document.peers.is_empty() {
        "no peers that can be dialled".to_owned()
    } else {
        table.to_string()
    };
    for unused in &document.unused_endpoints {
        let line = format!(
            "not dialled: {} {}: {}",
            node(&unused.prefix, unused.name.as_deref()),
            unused.endpoint,
            unused.reason
        );
        text.push('\n');
        text.push_str(&printable(&line));
    }
    text
}
