//! The text of `warren status`: one fact a line.

use super::format::{DRY_RUN, node, plain_table, printable, time_span, utc_time};
use wire::control::{LeaseEntry, ProcessEntry, RegistryState, StatusDocument};

/// The rows of the table: what, and how it is.
type Rows = Vec<(String, String)>;

/// Shows the document.
pub(super) fn render(document: &StatusDocument) -> String {
    let mut rows = identity_rows(document);
    rows.extend(network_rows(document));
    rows.extend(document.leases.iter().map(lease_row));
    rows.extend(document.processes.iter().map(process_row));
    if document.actor_restarts > 0 {
        let count = document.actor_restarts.to_string();
        rows.push(("actor restarts".to_owned(), count));
    }
    let mut table = plain_table();
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
    let state = if document.ready { "ready" } else { "not ready" };
    add("state", state.to_owned());
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
    add("nodes known", document.nodes_known.to_string());
    add("routes installed", document.routes_installed.to_string());
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

fn lease_row(lease: &LeaseEntry) -> (String, String) {
    let (transport, port, external) = (&lease.transport, lease.internal_port, lease.external);
    let expiry = utc_time(lease.expires_at);
    (
        "port mapping".to_owned(),
        format!("{transport} {external} to port {port}, expires at {expiry}"),
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
        "tunnels_up":{"dialled":2,"accepted":1},"nodes_known":8,"routes_installed":8,"neighbours":3,"exit_gateway":"9/16",
        "registry":{"last_request_at":"2023-11-14T22:13:20Z","last_answer_at":"2023-11-14T22:03:20Z","last_error":"no\u001broute"},
        "leases":[],"processes":[{"name":"babeld","pid":4243,"ready":true,"starts":1}],"actor_restarts":0}"#;

    #[track_caller]
    fn check(document: &StatusDocument, expected_line: &str) {
        let text = render(document);
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
            "state ready",
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
    fn a_gateway_names_itself_and_a_dry_run_is_announced() {
        let mut document: StatusDocument = serde_json::from_str(DOCUMENT).unwrap();
        document.exit_gateway = Some("7/16".into());
        document.dry_run = true;
        check(&document, "exit gateway this node");
        check(&document, &format!("policy {DRY_RUN}"));
    }
}
