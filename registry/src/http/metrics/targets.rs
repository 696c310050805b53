//! Lists all nodes for Prometheus' HTTP service discovery (`http_sd_configs`).

use super::Source;
use crate::service::ScrapeTarget;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use std::net::SocketAddrV6;

/// The port of a node's metrics if the query names no other.
const DEFAULT_PORT: u16 = 9197;

/// The query of a request.
#[derive(Deserialize)]
pub(super) struct Query {
    /// The port at which the nodes serve their metrics.
    port: Option<u16>,
}

/// One node, as Prometheus expects it.
#[derive(Serialize)]
struct Group {
    targets: [String; 1],
    labels: Labels,
}

/// Labels that relabelling can use, and that Prometheus removes after it.
#[derive(Serialize)]
struct Labels {
    #[serde(rename = "__meta_warren_prefix")]
    prefix: String,
    #[serde(rename = "__meta_warren_name")]
    name: String,
}

/// Answers requests for `/targets`: each node with a live certificate, by its address in the network.
pub(super) async fn list(source: web::Data<Source>, query: web::Query<Query>) -> HttpResponse {
    let port = query.port.unwrap_or(DEFAULT_PORT);
    let targets = source.queue.ask(|service| service.scrape_targets()).await;
    let Ok(targets) = targets else {
        return HttpResponse::InternalServerError().body("the registry cannot read its state\n");
    };
    let group = |target: ScrapeTarget| Group {
        targets: [SocketAddrV6::new(target.address, port, 0, 0).to_string()],
        labels: Labels {
            prefix: target.prefix.to_string(),
            name: target.name.unwrap_or_default(),
        },
    };
    let groups: Vec<_> = targets.into_iter().map(group).collect();
    HttpResponse::Ok().json(groups)
}
