//! The rows of `warren status` about the LANs of the host.

use super::format::{node, printable, time_span};
use wire::control::{LanLinkEntry, LanNodeEntry, LanState};

/// Returns one row for each link and for each node on it.
pub(super) fn rows(lan: &LanState) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    if !lan.enabled {
        lines.push("not searched for other nodes (lan-discovery: off)".to_owned());
    } else if lan.links.is_empty() {
        lines.push("no link of this host leads to a LAN".to_owned());
    }
    for link in &lan.links {
        lines.push(link_line(link));
        let nodes = lan.nodes.iter().filter(|node| node.link == link.link);
        lines.extend(nodes.map(node_line));
    }
    if lan.has_copy {
        lines.push(
            "another host has this node's prefix and the network's key: one of the two is a copy and needs an identity of its own"
                .to_owned(),
        );
    }
    let row = |line: String| ("LAN".to_owned(), line);
    lines.into_iter().map(row).collect()
}

fn link_line(entry: &LanLinkEntry) -> String {
    let link = printable(&entry.link);
    match &entry.error {
        None => format!("{link} is searched for other nodes"),
        Some(error) => format!(
            "{link} cannot be searched for other nodes: {}",
            printable(error)
        ),
    }
}

fn node_line(entry: &LanNodeEntry) -> String {
    let node = node(&entry.prefix, entry.name.as_deref());
    let link = printable(&entry.link);
    let ago = time_span(entry.answered_seconds_ago);
    match entry.endpoints.first() {
        Some(endpoint) => {
            let endpoint = printable(endpoint);
            format!("{node} on {link}, {endpoint}, answered {ago} ago")
        }
        None => format!("{node} on {link}, accepts no tunnels, answered {ago} ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lan: &LanState, expected: &[&str]) {
        let rows = rows(lan);
        let lines: Vec<_> = rows.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn each_link_and_each_node_has_a_row_and_nothing_is_silent() {
        check(
            &LanState::default(),
            &["not searched for other nodes (lan-discovery: off)"],
        );
        let enabled = LanState {
            enabled: true,
            ..LanState::default()
        };
        check(&enabled, &["no link of this host leads to a LAN"]);
        let link = |link: &str, error: Option<&str>| LanLinkEntry {
            link: link.to_owned(),
            error: error.map(str::to_owned),
        };
        let node = |endpoints: &[&str]| LanNodeEntry {
            prefix: "7/16".to_owned(),
            name: Some("web".to_owned()),
            link: "eth0".to_owned(),
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            answered_seconds_ago: 65.0,
        };
        let lan = LanState {
            links: vec![link("eth0", None), link("eth1", Some("port\nin use"))],
            nodes: vec![node(&["udp:192.168.1.7:1194"]), node(&[])],
            has_copy: true,
            ..enabled
        };
        check(
            &lan,
            &[
                "eth0 is searched for other nodes",
                "web (7/16) on eth0, udp:192.168.1.7:1194, answered 1m 5s ago",
                "web (7/16) on eth0, accepts no tunnels, answered 1m 5s ago",
                "eth1 cannot be searched for other nodes: port?in use",
                "another host has this node's prefix and the network's key: one of the two is a copy and needs an identity of its own",
            ],
        );
    }
}
