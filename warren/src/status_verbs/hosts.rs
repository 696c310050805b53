//! The text of `warren hosts`: lines for `/etc/hosts`, or for dnsmasq's `addn-hosts`.

use super::format::or_dash;
use policies::node_name::NodeName;
use std::net::Ipv6Addr;
use wire::control::{NamesDocument, NodeNameEntry};

/// Shows one line for each node that has a name, sorted by name: address, name in `domain`, name.
pub(super) fn render(document: &NamesDocument, domain: Option<&str>) -> String {
    let domain = domain.map_or_else(|| default_domain(&document.network), str::to_owned);
    let named = |node: &NodeNameEntry| {
        let name: NodeName = node.name.as_ref()?.parse().ok()?;
        Some((name, node.address))
    };
    let mut named: Vec<(NodeName, Ipv6Addr)> = document.nodes.iter().filter_map(named).collect();
    named.sort();
    let lines: Vec<_> = named
        .iter()
        .map(|(name, address)| format!("{address} {name}.{domain} {name}"))
        .collect();
    lines.join("\n")
}

/// Shows one line for each known node, sorted by prefix: prefix, address, and name or a dash.
pub(super) fn render_all(document: &NamesDocument) -> String {
    let lines: Vec<_> = document
        .nodes
        .iter()
        .map(|node| {
            let name = or_dash(node.name.clone());
            format!("{} {} {name}", node.prefix, node.address)
        })
        .collect();
    lines.join("\n")
}

/// Returns the domain of a network: the bits of its range, such as `fd12-3456-789a.internal`.
fn default_domain(network: &str) -> String {
    let bits = network.split('/').next().unwrap_or_default();
    format!("{}.internal", bits.trim_end_matches(':').replace(':', "-"))
}

/// Parses a domain: labels that are separated by dots.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let labels = text.trim_end_matches('.').split('.');
    let labels: Result<Vec<_>, _> = labels.map(str::parse::<NodeName>).collect();
    let labels = labels.map_err(|_| "a domain, such as example.org".to_owned())?;
    let labels: Vec<_> = labels.iter().map(NodeName::as_str).collect();
    Ok(labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"version":1,"at":"2023-11-14T22:13:20.5Z","network":"fd12:3456:789a::/48","nodes":[
        {"prefix":"7/16","name":"web","address":"fd12:3456:789a:7::1"},
        {"prefix":"8/16","name":null,"address":"fd12:3456:789a:8::1"},
        {"prefix":"9/16","name":"a\nb","address":"fd12:3456:789a:9::1"},
        {"prefix":"10/16","name":"printer","address":"fd12:3456:789a:a::1"}]}"#;

    #[track_caller]
    fn check(domain: Option<&str>, expected: &[&str]) {
        let document = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(render(&document, domain), expected.join("\n"));
    }

    #[test]
    fn each_named_node_has_a_line_and_a_bad_name_is_left_out() {
        check(
            Some("example.org"),
            &[
                "fd12:3456:789a:a::1 printer.example.org printer",
                "fd12:3456:789a:7::1 web.example.org web",
            ],
        );
        check(
            None,
            &[
                "fd12:3456:789a:a::1 printer.fd12-3456-789a.internal printer",
                "fd12:3456:789a:7::1 web.fd12-3456-789a.internal web",
            ],
        );
    }

    #[test]
    fn all_known_nodes_are_listed_on_request() {
        let document: NamesDocument = serde_json::from_str(DOCUMENT).unwrap();
        let text = render_all(&document);
        assert!(text.contains("8/16 fd12:3456:789a:8::1 -"), "{text}");
    }

    #[test]
    fn a_domain_consists_of_labels() {
        assert_eq!(domain("Example.org.").as_deref(), Ok("example.org"));
        for bad in ["", ".", "a..b", "a b", "-a.org"] {
            assert!(domain(bad).is_err(), "{bad}");
        }
    }
}
