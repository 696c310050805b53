//! Opens paths to nodes behind NATs that ask for it, and reports to other nodes from where their datagrams come.
//!
//! A request names no address: the datagrams of this node go only to an address that one of its own neighbours has seen, and few go there.

use super::{
    State,
    call_times::CallTimes,
    handlers::{check_caller, problem, read_call},
};
use crate::sources::hole_punching::exchange::Exchange;
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use os::server_port::ServerPort;
use policies::{
    hole_punching::OPEN_SPAN,
    names::{Endpoint, Transport},
};
use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};
use wire::peer::{
    HolePunchRequest, ObservationDocument, ObservationRequest, ObserversDocument, Seen, Token,
    VERSION,
};

/// Maximum time for which an observer waits for datagrams.
const OBSERVATION_SPAN: Duration = Duration::from_millis(1500);
/// Minimum interval between two requests of one node to open a path.
const PUNCH_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of paths that are opened within that interval.
const MAX_PUNCHES: usize = 8;
/// Minimum interval between two requests of one node to an observer. A node asks on behalf of others, too.
const OBSERVATION_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of observations within that interval.
const MAX_OBSERVATIONS: usize = 32;

/// What the calls of hole punching need.
#[derive(Clone)]
pub(super) struct HolePunchState {
    pub(super) exchange: Exchange,
    punch_times: CallTimes,
    observation_times: CallTimes,
}

impl HolePunchState {
    pub(super) fn new(exchange: Exchange) -> Self {
        Self {
            exchange,
            punch_times: CallTimes::new(PUNCH_INTERVAL, MAX_PUNCHES),
            observation_times: CallTimes::new(OBSERVATION_INTERVAL, MAX_OBSERVATIONS),
        }
    }
}

/// Answers with the nodes that can see this node's datagrams.
pub(super) async fn get_observers(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    match check_caller(&request, &state) {
        Ok(_) => HttpResponse::Ok().json(ObserversDocument {
            version: VERSION,
            observers: state.punches.observers(),
        }),
        Err(why) => problem(StatusCode::FORBIDDEN, why),
    }
}

/// Opens a path to the caller, and answers with both ends of it.
pub(super) async fn punch_hole(
    request: HttpRequest,
    body: web::Bytes,
    state: web::Data<State>,
) -> HttpResponse {
    let expected = "the body is no request to open a path";
    let read = read_call::<HolePunchRequest>(&request, &body, &state, expected);
    let (caller, wanted) = match read {
        Ok(call) => call,
        Err((status, why)) => return problem(status, why),
    };
    let HolePunchState {
        exchange,
        punch_times,
        ..
    } = &state.hole_punching;
    if let Some(why) = state
        .punches
        .reason_to_decline(exchange.settings.me, caller)
    {
        return problem(StatusCode::CONFLICT, why);
    }
    let observers = state.punches.observers();
    let mut observers = observers.iter();
    let Some(observer) = observers.find(|known| known.node == wanted.observer) else {
        let why = "the observer is no neighbour that this node has dialled by UDP";
        return problem(StatusCode::CONFLICT, why);
    };
    let now = state.clock.now();
    if !punch_times.allow(caller, now) {
        let why = "a path was opened for this or for many nodes a moment ago; ask again in 10 s";
        return problem(StatusCode::TOO_MANY_REQUESTS, why);
    }
    let from = (caller, wanted.token);
    let until = now + OPEN_SPAN;
    let opened = exchange.open_path_for(from, observer, &state.punches, until);
    match opened.await {
        Ok(document) => HttpResponse::Ok().json(document),
        Err(why) => problem(StatusCode::GATEWAY_TIMEOUT, why),
    }
}

/// Waits for datagrams at the port of this node's server, and answers with their sources.
pub(super) async fn observe(
    request: HttpRequest,
    body: web::Bytes,
    state: web::Data<State>,
) -> HttpResponse {
    let expected = "the body is no list of tokens";
    let read = read_call::<ObservationRequest>(&request, &body, &state, expected);
    let (caller, wanted) = match read {
        Ok(call) => call,
        Err((status, why)) => return problem(status, why),
    };
    let HolePunchState {
        exchange,
        observation_times,
        ..
    } = &state.hole_punching;
    if !observation_times.allow(caller, state.clock.now()) {
        let why = "datagrams were observed for this or for many nodes a moment ago";
        return problem(StatusCode::TOO_MANY_REQUESTS, why);
    }
    let Some(port) = exchange.settings.server_port else {
        return problem(StatusCode::NOT_FOUND, "this node has no UDP server");
    };
    match observe_tokens(port, exchange.settings.openvpn_uid, &wanted.tokens).await {
        Ok(seen) => HttpResponse::Ok().json(ObservationDocument {
            version: VERSION,
            seen,
        }),
        Err(error) => {
            tracing::warn!(%error, "cannot open a raw socket to observe datagrams, which needs CAP_NET_RAW");
            problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "this node cannot see its server's datagrams",
            )
        }
    }
}

/// Waits until a datagram with each token has arrived, or the time is over.
async fn observe_tokens(port: u16, uid: u32, tokens: &[Token]) -> io::Result<Vec<Seen>> {
    let server = ServerPort::open(port, uid)?;
    let mut seen = BTreeMap::new();
    let watch = async {
        while seen.len() < tokens.len() {
            let (from, datagram) = server.receive().await?;
            let token = Token::of_datagram(&datagram).filter(|token| tokens.contains(token));
            if let Some(token) = token {
                let source = Endpoint {
                    address: SocketAddr::V4(from),
                    transport: Transport::Udp,
                };
                seen.entry(token).or_insert(source);
            }
        }
        io::Result::Ok(())
    };
    if let Ok(ended) = tokio::time::timeout(OBSERVATION_SPAN, watch).await {
        ended?;
    }
    let seen = seen.into_iter();
    Ok(seen.map(|(token, source)| Seen { token, source }).collect())
}
