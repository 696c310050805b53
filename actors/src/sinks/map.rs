//! Serves the map of the network as this node knows it: a page, what the page gets once a second, and the document.
//!
//! The control socket and the servers of metrics use the same handlers. All that is shown is in the published snapshot.

use crate::sinks::{documents::View, telemetry::Published};
use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ContentType},
    web,
};
use map::Update;
use os::clock::Clock;
use policies::{
    names::{Prefix, Slot},
    observation::INFINITY,
};
use std::collections::{BTreeMap, BTreeSet};
use wire::{
    control::{EventQuery, VERSION},
    map::{MapDocument, MapGroup, MapNode},
};

/// Maximum number of past events that a page gets.
const MAX_EVENTS: usize = 50;

/// Answers with the page.
pub(super) async fn page() -> HttpResponse {
    let page = map::page();
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .insert_header((
            CONTENT_SECURITY_POLICY,
            page.content_security_policy.as_str(),
        ))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(page.html.as_str())
}

/// Answers with the drawing and the events after a number.
pub(super) async fn update(
    query: web::Query<EventQuery>,
    published: web::Data<Published>,
    clock: web::Data<Clock>,
) -> HttpResponse {
    let snapshot = published.load();
    let update = update_after(&View::new(&snapshot, &clock), query.after);
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(update)
}

/// Draws the map, and adds the events after a number.
pub(super) fn update_after(view: &View<'_>, after: u64) -> Update {
    let events = view.events(after);
    let skipped = events.events.len().saturating_sub(MAX_EVENTS);
    let shown = events.events.into_iter().skip(skipped).collect();
    Update::new(&view.map(), events.newest, shown)
}

impl View<'_> {
    pub(super) fn map(&self) -> MapDocument {
        let status = self.status();
        let tunnels = self.tunnels().tunnels;
        let mut behind = self.nodes_behind();
        let mut groups: Vec<_> = tunnels
            .into_iter()
            .map(|tunnel| MapGroup {
                title: tunnel.slot.clone(),
                is_lost: false,
                nodes: self.map_nodes(behind.by_slot.remove(&tunnel.slot).unwrap_or_default()),
                tunnel: Some(tunnel),
            })
            .collect();
        if !behind.lost.is_empty() {
            let lost = behind.lost.into_iter().map(|node| (node, None));
            groups.push(MapGroup {
                title: "no route".to_owned(),
                tunnel: None,
                is_lost: true,
                nodes: self.map_nodes(lost.collect()),
            });
        }
        let state = status.health.state.replace('_', " ");
        let tunnels_up = status.tunnels_up.dialled + status.tunnels_up.accepted;
        let reachable = status.nodes_reachable;
        MapDocument {
            version: VERSION,
            at: status.at,
            network: status.network,
            viewer: MapNode {
                prefix: status.prefix,
                name: status.name,
                metric: Some(0),
            },
            summary: format!("{state}: {tunnels_up} tunnels, {reachable} nodes reachable"),
            groups,
        }
    }

    fn map_nodes(&self, nodes: BTreeMap<Prefix, Option<u16>>) -> Vec<MapNode> {
        let node = |(prefix, metric): (Prefix, Option<u16>)| MapNode {
            prefix: prefix.to_string(),
            name: self.name(prefix),
            metric,
        };
        nodes.into_iter().map(node).collect()
    }

    /// Sorts the nodes that are no neighbours by the slot of their route.
    fn nodes_behind(&self) -> NodesBehind {
        let mut behind = NodesBehind::default();
        let peers: BTreeMap<Slot, Prefix> = self
            .node
            .rows
            .live()
            .map(|row| (row.tunnel.slot, row.tunnel.peer))
            .collect();
        let mut reached = BTreeSet::new();
        let routes = self.node.babel.iter().flat_map(|table| &table.routes);
        for route in routes.clone() {
            if !route.installed || route.metric == INFINITY {
                continue;
            }
            reached.insert(route.node);
            if peers.get(&route.slot) != Some(&route.node) {
                let nodes = behind.by_slot.entry(route.slot.to_string()).or_default();
                nodes.insert(route.node, Some(route.metric));
            }
        }
        let lost = routes.map(|route| route.node);
        behind.lost = lost.filter(|node| !reached.contains(node)).collect();
        behind
    }
}

/// The nodes that are no neighbours.
#[derive(Default)]
struct NodesBehind {
    /// Those with an installed route, by its slot, with its metric.
    by_slot: BTreeMap<String, BTreeMap<Prefix, Option<u16>>>,
    /// Those that babeld still knows, without a usable route.
    lost: BTreeSet<Prefix>,
}
