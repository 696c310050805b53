//! The text of `warren routes`: babeld's neighbours, its routes to nodes, and its routes to exit gateways.

use super::{
    format::{metric, milliseconds, node, or_dash, yes_or_dash},
    layout::{self, Fit},
};
use wire::control::{ExitRouteEntry, NeighbourEntry, RouteEntry, RoutesDocument};

/// The costs by direction and the hellos are left out of a narrow table of neighbours first.
const NEIGHBOUR_FIT: Fit = Fit {
    numbers: 2..7,
    drop_order: &[3, 4, 6],
    elastic: 0,
};

/// The address, which follows from the prefix, is left out of a narrow table of routes first.
const ROUTE_FIT: Fit = Fit {
    numbers: 4..5,
    drop_order: &[1, 3],
    elastic: 0,
};

/// The tunnel is left out of a narrow table of exit routes first.
const EXIT_ROUTE_FIT: Fit = Fit {
    numbers: 3..4,
    drop_order: &[2],
    elastic: 0,
};

/// Shows the document.
pub(super) fn render(document: &RoutesDocument, width: Option<usize>) -> String {
    if !document.babeld_answers {
        return "babeld does not answer".to_owned();
    }
    let mut parts = vec![
        neighbours(&document.neighbours, width),
        routes(&document.routes, width),
    ];
    if !document.exit_routes.is_empty() {
        parts.push(exit_routes(&document.exit_routes, width));
    }
    parts.join("\n\n")
}

fn neighbours(entries: &[NeighbourEntry], width: Option<usize>) -> String {
    let header = [
        "NEIGHBOUR",
        "TUNNEL",
        "COST",
        "RXCOST",
        "TXCOST",
        "RTT",
        "HELLOS",
    ];
    let row = |entry: &NeighbourEntry| {
        [
            node(&entry.peer, entry.peer_name.as_deref()),
            entry.slot.clone(),
            metric(entry.cost),
            metric(entry.rxcost),
            metric(entry.txcost),
            or_dash(entry.rtt_seconds.map(milliseconds)),
            format!("{} of 16", entry.reach.count_ones()),
        ]
    };
    let rows = entries.iter().map(row).collect();
    layout::table(header, rows, &NEIGHBOUR_FIT, width)
}

fn routes(entries: &[RouteEntry], width: Option<usize>) -> String {
    let header = ["NODE", "ADDRESS", "VIA", "TUNNEL", "METRIC", "INSTALLED"];
    let row = |entry: &RouteEntry| {
        [
            node(&entry.node, entry.node_name.as_deref()),
            entry.address.to_string(),
            node(&entry.via, entry.via_name.as_deref()),
            entry.slot.clone(),
            metric(entry.metric),
            yes_or_dash(entry.installed),
        ]
    };
    let rows = entries.iter().map(row).collect();
    layout::table(header, rows, &ROUTE_FIT, width)
}

fn exit_routes(entries: &[ExitRouteEntry], width: Option<usize>) -> String {
    let header = ["EXIT GATEWAY", "VIA", "TUNNEL", "METRIC", "INSTALLED"];
    let row = |entry: &ExitRouteEntry| {
        [
            node(&entry.gateway, entry.gateway_name.as_deref()),
            node(&entry.via, entry.via_name.as_deref()),
            entry.slot.clone(),
            metric(entry.metric),
            yes_or_dash(entry.installed),
        ]
    };
    let rows = entries.iter().map(row).collect();
    layout::table(header, rows, &EXIT_ROUTE_FIT, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_routes_have_a_table_of_their_own() {
        let text = r#"{"version":1,"at":"2023-11-14T22:13:20.5Z","babeld_answers":true,"neighbours":[],"routes":[],
            "exit_routes":[{"gateway":"9/16","slot":"wrn0","via":"8/16","installed":true,"metric":192,"refmetric":96}]}"#;
        let shown = render(&serde_json::from_str(text).unwrap(), None);
        let words: Vec<_> = shown.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(words.join(" "), "9/16 8/16 wrn0 192 yes");
        assert!(shown.contains("EXIT GATEWAY"), "{shown}");
    }

    #[test]
    fn the_tables_fit_into_80_columns() {
        let text = r#"{"version":1,"at":"2023-11-14T22:13:20.5Z","babeld_answers":true,"neighbours":[],
            "routes":[{"node":"9/16","node_name":"printer-of-the-first-floor","address":"fd12:3456:789a:9::1","slot":"wrn0",
            "via":"8/16","via_name":"rack-in-the-basement","installed":true,"metric":192,"refmetric":96}]}"#;
        let shown = render(&serde_json::from_str(text).unwrap(), Some(80));
        assert!(
            shown
                .lines()
                .all(|line| line.trim_end().chars().count() <= 80),
            "{shown}"
        );
        assert!(shown.contains("printer-of-the-first"), "{shown}");
    }
}
