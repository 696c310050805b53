//! The text of `warren status`: one fact a line.

use super::{
    format::{DRY_RUN, node, plain_table, printable, time_span, utc_time},
    hole_punching, lan, layout,
};
use comfy_table::ContentArrangement;
use wire::control::{
    DEGRADED, FindingEntry, HEALTHY, LeaseEntry, OwnEndpointEntry, ProcessEntry, RegistryState,
    StatusDocument,
};

/// The rows of the table: what, and how it is.
type Rows = Vec<(String, String)>;

/// Shows the document.
pub(super) fn render(document: &StatusDocument, width: Option<usize>) -> String {
    let mut lines = vec![health_line(document)];
    lines.extend(document.health.findings.iter().map(finding_line));
    let health = layout::wrap(&lines.join("\n"), width);
    format!("{health}\n\n{}", facts(document, width))
}

/// One line about the health of the node.
fn health_line(document: &StatusDocument) -> String {
    let state = match document.health.state.as_str() {
        HEALTHY => "healthy",
        DEGRADED => "degraded",
        _ => "not ready",
    };
    let tunnels = document.tunnels_up.dialled + document.tunnels_up.accepted;
    let nodes = document.nodes_reachable;
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    format!(
        "{state}: {tunnels} tunnel{}, {nodes} node{} reachable",
        plural(tunnels),
        plural(nodes)
    )
}

/// One line about a finding: what was seen, and what to do.
fn finding_line(finding: &FindingEntry) -> String {
    let (severity, seen, advice) = (&finding.severity, &finding.seen, &finding.advice);
    printable(&format!("  {severity}: {seen}: {advice}"))
}

/// The table of all facts.
fn facts(document: &StatusDocument, width: Option<usize>) -> String {
    let mut rows = identity_rows(document);
    rows.extend(network_rows(document));
    rows.extend(document.endpoints.iter().map(endpoint_row));
    rows.extend(lan::rows(&document.lan));
    rows.extend(hole_punching::rows(&document.hole_punching));
    rows.extend(document.leases.iter().map(lease_row));
    rows.extend(document.pinholes.iter().map(pinhole_row));
    if let Some(reason) = &document.pinholes_missing {
        let reason = format!("not open for IPv6: {}", printable(reason));
        rows.push(("router's firewall".to_owned(), reason));
    }
    rows.extend(document.processes.iter().map(process_row));
    if document.actor_restarts > 0 {
        let count = document.actor_restarts.to_string();
        rows.push(("actor restarts".to_owned(), count));
    }
    let mut table = plain_table();
    if let Some(width) = width.and_then(|width| u16::try_from(width).ok()) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
    }
    for (name, value) in rows {
        table.add_row([name, value]);
    }
    table.to_string()
}

/// Returns the rows about the node itself.
fn identity_rows(document: &StatusDocument) -> Rows {
    let mut rows = Rows::new();
    let mut add = |name: &str, value: String| rows.push((name.to_owned(), value));
    let (prefix, network) = (&document.prefix, &document.network);
    let node = node(prefix, document.name.as_deref());
    add("node", format!("{node} in {network}"));
    add("address", document.address.to_string());
    if let Some(address) = document.address4 {
        add("IPv4 address", address.to_string());
    }
    if document.dry_run {
        add("policy", DRY_RUN.to_owned());
    }
    let (software, pid) = (&document.software, document.pid);
    add("software", format!("warren {software}, pid {pid}"));
    if let Some(minimum) = &document.minimum_version {
        let minimum = printable(minimum);
        add(
            "upgrade needed",
            format!("the network asks for warren {minimum} or newer"),
        );
    }
    add("running for", time_span(document.uptime_seconds));
    rows
}

/// Returns the rows about the network around the node.
fn network_rows(document: &StatusDocument) -> Rows {
    let mut rows = Rows::new();
    let mut add = |name: &str, value: String| rows.push((name.to_owned(), value));
    let up = document.tunnels_up;
    add(
        "tunnels up",
        format!("{} dialled, {} accepted", up.dialled, up.accepted),
    );
    add("neighbours", document.neighbours.to_string());
    let (known, reachable) = (document.nodes_known, document.nodes_reachable);
    add("nodes", format!("{reachable} reachable, {known} known"));
    let (installed, unreachable) = (document.routes_installed, document.routes_unreachable);
    add(
        "routes",
        format!("{installed} installed, {unreachable} unreachable"),
    );
    if let Some(gateway) = &document.exit_gateway {
        let is_own = *gateway == document.prefix;
        let shown = if is_own {
            "this node".to_owned()
        } else {
            node(gateway, document.exit_gateway_name.as_deref())
        };
        add("exit gateway", shown);
    }
    add("registry", registry_state(&document.registry));
    if document.registry.hidden_nodes > 0 {
        let count = document.registry.hidden_nodes;
        add(
            "hidden nodes",
            format!("{count} with private endpoints only, in other networks than this node"),
        );
    }
    for pin in &document.pins {
        let name = node(&pin.prefix, pin.name.as_deref());
        add("pinned", format!("{name}, by an operator"));
    }
    if let Some(reason) = &document.unused_reason {
        let count = document.unused_endpoints;
        let reason = printable(reason);
        add(
            "not dialled",
            format!("{count} private endpoints (warren peers lists them): {reason}"),
        );
    }
    rows
}

