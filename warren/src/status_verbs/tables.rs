//! Documents of the daemon as tables for people: aligned, with a unit on every number.

use comfy_table::{CellAlignment, Table, presets};
use wire::control::{
    DecisionsDocument, PeersDocument, RegistryState, RoutesDocument, StatusDocument, TunnelEntry,
    TunnelsDocument,
};

/// What is said where nothing that the policy orders is done.
const DRY_RUN: &str = "dry run: what it orders is logged and not carried out";

/// The node, one fact a line.
pub(super) fn status(document: &StatusDocument) -> String {
    let mut table = plain();
    let mut line = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    let up = document.tunnels_up;
    line(
        "node",
        format!("{} in {}", document.prefix, document.network),
    );
    line("address", document.address.to_string());
    if let Some(address) = document.address4 {
        line("IPv4", address.to_string());
    }
    line(
        "state",
        if document.ready { "ready" } else { "not ready" }.to_owned(),
    );
    if document.dry_run {
        line("policy", DRY_RUN.to_owned());
    }
    line(
        "software",
        format!("warren {}, pid {}", document.software, document.pid),
    );
    if let Some(least) = &document.upgrade_to {
        line(
            "upgrade",
            format!("the network asks for warren {} or newer", printable(least)),
        );
    }
    line("running for", span(document.uptime_seconds));
    line(
        "tunnels",
        format!("{} dialled, {} accepted", up.dialled, up.accepted),
    );
    line("neighbours", document.neighbours.to_string());
    line("nodes known", document.nodes_known.to_string());
    line("routes installed", document.routes_installed.to_string());
    if let Some(gateway) = &document.gateway {
        let own = if *gateway == document.prefix {
            "this node"
        } else {
            gateway
        };
        line("way out", format!("by {own}"));
    }
    line("registry", registry(&document.registry));
    for lease in &document.leases {
        let (transport, port, external) = (&lease.transport, lease.internal_port, lease.external);
        line(
            "port mapping",
            format!(
                "{transport} {external} to port {port}, until {}",
                moment(lease.until)
            ),
        );
    }
    for child in &document.children {
        let state = match (child.pid, child.ready) {
            (Some(pid), true) => format!("ready, pid {pid}"),
            (Some(pid), false) => format!("starting, pid {pid}"),
            (None, _) => "down".to_owned(),
        };
        let plural = if child.starts == 1 { "start" } else { "starts" };
        line(&child.name, format!("{state}, {} {plural}", child.starts));
    }
    if document.actor_restarts > 0 {
        line("actors made anew", document.actor_restarts.to_string());
    }
    table.to_string()
}

fn registry(state: &RegistryState) -> String {
    match (state.asked, state.answered.map(moment), &state.failure) {
        (None, ..) => "not asked yet".to_owned(),
        (Some(_), Some(at), None) => format!("answered at {at}"),
        (Some(_), Some(at), Some(why)) => {
            format!("away: {}; last answered at {at}", printable(why))
        }
        (Some(_), None, why) => format!(
            "never answered: {}",
            printable(why.as_deref().unwrap_or("-"))
        ),
    }
}

/// One line a tunnel.
pub(super) fn tunnels(document: &TunnelsDocument) -> String {
    if document.tunnels.is_empty() {
        return "no tunnels".to_owned();
    }
    let mut table = plain();
    table.set_header([
        "TUNNEL", "PEER", "ROLE", "STATE", "AGE", "RECEIVED", "SENT", "IN", "OUT", "NODES",
        "ROUTES", "RTT", "LOSS", "ENDPOINT", "VERDICT",
    ]);
    document.tunnels.iter().for_each(|tunnel| {
        table.add_row(tunnel_line(tunnel));
    });
    right(&mut table, 4..13);
    table.to_string()
}

fn tunnel_line(tunnel: &TunnelEntry) -> [String; 15] {
    let endpoint = tunnel.endpoint.map(|endpoint| endpoint.to_string());
    let transport = tunnel.transport.as_deref().unwrap_or("-");
    [
        tunnel.slot.clone(),
        tunnel.peer.clone(),
        tunnel.role.clone(),
        tunnel.phase.clone(),
        or_dash(tunnel.age_seconds.map(span)),
        bytes(float(tunnel.rx_bytes)),
        bytes(float(tunnel.tx_bytes)),
        format!("{}/s", bytes(tunnel.rx_bytes_per_second)),
        format!("{}/s", bytes(tunnel.tx_bytes_per_second)),
        tunnel.nodes_served.to_string(),
        tunnel.routes.to_string(),
        or_dash(tunnel.rtt_seconds.map(millis)),
        or_dash(
            tunnel
                .loss_ratio
                .map(|ratio| format!("{:.1} %", ratio * 100.0)),
        ),
        format!("{transport} {}", or_dash(endpoint)),
        or_dash(tunnel.verdict.as_deref().map(printable)),
    ]
}

