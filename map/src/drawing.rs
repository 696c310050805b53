//! Draws a document as SVG.

use crate::{
    layout::{
        BOX_HEIGHT, BOX_WIDTH, CELL_HEIGHT, CELL_WIDTH, LABEL_X, Layout, PEER_X, Place, ROWS_X,
        VIEWER_X, WIDTH, cell,
    },
    text::{bytes, escaped, float, milliseconds, shortened, time_span},
};
use std::fmt::Write;
use wire::{
    control::TunnelEntry,
    map::{MapDocument, MapGroup, MapNode},
};

/// The styles of a drawing, which the page has in its own head.
pub(crate) const STYLE: &str = include_str!("../page/drawing.css");

/// Thickest line of a tunnel, in tenths of a pixel.
const MAX_LINE_WIDTH: u32 = 90;

/// Draws a document as a file of its own.
pub fn svg(document: &MapDocument) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}",
        draw(document, &format!("<style>{STYLE}</style>"))
    )
}

/// Draws a document for the page, whose styles apply to it.
pub fn fragment(document: &MapDocument) -> String {
    draw(document, "")
}

fn draw(document: &MapDocument, style: &str) -> String {
    let layout = Layout::new(document);
    let (height, viewer) = (layout.height, &document.viewer);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"map\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"group\" aria-label=\"Map of the network {network}\">{style}\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\
         <text class=\"title\" x=\"{VIEWER_X}\" y=\"28\">Network {network} as {viewer} knows it</text>\
         <text class=\"summary\" x=\"{VIEWER_X}\" y=\"48\">{summary}</text>",
        network = escaped(&document.network),
        viewer = escaped(&full_name(viewer)),
        summary = escaped(&document.summary),
    );
    let groups = || document.groups.iter().zip(&layout.groups);
    for (group, place) in groups() {
        svg.push_str(&lines(group, *place, layout.viewer_y()));
    }
    let corner = (VIEWER_X, layout.viewer_y() - BOX_HEIGHT / 2);
    svg.push_str(&named_box(
        "viewer",
        "viewer",
        corner,
        viewer,
        &full_name(viewer),
    ));
    for (group, place) in groups() {
        svg.push_str(&group_of_nodes(group, *place));
    }
    svg.push_str("</svg>");
    svg
}

/// The line of a tunnel with its labels, and the bracket before the nodes behind it.
fn lines(group: &MapGroup, place: Place, viewer_y: u32) -> String {
    let y = place.middle();
    let mut svg = String::new();
    if let Some(tunnel) = &group.tunnel {
        let (from, bend) = (VIEWER_X + BOX_WIDTH, (VIEWER_X + BOX_WIDTH + LABEL_X) / 2);
        let width = line_width(tunnel.rx_bytes_per_second + tunnel.tx_bytes_per_second);
        let (first, second) = labels(tunnel);
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            "<g class=\"tunnel {phase}\"><path d=\"M{from} {viewer_y}C{bend} {viewer_y} {bend} {y} {LABEL_X} {y}H{PEER_X}\" \
             stroke-width=\"{width}\"/>\
             <text x=\"{LABEL_X}\" y=\"{above}\">{first}</text><text x=\"{LABEL_X}\" y=\"{below}\">{second}</text></g>",
            phase = escaped(&tunnel.phase),
            above = y - 8,
            below = y + 18,
            first = escaped(&first),
            second = escaped(&second),
        );
    }
    if !group.nodes.is_empty() {
        let (start, bar) = (PEER_X + BOX_WIDTH, ROWS_X - 10);
        let (top, bottom) = (place.top, place.top + place.height);
        let _ = write!(
            svg,
            "<path class=\"bracket\" d=\"M{start} {y}H{bar}M{bar} {top}V{bottom}\"/>"
        );
    }
    svg
}

/// What stands above and below the line of a tunnel.
fn labels(tunnel: &TunnelEntry) -> (String, String) {
    let rtt = tunnel.rtt_seconds.map(milliseconds);
    let loss = tunnel.loss_ratio.filter(|ratio| *ratio > 0.0);
    let loss = loss.map(|ratio| format!("{:.0} % lost", ratio * 100.0));
    let phase = Some(tunnel.phase.clone()).filter(|phase| phase != "up");
    let noun = if tunnel.nodes_served == 1 {
        "node"
    } else {
        "nodes"
    };
    let served = Some(format!("{} {noun}", tunnel.nodes_served));
    let parts = [Some(tunnel.slot.clone()), phase, rtt, loss, served];
    let first: Vec<_> = parts.into_iter().flatten().collect();
    let total = float(tunnel.rx_bytes) + float(tunnel.tx_bytes);
    let second = format!(
        "in {}/s, out {}/s; {} in all",
        bytes(tunnel.rx_bytes_per_second),
        bytes(tunnel.tx_bytes_per_second),
        bytes(total)
    );
    (first.join(", "), second)
}