fn registry_state(state: &RegistryState) -> String {
    let failure = state.last_error.as_deref().map(printable);
    match (
        state.last_request_at,
        state.last_answer_at.map(utc_time),
        failure,
    ) {
        (None, ..) => "not asked yet".to_owned(),
        (Some(_), Some(time), None) => format!("answered at {time}"),
        (Some(_), Some(time), Some(failure)) => {
            format!("unreachable: {failure}; last answer at {time}")
        }
        (Some(_), None, failure) => {
            format!("no answer so far: {}", failure.as_deref().unwrap_or("-"))
        }
    }
}

fn endpoint_row(entry: &OwnEndpointEntry) -> (String, String) {
    let source = match entry.source.as_str() {
        "configured" => "from the configuration",
        "port-mapping" => "from the router",
        _ => "address of this host",
    };
    let reached = match entry.reached_seconds_ago {
        Some(ago) if ago < 5.0 => "others get through".to_owned(),
        Some(ago) => format!("others got through {} ago", time_span(ago)),
        None => "nobody got through yet".to_owned(),
    };
    let checked = match entry.reachability.as_str() {
        "confirmed" => ", confirmed by another node",
        "silent" => ", silent when other nodes try it",
        _ if entry.is_private || entry.reached_seconds_ago.is_some() => "",
        _ => ", not yet tried by another node",
    };
    let endpoint = &entry.endpoint;
    (
        "endpoint".to_owned(),
        format!("{endpoint}, {source}, {reached}{checked}"),
    )
}

fn lease_row(lease: &LeaseEntry) -> (String, String) {
    let (transport, port, external) = (&lease.transport, lease.internal_port, lease.external);
    let expiry = utc_time(lease.expires_at);
    (
        "port mapping".to_owned(),
        format!("{transport} {external} to port {port}, expires at {expiry}"),
    )
}

fn pinhole_row(lease: &LeaseEntry) -> (String, String) {
    let (transport, external) = (&lease.transport, lease.external);
    let expiry = utc_time(lease.expires_at);
    (
        "router's firewall".to_owned(),
        format!("open for {transport} to {external} until {expiry}"),
    )
}

fn process_row(process: &ProcessEntry) -> (String, String) {
    let state = match (process.pid, process.ready) {
        (Some(pid), true) => format!("ready, pid {pid}"),
        (Some(pid), false) => format!("starting, pid {pid}"),
        (None, _) => "down".to_owned(),
    };
    let (starts, noun) = (
        process.starts,
        if process.starts == 1 {
            "start"
        } else {
            "starts"
        },
    );
    (
        format!("process {}", process.name),
        format!("{state}, {starts} {noun}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node with one process, whose registry does not answer any more.
    const DOCUMENT: &str = r#"{"version":1,"at":"2023-11-14T22:13:20.5Z","software":"0.1.0","prefix":"7/16",
        "address":"fd00::7:0:0:0:1","network":"fd00::/48","pid":4242,"uptime_seconds":4000.0,"ready":true,
        "health":{"state":"degraded","findings":[{"id":"registry_away","severity":"degraded","count":null,"seconds":60.0,
        "seen":"no\u001broute","advice":"check the registry"}]},"nodes_reachable":7,"routes_unreachable":1,
        "endpoints":[{"endpoint":"udp:192.0.2.7:1194","source":"configured","is_private":false,"reached_seconds_ago":65.0}],
        "tunnels_up":{"dialled":2,"accepted":1},"nodes_known":8,"routes_installed":8,"neighbours":3,"exit_gateway":"9/16",
        "registry":{"last_request_at":"2023-11-14T22:13:20Z","last_answer_at":"2023-11-14T22:03:20Z","last_error":"no\u001broute"},
        "leases":[],"processes":[{"name":"babeld","pid":4243,"ready":true,"starts":1}],"actor_restarts":0}"#;

    #[track_caller]
    fn check(document: &StatusDocument, expected_line: &str) {
        let text = render(document, None);
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert!(lines.iter().any(|line| line == expected_line), "{text}");
    }

    #[test]
    fn each_fact_of_the_node_has_a_line() {
        let document: StatusDocument = serde_json::from_str(DOCUMENT).unwrap();
        for line in [
            "node 7/16 in fd00::/48",
            "degraded: 3 tunnels, 7 nodes reachable",
            "degraded: no?route: check the registry",
            "nodes 7 reachable, 8 known",
            "routes 8 installed, 1 unreachable",
            "endpoint udp:192.0.2.7:1194, from the configuration, others got through 1m 5s ago",
            "running for 1h 6m",
            "tunnels up 2 dialled, 1 accepted",
            "exit gateway 9/16",
            "registry unreachable: no?route; last answer at 2023-11-14 22:03:20Z",
            "process babeld ready, pid 4243, 1 start",
        ] {
            check(&document, line);
        }
        let named = StatusDocument {
            name: Some("web".into()),
            exit_gateway_name: Some("rack".into()),
            ..document
        };
        check(&named, "node web (7/16) in fd00::/48");
        check(&named, "exit gateway rack (9/16)");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let document: StatusDocument = serde_json::from_str(DOCUMENT).unwrap();
        let text = render(&document, Some(60));
        assert!(
            text.lines()
                .all(|line| line.trim_end().chars().count() <= 60),
            "{text}"
        );
    }

    #[test]
    fn a_gateway_names_itself_and_a_dry_run_is_announced() {
        let mut document: StatusDocument = serde_json::from_str(DOCUMENT).unwrap();
        document.exit_gateway = Some("7/16".into());
        document.dry_run = true;
        check(&document, "exit gateway this node");
        check(&document, &format!("policy {DRY_RUN}"));
    }
}
