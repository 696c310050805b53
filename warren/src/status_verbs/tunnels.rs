//! The text of `warren tunnels`: one line a tunnel, with a unit on every number.

use super::{
    format::{float, milliseconds, node, or_dash, percent, printable, split_numbers, time_span},
    layout::{self, Fit},
};
use map::text::bytes;
use wire::control::{TunnelEntry, TunnelsDocument};

const HEADER: [&str; 15] = [
    "TUNNEL", "PEER", "ROLE", "STATE", "AGE", "RECEIVED", "SENT", "IN", "OUT", "NODES", "ROUTES",
    "RTT", "LOSS", "ENDPOINT", "VERDICT",
];

/// Endpoint, routes and bytes are left out of a narrow table first.
const FIT: Fit = Fit {
    numbers: 4..13,
    drop_order: &[13, 10, 5, 6, 2, 12, 14, 4, 3],
    elastic: 14,
};

/// Shows the document.
pub(super) fn render(document: &TunnelsDocument, width: Option<usize>) -> String {
    if document.tunnels.is_empty() {
        return "no tunnels".to_owned();
    }
    let rows = document.tunnels.iter().map(row).collect();
    layout::table(HEADER, rows, &FIT, width)
}

fn row(tunnel: &TunnelEntry) -> [String; 15] {
    let endpoint = tunnel.endpoint.map(|endpoint| endpoint.to_string());
    let transport = tunnel.transport.as_deref().unwrap_or("-");
    let verdict = tunnel.verdict.as_deref().map(first_clause);
    [
        tunnel.slot.clone(),
        node(&tunnel.peer, tunnel.peer_name.as_deref()),
        tunnel.role.clone(),
        phase(tunnel),
        or_dash(tunnel.age_seconds.map(time_span)),
        bytes(float(tunnel.rx_bytes)),
        bytes(float(tunnel.tx_bytes)),
        format!("{}/s", bytes(tunnel.rx_bytes_per_second)),
        format!("{}/s", bytes(tunnel.tx_bytes_per_second)),
        tunnel.nodes_served.to_string(),
        tunnel.routes.to_string(),
        or_dash(tunnel.rtt_seconds.map(milliseconds)),
        or_dash(tunnel.loss_ratio.map(percent)),
        format!("{transport} {}", or_dash(endpoint)),
        or_dash(verdict),
    ]
}

/// The phase, whether the tunnel carries small packets only, and whether it came by hole punching.
fn phase(tunnel: &TunnelEntry) -> String {
    let mut phase = tunnel.phase.clone();
    if tunnel.full_size_packets == "lost" {
        phase.push_str(", small packets only");
    }
    if tunnel.hole_punched {
        phase.push_str(", hole punched");
    }
    phase
}

/// Shortens a verdict to its first clause; `warren why` shows the rest and the numbers.
fn first_clause(verdict: &str) -> String {
    let (sentence, _) = split_numbers(verdict);
    printable(sentence.split(';').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTING: &str = r#"{"slot":"wrn0","peer":"9/16","role":"dialled","transport":"udp","endpoint":"192.0.2.9:1194",
        "phase":"up","age_seconds":null,"rx_bytes":1234567,"tx_bytes":999,"rx_bytes_per_second":1500.0,
        "tx_bytes_per_second":0.0,"nodes_served":2,"routes":3,"rtt_seconds":null,"loss_ratio":null,"verdict":null}"#;

    #[track_caller]
    fn check(tunnel: &TunnelEntry, expected: &str) {
        assert_eq!(row(tunnel).join(" | "), expected);
    }

    #[test]
    fn every_number_has_its_unit_and_texts_cannot_steer_the_terminal() {
        let mut tunnel: TunnelEntry = serde_json::from_str(CONNECTING).unwrap();
        tunnel.age_seconds = Some(4_000.0);
        tunnel.rtt_seconds = Some(0.0123);
        tunnel.loss_ratio = Some(0.05);
        tunnel.verdict = Some("kept:\u{1b}[31m fair share; next look in 120 s; rate=4 B/s".into());
        check(
            &tunnel,
            "wrn0 | 9/16 | dialled | up | 1h 6m | 1.2 MB | 999 B | 1.5 kB/s | 0 B/s | 2 | 3 | 12.3 ms | 5.0 % | \
             udp 192.0.2.9:1194 | kept:?[31m fair share",
        );
    }

    #[test]
    fn an_unknown_value_is_a_dash() {
        let tunnel: TunnelEntry = serde_json::from_str(CONNECTING).unwrap();
        check(
            &tunnel,
            "wrn0 | 9/16 | dialled | up | - | 1.2 MB | 999 B | 1.5 kB/s | 0 B/s | 2 | 3 | - | - | \
             udp 192.0.2.9:1194 | -",
        );
    }
}
