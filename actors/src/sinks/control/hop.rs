//! Answers for `warren trace` by which tunnel a node on the path sends packets on.
//!
//! The node itself is asked, over the network: its certificate proves that it answers, and nothing proves that its answer is true.

use super::{Caller, events::WaitingRequests, json, problem};
use crate::sinks::{next_hop::next_hop, telemetry::Published};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use futures_util::future::BoxFuture;
use policies::names::Prefix;
use std::sync::Arc;
use wire::{control::HopQuery, peer::NextHopDocument};

/// Asks the node that is named first by which tunnel its packets to the second one leave; `None` if it does not say.
pub type AskNextHop =
    Arc<dyn Fn(Prefix, Prefix) -> BoxFuture<'static, Option<NextHopDocument>> + Send + Sync>;

/// Answers `GET /v1/next-hop?at=NODE&to=NODE`.
pub(super) async fn hop(
    request: HttpRequest,
    query: web::Query<HopQuery>,
    published: web::Data<Published>,
    ask: web::Data<AskNextHop>,
    waiting: web::Data<WaitingRequests>,
) -> HttpResponse {
    if !Caller::can_read(&request) {
        return problem(StatusCode::FORBIDDEN, "this user may not query the daemon");
    }
    let (at, to) = (query.at.as_deref().map(str::parse), query.to.parse());
    let (Ok(at), Ok(to)) = (at.transpose(), to) else {
        let title = "a node is no prefix such as 7/16";
        return problem(StatusCode::BAD_REQUEST, title);
    };
    let Some(_place) = waiting.take() else {
        let title = "too many requests wait for answers: try again later";
        return problem(StatusCode::SERVICE_UNAVAILABLE, title);
    };
    let document = match at {
        Some(at) => ask(at, to).await,
        None => next_hop(&published.load(), to),
    };
    match document.filter(|document| document.to == to && document.is_plausible()) {
        Some(document) => HttpResponse::Ok()
            .content_type("application/json")
            .body(json(&document)),
        None => {
            let title = "that node does not say by which tunnel its packets to the other leave";
            problem(StatusCode::NOT_FOUND, title)
        }
    }
}
