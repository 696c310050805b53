//! Serves the map of all nodes that have a certificate: those that announce themselves, and those that are silent.
//!
//! The registry knows no tunnels, so it draws none; the map of a node shows them.

use super::Source;
use crate::service::{NodeEntry, RegistryService, error::ServiceError};
use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ContentType},
    web,
};
use map::Update;
use policies::names::Prefix;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use wire::{
    control::VERSION,
    map::{MapDocument, MapGroup, MapNode},
};

/// Answers with the page.
pub(super) async fn page() -> HttpResponse {
    let page = map::page();
    let policy = page.content_security_policy.as_str();
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .insert_header((CONTENT_SECURITY_POLICY, policy))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(page.html.as_str())
}

/// Answers with the drawing. The registry keeps no events.
pub(super) async fn update(source: web::Data<Source>) -> HttpResponse {
    let at = OffsetDateTime::from_unix_timestamp((source.clock)().0)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    match source.queue.ask(move |service| document(service, at)).await {
        Ok(document) => HttpResponse::Ok()
            .insert_header((CACHE_CONTROL, "no-store"))
            .json(Update::new(&document, 0, Vec::new())),
        Err(_) => HttpResponse::InternalServerError().body("the registry cannot read its state\n"),
    }
}

/// Builds the document from the nodes that have a live certificate.
fn document(service: &RegistryService, at: OffsetDateTime) -> Result<MapDocument, ServiceError> {
    let network = service.network_range();
    let live = service.members()?.into_iter();
    let live = live.filter(|node| node.member.revoked_at.is_none());
    // A node that has just renewed its certificate has two.
    let nodes: BTreeMap<Prefix, NodeEntry> = live.map(|node| (node.member.prefix, node)).collect();
    let (announced, silent): (Vec<_>, Vec<_>) = nodes
        .into_values()
        .partition(|node| node.announcement.is_some());
    let summary = format!(
        "{} nodes announce themselves, {} are silent",
        announced.len(),
        silent.len()
    );
    let group = |title: &str, is_lost: bool, nodes: Vec<NodeEntry>| MapGroup {
        title: title.to_owned(),
        tunnel: None,
        is_lost,
        nodes: nodes.into_iter().map(map_node).collect(),
    };
    let groups = [
        group("announced", false, announced),
        group("silent", true, silent),
    ];
    Ok(MapDocument {
        version: VERSION,
        at,
        network: network.range().to_string(),
        viewer: MapNode {
            prefix: String::new(),
            name: Some("registry".to_owned()),
            metric: None,
        },
        summary,
        groups: groups
            .into_iter()
            .filter(|group| !group.nodes.is_empty())
            .collect(),
    })
}

fn map_node(node: NodeEntry) -> MapNode {
    MapNode {
        prefix: node.member.prefix.to_string(),
        name: node.name,
        metric: None,
    }
}