/// One line a peer.
pub(super) fn peers(document: &PeersDocument) -> String {
    if document.peers.is_empty() {
        return "no peers known".to_owned();
    }
    let mut table = plain();
    table.set_header([
        "PEER",
        "TUNNEL",
        "CONFIRMED",
        "LAST FAILURE",
        "FAILURES",
        "ENDPOINTS",
    ]);
    for peer in &document.peers {
        let ago =
            |seconds: Option<f64>| or_dash(seconds.map(|seconds| format!("{} ago", span(seconds))));
        table.add_row([
            peer.prefix.clone(),
            or_dash(peer.slot.clone()),
            ago(peer.confirmed_seconds_ago),
            ago(peer.failed_seconds_ago),
            peer.failures.to_string(),
            printable(&peer.endpoints.join(" ")),
        ]);
    }
    right(&mut table, 4..5);
    table.to_string()
}

/// Neighbours, then routes.
pub(super) fn routes(document: &RoutesDocument) -> String {
    if !document.babeld_answers {
        return "babeld does not answer".to_owned();
    }
    let mut neighbours = plain();
    neighbours.set_header([
        "NEIGHBOUR",
        "TUNNEL",
        "COST",
        "RXCOST",
        "TXCOST",
        "RTT",
        "HELLOS",
    ]);
    for n in &document.neighbours {
        neighbours.add_row([
            n.peer.clone(),
            n.slot.clone(),
            metric(n.cost),
            metric(n.rxcost),
            metric(n.txcost),
            or_dash(n.rtt_seconds.map(millis)),
            format!("{} of 16", n.reach.count_ones()),
        ]);
    }
    right(&mut neighbours, 2..7);
    let mut routes = plain();
    routes.set_header(["NODE", "ADDRESS", "VIA", "TUNNEL", "METRIC", "INSTALLED"]);
    for r in &document.routes {
        let installed = if r.installed { "yes" } else { "-" };
        let node = [
            r.node.clone(),
            r.address.to_string(),
            r.via.clone(),
            r.slot.clone(),
        ];
        routes.add_row(
            node.into_iter()
                .chain([metric(r.metric), installed.to_owned()]),
        );
    }
    for r in &document.defaults {
        let installed = if r.installed { "yes" } else { "-" };
        let out = [
            r.gateway.clone(),
            "out of the network".to_owned(),
            r.via.clone(),
            r.slot.clone(),
        ];
        routes.add_row(
            out.into_iter()
                .chain([metric(r.metric), installed.to_owned()]),
        );
    }
    right(&mut routes, 4..5);
    format!("{neighbours}\n\n{routes}")
}

/// Decisions, then verdicts; only those of one tunnel or peer where `name` is given.
pub(super) fn decisions(document: &DecisionsDocument, name: Option<&str>) -> String {
    let wanted =
        |slot: &str, peer: Option<&str>| name.is_none_or(|name| slot == name || peer == Some(name));
    let mut log = plain();
    log.set_header(["TIME", "ORDER", "TUNNEL", "PEER", "REASON", "BECAUSE"]);
    let mut lines = 0;
    for entry in document
        .decisions
        .iter()
        .filter(|entry| wanted(&entry.slot, entry.peer.as_deref()))
    {
        lines += 1;
        log.add_row([
            moment(entry.at),
            entry.order.clone(),
            entry.slot.clone(),
            or_dash(entry.peer.clone()),
            entry.reason.clone(),
            printable(&entry.terms),
        ]);
    }
    let mut now = plain();
    now.set_header(["TUNNEL", "PEER", "NOW"]);
    let verdicts = document
        .verdicts
        .iter()
        .filter(|verdict| wanted(&verdict.slot, verdict.peer.as_deref()));
    for verdict in verdicts {
        let peer = or_dash(verdict.peer.clone());
        now.add_row([verdict.slot.clone(), peer, printable(&verdict.text)]);
    }
    let log = if lines == 0 {
        "nothing was decided lately".to_owned()
    } else {
        log.to_string()
    };
    let text = if now.row_count() == 0 {
        log
    } else {
        format!("{log}\n\n{now}")
    };
    if document.dry_run {
        format!("{DRY_RUN}\n\n{text}")
    } else {
        text
    }
}

/// No frame, two spaces between columns.
fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn right(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// Texts from elsewhere do not steer the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Babel's metric; its infinity in a word.
fn metric(metric: u16) -> String {
    if metric == u16::MAX {
        "unreachable".to_owned()
    } else {
        metric.to_string()
    }
}

/// Seconds only: a log line of today needs no more.
fn moment(at: impl std::fmt::Display) -> String {
    let text = at.to_string();
    let (time, _) = text.split_once('.').unwrap_or((&text, ""));
    let (day, hour) = time.split_once(' ').unwrap_or((time, ""));
    format!("{day} {hour:0>8}Z")
}

fn millis(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1_000.0)
}

