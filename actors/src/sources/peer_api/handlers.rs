//! The handlers of the peer API; each reads a published snapshot, or passes on what was posted.

use super::*;

pub(super) async fn node(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    answer(&request, &state, || (**state.node.load()).clone())
}

pub(super) async fn network(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    document(&request, &state, DocumentKind::Network)
}

pub(super) async fn revocations(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    document(&request, &state, DocumentKind::Revocations)
}

pub(super) fn document(request: &HttpRequest, state: &State, kind: DocumentKind) -> HttpResponse {
    match state.documents.load().signed(kind) {
        Some(document) => answer(request, state, || (**document).clone()),
        None => problem(StatusCode::NOT_FOUND, "this node has no such document"),
    }
}

/// Hands a signed document on for verification; the answer does not reveal whether it is accepted.
pub(super) async fn offer(
    request: HttpRequest,
    body: web::Bytes,
    state: web::Data<State>,
) -> HttpResponse {
    let from = match caller(&request, &state) {
        Ok(caller) => caller.prefix,
        Err(why) => return problem(StatusCode::FORBIDDEN, why),
    };
    let Ok(document) = serde_json::from_slice(&body) else {
        return problem(StatusCode::BAD_REQUEST, "no signed document");
    };
    match state.offered.try_send(DocumentOffered { from, document }) {
        Ok(()) => HttpResponse::Accepted().finish(),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "too many documents"),
    }
}

#[derive(Deserialize)]
pub(super) struct Count {
    count: Option<usize>,
}

pub(super) async fn peers(
    request: HttpRequest,
    count: web::Query<Count>,
    state: web::Data<State>,
) -> HttpResponse {
    answer(&request, &state, || {
        let mut candidates: Vec<_> = state.peers.load().iter().cloned().collect();
        state.random.shuffle(&mut candidates);
        candidates.truncate(count.count.unwrap_or(MAX_NODES).min(MAX_NODES));
        let node = |candidate: policies::observation::Candidate| Node {
            prefix: candidate.peer,
            endpoints: candidate.endpoints,
        };
        PeersDocument {
            version: VERSION,
            nodes: candidates.into_iter().map(node).collect(),
        }
    })
}

/// Answers with our route view; the regret of a tunnel is shown to its peer only.
pub(super) async fn view(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let caller = match caller(&request, &state) {
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
        prefix: state.node.load().prefix,
        accepts_tunnels: route_view.accepts_tunnels,
        accepted: Some(route_view.accepted),
        regret: route_view.regrets.get(&caller.prefix).copied().flatten(),
        distances: distances.collect(),
    })
}

pub(super) async fn acquire_lock(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    match caller(&request, &state) {
        Ok(caller) if state.restart_lock.acquire(caller.prefix) => {
            HttpResponse::NoContent().finish()
        }
        Ok(_) => problem(StatusCode::CONFLICT, "tunnels here are coming or going"),
        Err(why) => problem(StatusCode::FORBIDDEN, why),
    }
}

pub(super) async fn release_lock(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    match caller(&request, &state) {
        Ok(caller) => {
            state.restart_lock.release(caller.prefix);
            HttpResponse::NoContent().finish()
        }
        Err(why) => problem(StatusCode::FORBIDDEN, why),
    }
}

pub(super) fn answer<T: Serialize>(
    request: &HttpRequest,
    state: &State,
    document: impl FnOnce() -> T,
) -> HttpResponse {
    match caller(request, state) {
        Ok(_) => HttpResponse::Ok().json(document()),
        Err(why) => problem(StatusCode::FORBIDDEN, why),
    }
}

/// Who calls, or why it is refused; asked at each request, since a certificate may be revoked while a connection is open.
pub(super) fn caller(request: &HttpRequest, state: &State) -> Result<Caller, &'static str> {
    let Some(caller) = request.conn_data::<Caller>() else {
        return Err("the certificate does not bear the address you come from");
    };
    let documents = state.documents.load();
    let serials = std::iter::once(&caller.serial).chain(&caller.cas);
    if serials
        .into_iter()
        .any(|serial| documents.is_ca_revoked(serial))
        || documents.is_key_blocked(&caller.key)
    {
        return Err("the certificate is revoked");
    }
    Ok(caller.clone())
}

/// An error as RFC 9457 wants it.
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