/// The width of a tunnel's line in pixels: one more for each factor of ten of its rate above 100 B/s.
fn line_width(bytes_per_second: f64) -> String {
    let mut tenths = 15;
    let mut rate = bytes_per_second / 100.0;
    while rate >= 1.0 && tenths < MAX_LINE_WIDTH {
        tenths += 10;
        rate /= 10.0;
    }
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// The neighbour, or the title of the group, and the nodes behind it.
fn group_of_nodes(group: &MapGroup, place: Place) -> String {
    let corner = (PEER_X, place.middle() - BOX_HEIGHT / 2);
    let mut svg = match &group.tunnel {
        Some(tunnel) => {
            let peer = MapNode {
                prefix: tunnel.peer.clone(),
                name: tunnel.peer_name.clone(),
                metric: None,
            };
            let class = format!("peer {}", tunnel.phase);
            named_box(&group.title, &class, corner, &peer, &about_tunnel(tunnel))
        }
        None => format!(
            "<text class=\"group\" x=\"{PEER_X}\" y=\"{}\">{}: {}</text>",
            place.middle() + 4,
            escaped(&group.title),
            group.nodes.len()
        ),
    };
    for (number, node) in group.nodes.iter().take(place.drawn).enumerate() {
        svg.push_str(&small_node(group, cell(place, number), node));
    }
    if place.drawn < group.nodes.len() {
        let (x, y) = cell(place, place.drawn);
        let (x, y, hidden) = (x + 10, y + 14, group.nodes.len() - place.drawn);
        // Writing to a string cannot fail.
        let _ = write!(svg, "<text x=\"{x}\" y=\"{y}\">and {hidden} more</text>");
    }
    svg
}

/// All that is known of a tunnel, in one line for people.
fn about_tunnel(tunnel: &TunnelEntry) -> String {
    let peer = MapNode {
        prefix: tunnel.peer.clone(),
        name: tunnel.peer_name.clone(),
        metric: None,
    };
    let (first, second) = labels(tunnel);
    let age = tunnel.age_seconds.map(time_span);
    let age = age.map_or(String::new(), |age| format!(", up for {age}"));
    let reason = tunnel.drain_reason.as_ref();
    let reason = reason.map_or(String::new(), |reason| format!(", because: {reason}"));
    let verdict = tunnel.verdict.as_ref();
    let verdict = verdict.map_or(String::new(), |verdict| format!(". {verdict}"));
    let (role, phase) = (&tunnel.role, &tunnel.phase);
    format!(
        "{}: {role} tunnel {first}, {second}{age}; {phase}{reason}{verdict}",
        full_name(&peer)
    )
}

/// A box with name and prefix, which the keyboard can reach.
fn named_box(id: &str, class: &str, (x, y): (u32, u32), node: &MapNode, about: &str) -> String {
    let (middle, label) = (x + BOX_WIDTH / 2, label(node));
    let prefix = if node.name.is_some() {
        node.prefix.as_str()
    } else {
        ""
    };
    let name_y = if prefix.is_empty() { y + 22 } else { y + 15 };
    format!(
        "<g class=\"node {class}\" data-id=\"{id}\" data-name=\"{search}\" tabindex=\"0\" role=\"img\" aria-label=\"{about}\">\
         <title>{about}</title><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"6\"/>\
         <text x=\"{middle}\" y=\"{name_y}\">{label}</text><text class=\"prefix\" x=\"{middle}\" y=\"{prefix_y}\">{prefix}</text></g>",
        class = escaped(class),
        id = escaped(id),
        search = escaped(&full_name(node)),
        about = escaped(about),
        label = escaped(&label),
        prefix = escaped(prefix),
        prefix_y = y + 29,
    )
}

/// A node that is no neighbour.
fn small_node(group: &MapGroup, (x, y): (u32, u32), node: &MapNode) -> String {
    let state = if group.is_lost { "lost" } else { "far" };
    let metric = node.metric.map(|metric| format!(", metric {metric}"));
    let by = group.tunnel.as_ref();
    let by = by.map_or(String::new(), |tunnel| format!(", by {}", tunnel.slot));
    let about = format!("{}{by}{}", full_name(node), metric.unwrap_or_default());
    format!(
        "<g class=\"node {state}\" data-id=\"{id}\" data-name=\"{search}\" tabindex=\"0\" role=\"img\" aria-label=\"{about}\">\
         <title>{about}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\"/>\
         <circle cx=\"{dot_x}\" cy=\"{dot_y}\" r=\"4\"/><text x=\"{text_x}\" y=\"{text_y}\">{label}</text></g>",
        id = escaped(&format!("{} {}", group.title, node.prefix)),
        search = escaped(&full_name(node)),
        about = escaped(&about),
        width = CELL_WIDTH - 4,
        height = CELL_HEIGHT - 2,
        dot_x = x + 10,
        dot_y = y + 10,
        text_x = x + 19,
        text_y = y + 14,
        label = escaped(&label(node)),
    )
}

/// The name, or the prefix of a node without one, as short as a label must be.
fn label(node: &MapNode) -> String {
    shortened(node.name.as_ref().unwrap_or(&node.prefix))
}

/// Name and prefix.
fn full_name(node: &MapNode) -> String {
    match &node.name {
        Some(name) if node.prefix.is_empty() => name.clone(),
        Some(name) => format!("{name} ({})", node.prefix),
        None => node.prefix.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layout::MAX_DRAWN_NODES, samples::sample};

    /// Counts a text in a drawing.
    fn count(svg: &str, text: &str) -> usize {
        svg.matches(text).count()
    }

    #[test]
    fn a_drawing_has_every_node_and_tunnel_and_depends_on_the_document_alone() {
        for nodes in [1, 5, 50, 500] {
            let document = sample(nodes);
            let svg = svg(&document);
            assert_eq!(count(&svg, "tabindex=\"0\""), nodes);
            let tunnels = document
                .groups
                .iter()
                .filter(|group| group.tunnel.is_some());
            assert_eq!(count(&svg, "<g class=\"tunnel "), tunnels.count());
            assert_eq!(svg, super::svg(&document.clone()));
        }
    }

    #[test]
    fn of_very_many_nodes_only_a_part_is_drawn_and_the_rest_is_counted() {
        let svg = fragment(&sample(9_999));
        assert!(count(&svg, "tabindex=\"0\"") <= MAX_DRAWN_NODES + 13);
        assert_eq!(count(&svg, " more</text>"), 13);
    }

    #[test]
    fn a_closed_tunnel_is_no_longer_drawn() {
        let mut document = sample(5);
        assert!(fragment(&document).contains("wrnu.4"));
        document.groups.remove(2);
        assert!(!fragment(&document).contains("wrnu.4"));
    }

    #[test]
    fn hostile_names_verdicts_and_slots_stay_text() {
        let hostile = "</title></svg><script>alert(1)</script>\" onclick=\"alert(2)".to_owned();
        let mut document = sample(5);
        document.viewer.name = Some(hostile.clone());
        document.summary.clone_from(&hostile);
        document.network.clone_from(&hostile);
        for group in &mut document.groups {
            group.title.clone_from(&hostile);
            for node in &mut group.nodes {
                node.name = Some(hostile.clone());
                node.prefix.clone_from(&hostile);
            }
            if let Some(tunnel) = &mut group.tunnel {
                for text in [
                    &mut tunnel.slot,
                    &mut tunnel.peer,
                    &mut tunnel.role,
                    &mut tunnel.phase,
                ] {
                    text.clone_from(&hostile);
                }
                for text in [
                    &mut tunnel.peer_name,
                    &mut tunnel.verdict,
                    &mut tunnel.drain_reason,
                ] {
                    *text = Some(hostile.clone());
                }
            }
        }
        let svg = fragment(&document);
        assert_eq!(count(&svg, "<script"), 0);
        // Each element that is opened has the attributes of this file only.
        assert_eq!(count(&svg, "onclick=\""), 0);
        assert_eq!((count(&svg, "<svg"), count(&svg, "</svg>")), (1, 1));
        assert_eq!(count(&svg, "<title>"), count(&svg, "</title>"));
    }

    #[test]
    fn a_tunnel_is_the_wider_the_more_it_carries() {
        let widths = [0.0, 150.0, 1_500.0, 1e6, 1e12].map(line_width);
        assert_eq!(widths, ["1.5", "2.5", "3.5", "6.5", "9.5"]);
    }
}