/// The two largest parts of a span, such as `3h 20m`.
fn span(seconds: f64) -> String {
    let whole = std::time::Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .as_secs();
    let (days, hours, minutes, rest) = (
        whole / 86_400,
        whole / 3_600 % 24,
        whole / 60 % 60,
        whole % 60,
    );
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Bytes with three digits or so: powers of 1000.
fn bytes(count: f64) -> String {
    let mut left = count;
    for unit in ["B", "kB", "MB", "GB"] {
        if left < 1_000.0 {
            return if unit == "B" {
                format!("{left:.0} B")
            } else {
                format!("{left:.1} {unit}")
            };
        }
        left /= 1_000.0;
    }
    format!("{left:.1} TB")
}

/// Exact up to 2^53, which is enough for a table.
fn float(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(seconds: Option<f64>) -> TunnelEntry {
        TunnelEntry {
            drain_reason: None,
            slot: "wrn0".into(),
            peer: "9/16".into(),
            role: "dialled".into(),
            transport: Some("udp".into()),
            endpoint: "192.0.2.9:1194".parse().ok(),
            phase: "up".into(),
            age_seconds: seconds,
            rx_bytes: 1_234_567,
            tx_bytes: 999,
            rx_bytes_per_second: 1_500.0,
            tx_bytes_per_second: 0.0,
            nodes_served: 2,
            routes: 3,
            rtt_seconds: seconds.map(|_| 0.0123),
            loss_ratio: seconds.map(|_| 0.05),
            verdict: seconds.map(|_| "kept:\u{1b}[31m fair share".into()),
        }
    }

    #[track_caller]
    fn check(tunnel: &TunnelEntry, expected: [&str; 15]) {
        assert_eq!(tunnel_line(tunnel), expected.map(str::to_owned));
    }

    #[test]
    fn every_number_of_a_tunnel_has_its_unit_and_texts_cannot_steer_the_terminal() {
        check(
            &tunnel(Some(4_000.0)),
            [
                "wrn0",
                "9/16",
                "dialled",
                "up",
                "1h 6m",
                "1.2 MB",
                "999 B",
                "1.5 kB/s",
                "0 B/s",
                "2",
                "3",
                "12.3 ms",
                "5.0 %",
                "udp 192.0.2.9:1194",
                "kept:?[31m fair share",
            ],
        );
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        check(
            &tunnel(None),
            [
                "wrn0",
                "9/16",
                "dialled",
                "up",
                "-",
                "1.2 MB",
                "999 B",
                "1.5 kB/s",
                "0 B/s",
                "2",
                "3",
                "-",
                "-",
                "udp 192.0.2.9:1194",
                "-",
            ],
        );
    }

    #[test]
    fn a_moment_has_two_digits_for_its_hour() {
        assert_eq!(
            moment("2023-11-14 0:37:17.5 +00:00:00"),
            "2023-11-14 00:37:17Z"
        );
        assert_eq!(
            moment("2023-11-14 22:13:20.0 +00:00:00"),
            "2023-11-14 22:13:20Z"
        );
    }

    #[test]
    fn a_default_route_stands_among_the_routes_by_its_gateway() {
        let text = r#"{"version":1,"at":"2023-11-14T22:13:20.5Z","babeld_answers":true,"neighbours":[],"routes":[],
            "defaults":[{"gateway":"9/16","slot":"wrn0","via":"8/16","installed":true,"metric":192,"refmetric":96}]}"#;
        let shown = routes(&serde_json::from_str(text).unwrap());
        let words: Vec<_> = shown.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(words.join(" "), "9/16 out of the network 8/16 wrn0 192 yes");
    }

    #[test]
    fn why_shows_only_the_tunnel_or_peer_asked_for() {
        let text = r#"{"version":1,"at":"2023-11-14T22:13:20.5Z","verdicts":[{"slot":"wrn1","peer":"8/16","text":"kept"}],
            "decisions":[{"number":1,"at":"2023-11-14T22:13:20.5Z","order":"drain","slot":"wrn0","peer":"9/16",
            "reason":"unused","terms":"usage=3 B/s"}]}"#;
        let document: DecisionsDocument = serde_json::from_str(text).unwrap();
        let all = decisions(&document, None);
        assert!(
            all.contains("2023-11-14 22:13:20Z")
                && all.contains("usage=3 B/s")
                && all.contains("kept"),
            "{all}"
        );
        assert!(!all.contains(DRY_RUN), "{all}");
        let idle = DecisionsDocument {
            dry_run: true,
            ..document.clone()
        };
        assert_eq!(decisions(&idle, None), format!("{DRY_RUN}\n\n{all}"));
        let one = decisions(&document, Some("8/16"));
        assert!(
            one.starts_with("nothing was decided lately") && one.contains("kept"),
            "{one}"
        );
        assert!(!decisions(&document, Some("wrn0")).contains("kept"));
    }
}
