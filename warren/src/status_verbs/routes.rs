//! The text of `warren routes`: babeld's neighbours, its routes to nodes, and its routes to exit gateways.

use super::format::{align_right, metric, milliseconds, node, or_dash, plain_table, yes_or_dash};
use wire::control::{ExitRouteEntry, NeighbourEntry, RouteEntry, RoutesDocument};

/// Shows the document.
pub(super) fn render(document: &RoutesDocument) -> String {
    if !document.babeld_answers {
        return "babeld does not answer".to_owned();
    }
    let mut parts = vec![neighbours(&document.neighbours), routes(&document.routes)];
    if !document.exit_routes.is_empty() {
        parts.push(exit_routes(&document.exit_routes));
    }
    parts.join("\n\n")
}

fn neighbours(entries: &[NeighbourEntry]) -> String {
    let mut table = plain_table();
    table.set_header([
        "NEIGHBOUR",
        "TUNNEL",
        "COST",
        "RXCOST",
        "TXCOST",
        "RTT",
        "HELLOS",
    ]);
    for entry in entries {
        table.add_row([
            node(&entry.peer, entry.peer_name.as_deref()),
            entry.slot.clone(),
            metric(entry.cost),
            metric(entry.rxcost),
            metric(entry.txcost),
            or_dash(entry.rtt_seconds.map(milliseconds)),
            format!("{} of 16", entry.reach.count_ones()),
        ]);
    }
    align_right(&mut table, 2..7);
    table.to_string()
}

fn routes(entries: &[RouteEntry]) -> String {
    let mut table = plain_table();
    table.set_header(["NODE", "ADDRESS", "VIA", "TUNNEL", "METRIC", "INSTALLED"]);
    for entry in entries {
        table.add_row([
            node(&entry.node, entry.node_name.as_deref()),
            entry.address.to_string(),
            node(&entry.via, entry.via_name.as_deref()),
            entry.slot.clone(),
            metric(entry.metric),
            yes_or_dash(entry.installed),
        ]);
    }
    align_right(&mut table, 4..5);
    table.to_string()
}

fn exit_routes(entries: &[ExitRouteEntry]) -> String {
    let mut table = plain_table();
    table.set_header(["EXIT GATEWAY", "VIA", "TUNNEL", "METRIC", "INSTALLED"]);
    for entry in entries {
        table.add_row([
            node(&entry.gateway, entry.gateway_name.as_deref()),
            node(&entry.via, entry.via_name.as_deref()),
            entry.slot.clone(),
            metric(entry.metric),
            yes_or_dash(entry.installed),
        ]);
    }
    align_right(&mut table, 3..4);
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_routes_have_a_table_of_their_own() {
        let text = r#"{"version":1,"at":"2023-11-14T22:13:20.5Z","babeld_answers":true,"neighbours":[],"routes":[],
            "exit_routes":[{"gateway":"9/16","slot":"wrn0","via":"8/16","installed":true,"metric":192,"refmetric":96}]}"#;
        let shown = render(&serde_json::from_str(text).unwrap());
        let words: Vec<_> = shown.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(words.join(" "), "9/16 8/16 wrn0 192 yes");
        assert!(shown.contains("EXIT GATEWAY"), "{shown}");
    }
}
