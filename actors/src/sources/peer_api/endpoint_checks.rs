//! Tries the endpoints of other nodes that ask for it.
//!
//! Only public addresses of other hosts are tried, and no ports at which other services usually listen; a few packets each, and rarely for
//! each caller: no more than a node causes that announces them.

use super::{State, handlers::problem, handlers::read_call};
use crate::sources::candidate_prober::{CandidateProberSettings, endpoint_probe::Prober};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use futures_util::future::join_all;
use policies::{endpoint_checks::CheckOutcome, names::Endpoint};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wire::{
    endpoints::{dialable, is_port_of_nodes},
    overlay::Network,
    peer::{EndpointChecksDocument, EndpointChecksRequest, MAX_CHECKED_ENDPOINTS, VERSION},
};

/// Minimum interval between two calls of one node.
pub(super) const CALL_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of calls within that interval.
pub(super) const MAX_CALLS: usize = 64;

/// Answers with the outcome of one check for each endpoint.
pub(super) async fn check_endpoints(
    request: HttpRequest,
    body: web::Bytes,
    state: web::Data<State>,
) -> HttpResponse {
    let expected = "the body is not a list of endpoints";
    let read = read_call::<EndpointChecksRequest>(&request, &body, &state, expected);
    let (caller, wanted) = match read {
        Ok(call) => call,
        Err((status, why)) => return problem(status, why),
    };
    if !state.check_times.allow(caller, state.clock.now()) {
        let why =
            "endpoints were checked for this or for many nodes a moment ago; ask again in 10 s";
        return problem(StatusCode::TOO_MANY_REQUESTS, why);
    }
    let documents = state.documents.load();
    let Some(document) = documents.network() else {
        return problem(
            StatusCode::NOT_FOUND,
            "this node has no network document yet",
        );
    };
    let settings = CandidateProberSettings::from_network(caller, document);
    let prober = Prober {
        keys: &settings.keys,
        range: settings.range,
        clock: &state.clock,
        random: &state.random,
    };
    let endpoints = wanted.endpoints.into_iter().take(MAX_CHECKED_ENDPOINTS);
    let node = state.node_document.load_full();
    let own: Vec<_> = node.endpoints.iter().map(|own| own.address.ip()).collect();
    let range = document.range();
    let checks = endpoints.map(|endpoint| probe_allowed(&prober, range, &own, endpoint));
    let outcomes = join_all(checks).await;
    HttpResponse::Ok().json(EndpointChecksDocument {
        version: VERSION,
        outcomes: outcomes.into_iter().map(Into::into).collect(),
    })
}

async fn probe_allowed(
    prober: &Prober<'_>,
    network: Option<Network>,
    own: &[IpAddr],
    endpoint: Endpoint,
) -> CheckOutcome {
    let is_public = network.is_some_and(|network| dialable(endpoint, network, false).is_ok());
    if is_public && is_allowed(endpoint.address, own) {
        prober.probe(endpoint).await
    } else {
        CheckOutcome::NotTried
    }
}

/// Returns whether another node may have this address tried; `own` are the addresses of this node.
fn is_allowed(address: SocketAddr, own: &[IpAddr]) -> bool {
    is_port_of_nodes(address.port()) && !own.contains(&address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_this_node_nor_ports_of_other_services_are_tried() {
        let own = ["45.67.0.1".parse().unwrap()];
        let addresses = [
            "45.67.0.2:1194",
            "45.67.0.2:443",
            "45.67.0.2:22",
            "45.67.0.1:1194",
        ];
        let seen = addresses.map(|address| is_allowed(address.parse().unwrap(), &own));
        assert_eq!(seen, [true, true, false, false]);
    }
}
