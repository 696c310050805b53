//! The handlers of the peer API. Each reads a published snapshot, or forwards what was posted.

use super::*;
use membership::documents::is_private;
use policies::names::Endpoint;
use wire::peer::NextHopQuery;

pub(super) async fn get_node(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    answer(&request, &state, || (**state.node_document.load()).clone())
}

pub(super) async fn get_network(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    answer_document(&request, &state, DocumentKind::Network)
}

pub(super) async fn get_revocations(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    answer_document(&request, &state, DocumentKind::Revocations)
}

/// Answers with the current signed document of this kind.
fn answer_document(request: &HttpRequest, state: &State, kind: DocumentKind) -> HttpResponse {
    match state.documents.load().signed_document(kind) {
        Some(document) => answer(request, state, || (**document).clone()),
        None => problem(
            StatusCode::NOT_FOUND,
            "this node has no document of this kind yet",
        ),
    }
}

/// Forwards a signed document for verification. The answer does not reveal whether it will be accepted.
pub(super) async fn post_document(
    request: HttpRequest,
    body: web::Bytes,
    state: web::Data<State>,
) -> HttpResponse {
    let expected = "the body is not a signed document";
    let (from, document) = match read_call(&request, &body, &state, expected) {
        Ok(call) => call,
        Err((status, why)) => return problem(status, why),
    };
    match state.offered.try_send(DocumentOffered { from, document }) {
        Ok(()) => HttpResponse::Accepted().finish(),
        Err(_) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many documents wait for verification; post it again later",
        ),
    }
}

/// The query of a request for peers.
#[derive(Deserialize)]
pub(super) struct PeersQuery {
    /// Maximum number of peers in the answer.
    count: Option<usize>,
}

pub(super) async fn get_peers(
    request: HttpRequest,
    query: web::Query<PeersQuery>,
    state: web::Data<State>,
) -> HttpResponse {
    answer(&request, &state, || {
        let mut candidates: Vec<_> = state.peers.load().iter().cloned().collect();
        state.random.shuffle(&mut candidates);
        candidates.truncate(query.count.unwrap_or(MAX_NODES).min(MAX_NODES));
        let to_node = |candidate: policies::observation::Candidate| Node {
            prefix: candidate.peer,
            endpoints: shareable_endpoints(&candidate),
        };
        PeersDocument {
            version: VERSION,
            nodes: candidates
                .into_iter()
                .map(to_node)
                .filter(|node| !node.endpoints.is_empty())
                .collect(),
        }
    })
}

/// Returns the endpoints of a peer that mean the same host elsewhere: those without a private address that was learnt on a LAN.
fn shareable_endpoints(candidate: &policies::observation::Candidate) -> Vec<Endpoint> {
    let endpoints = candidate.endpoints.iter().copied().enumerate();
    let shared =
        endpoints.filter(|(at, endpoint)| *at >= candidate.on_lan || !is_private(*endpoint));
    shared.map(|(_, endpoint)| endpoint).collect()
}

/// Answers with our route view. The regret of a tunnel is sent only to its peer.
pub(super) async fn get_route_view(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let caller = match check_caller(&request, &state) {
        Ok(caller) => caller,
        Err(why) => return problem(StatusCode::FORBIDDEN, why),
    };
    let route_view = state.route_view.load();
    let distances = route_view.distances.iter().map(|(node, metric)| Distance {
        node: *node,
        metric: *metric,
    });
    HttpResponse::Ok().json(RouteViewDocument {
        version: VERSION,
        prefix: state.node_document.load().prefix,
        accepts_tunnels: route_view.accepts_tunnels,
        accepted: Some(route_view.accepted),
        regret: route_view.regrets.get(&caller.prefix).copied().flatten(),
        distances: distances.collect(),
    })
}

/// Answers by which tunnel packets to another node leave this one.
pub(super) async fn get_next_hop(
    request: HttpRequest,
    query: web::Query<NextHopQuery>,
    state: web::Data<State>,
) -> HttpResponse {
    if let Err(why) = check_caller(&request, &state) {
        return problem(StatusCode::FORBIDDEN, why);
    }
    match (state.find_next_hop)(query.to) {
        Some(document) => HttpResponse::Ok().json(document),
        None => problem(StatusCode::NOT_FOUND, "this node has no route to that one"),
    }
}

pub(super) async fn acquire_lock(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    match check_caller(&request, &state) {
        Ok(caller) if state.restart_lock.acquire(caller.prefix) => {
            HttpResponse::NoContent().finish()
        }
        Ok(_) => problem(
            StatusCode::CONFLICT,
            "the restart lock is taken: another neighbour or this node restarts tunnels",
        ),
        Err(why) => problem(StatusCode::FORBIDDEN, why),
    }
}

pub(super) async fn release_lock(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    match check_caller(&request, &state) {
        Ok(caller) => {
            state.restart_lock.release(caller.prefix);
            HttpResponse::NoContent().finish()
        }
        Err(why) => problem(StatusCode::FORBIDDEN, why),
    }
}

/// Answers a permitted caller with a document.
fn answer<T: Serialize>(
    request: &HttpRequest,
    state: &State,
    document: impl FnOnce() -> T,
) -> HttpResponse {
    match check_caller(request, state) {
        Ok(_) => HttpResponse::Ok().json(document()),
        Err(why) => problem(StatusCode::FORBIDDEN, why),
    }
}

/// Returns the node that calls, and the body of its call.
///
/// # Errors
/// The status and the reason for the answer: the caller is no member, or the body is not as `expected`.
pub(super) fn read_call<T: DeserializeOwned>(
    request: &HttpRequest,
    body: &[u8],
    state: &State,
    expected: &'static str,
) -> Result<(Prefix, T), (StatusCode, &'static str)> {
    let caller = check_caller(request, state).map_err(|why| (StatusCode::FORBIDDEN, why))?;
    let body = serde_json::from_slice(body).map_err(|_| (StatusCode::BAD_REQUEST, expected))?;
    Ok((caller.prefix, body))
}

/// Returns the identity of the caller, whose name is learnt, or the reason why the request is rejected. This is checked at each request, since a
/// certificate may be revoked while a connection is open.
pub(super) fn check_caller(request: &HttpRequest, state: &State) -> Result<Caller, &'static str> {
    let Some(caller) = request.conn_data::<Caller>() else {
        return Err("the certificate does not contain the address of the connection");
    };
    let documents = state.documents.load();
    let serials = std::iter::once(&caller.serial).chain(&caller.cas);
    if serials
        .into_iter()
        .any(|serial| documents.is_serial_revoked(serial))
        || documents.is_key_blocked(&caller.key)
    {
        return Err("the certificate, its CA or its key is revoked");
    }
    let (prefix, name) = (caller.prefix, caller.name.clone());
    state.names.learn(prefix, name, caller.issued_s);
    Ok(caller.clone())
}

/// Builds an error answer in the format of RFC 9457.
pub(super) fn problem(status: StatusCode, title: &str) -> HttpResponse {
    #[derive(Serialize)]
    struct Problem<'a> {
        status: u16,
        title: &'a str,
    }
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .json(Problem {
            status: status.as_u16(),
            title,
        })
}
