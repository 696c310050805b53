//! Sends an echo request for `warren ping` and `warren trace`, and reports what came back.
//!
//! The daemon sends it, since raw sockets need a right that members of the group `warren` lack. Requests go to addresses of nodes only.

use super::{Caller, answer, events::WaitingRequests, problem};
use crate::sinks::{
    documents::View,
    next_hop::route_to,
    telemetry::{Published, Snapshot},
};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use os::{
    clock::Clock,
    hop_echo::{self, Hop, HopAnswer},
};
use policies::names::Prefix;
use std::{net::Ipv6Addr, time::Duration};
use wire::{
    control::{EchoDocument, EchoOutcome, EchoQuery, MAX_ECHO_WAIT_MS, VERSION},
    errors::Chain,
};

/// Answers `POST /v1/echo?node=NODE&hop_limit=COUNT&wait_milliseconds=TIME`.
pub(super) async fn echo(
    request: HttpRequest,
    query: web::Query<EchoQuery>,
    published: web::Data<Published>,
    clock: web::Data<Clock>,
    waiting: web::Data<WaitingRequests>,
) -> HttpResponse {
    if !Caller::can_read(&request) {
        return problem(StatusCode::FORBIDDEN, "this user may not query the daemon");
    }
    let Ok(node) = query.node.parse::<Prefix>() else {
        return problem(
            StatusCode::BAD_REQUEST,
            "the node is no prefix such as 7/16",
        );
    };
    let Some(_place) = waiting.take() else {
        let title = "too many requests wait for answers: try again later";
        return problem(StatusCode::SERVICE_UNAVAILABLE, title);
    };
    let identity = published.load().identity.clone();
    let ends = (
        identity.network.node_address(identity.prefix),
        identity.network.node_address(node),
    );
    let wait = Duration::from_millis(query.wait_milliseconds.min(MAX_ECHO_WAIT_MS));
    match hop_echo::echo(ends, query.hop_limit, wait).await {
        Ok(hop) => answer(&request, &published, &clock, |view| {
            view.echo(node, query.hop_limit, hop)
        }),
        Err(error) => {
            let title = format!("cannot send an echo request: {}", Chain(&error));
            problem(StatusCode::INTERNAL_SERVER_ERROR, &title)
        }
    }
}

impl View<'_> {
    fn echo(&self, node: Prefix, hop_limit: u8, hop: Option<Hop>) -> EchoDocument {
        let from = hop.map(|hop| hop.from);
        let from_node = from.and_then(|from| node_at(self.node, from));
        EchoDocument {
            version: VERSION,
            at: self.wall_time(self.now),
            node: node.to_string(),
            node_name: self.name(node),
            address: self.node.identity.network.node_address(node),
            hop_limit,
            tunnel: route_to(self.node, node).map(|route| route.slot.to_string()),
            outcome: match hop.map(|hop| hop.answer) {
                Some(HopAnswer::Reply) => EchoOutcome::Reply,
                Some(HopAnswer::TimeExceeded) => EchoOutcome::TimeExceeded,
                Some(HopAnswer::Unreachable) => EchoOutcome::Unreachable,
                None => EchoOutcome::Lost,
            },
            from,
            from_node: from_node.map(|node| node.to_string()),
            from_name: from_node.and_then(|node| self.name(node)),
            rtt_seconds: hop.map(|hop| hop.rtt.as_secs_f64()),
        }
    }
}

/// The node that has this address: this one, or one that babeld knows.
fn node_at(snapshot: &Snapshot, address: Ipv6Addr) -> Option<Prefix> {
    let (identity, table) = (&snapshot.identity, &snapshot.babel);
    let known = table.iter().flat_map(|table| &table.routes);
    let mut known = known.map(|route| route.node).chain([identity.prefix]);
    known.find(|node| identity.network.node_address(*node) == address)
}
