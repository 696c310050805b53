//! Checks the orders of an operator, and passes them on. Only root may give orders.

use super::{Caller, answer, problem};
use crate::{
    operator::OperatorOrdered,
    sinks::telemetry::{Published, Row, Snapshot},
};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use os::clock::Clock;
use policies::{
    names::{Prefix, Role, Slot},
    observation::Phase,
};
use std::collections::BTreeSet;
use tokio::sync::mpsc;
use wire::control::{
    CLOSE_PATH, DIAL_PATH, OperatorDocument, OperatorQuery, PIN_PATH, UNPIN_PATH, VERSION,
};

/// Where orders are sent.
pub type OperatorOrders = mpsc::Sender<OperatorOrdered>;

/// Builds an order from what the query names, or says why it cannot be carried out.
type Check = fn(&Snapshot, &str) -> Result<OperatorOrdered, String>;

/// Adds the routes of all orders.
pub(super) fn add_routes(service: &mut web::ServiceConfig) {
    let routes: [(&str, Check); 4] = [
        (DIAL_PATH, check_dial),
        (CLOSE_PATH, check_close),
        (PIN_PATH, check_pin),
        (UNPIN_PATH, check_unpin),
    ];
    for (path, check) in routes {
        let handler = move |request, query, published, clock, orders| {
            order(request, query, published, clock, orders, check)
        };
        service.route(path, web::post().to(handler));
    }
}

async fn order(
    request: HttpRequest,
    query: web::Query<OperatorQuery>,
    published: web::Data<Published>,
    clock: web::Data<Clock>,
    orders: web::Data<OperatorOrders>,
    check: Check,
) -> HttpResponse {
    if request.conn_data::<Caller>() != Some(&Caller::Root) {
        return problem(StatusCode::FORBIDDEN, "only root may change the node");
    }
    let ordered = match check(&published.load(), &query.subject) {
        Ok(ordered) => ordered,
        Err(reason) => return problem(StatusCode::UNPROCESSABLE_ENTITY, &reason),
    };
    if orders.send(ordered).await.is_err() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
    }
    answer(&request, &published, &clock, |view| OperatorDocument {
        version: VERSION,
        order: ordered.label().to_owned(),
        tunnel: match ordered {
            OperatorOrdered::Close(slot, _) => Some(slot.to_string()),
            OperatorOrdered::Dial(_) | OperatorOrdered::Pin(_) | OperatorOrdered::Unpin(_) => None,
        },
        node: ordered.node().to_string(),
        node_name: view.name(ordered.node()),
    })
}

/// What an order names.
enum Named<'a> {
    Tunnel(&'a Row),
    Node(Prefix),
}

fn named<'a>(snapshot: &'a Snapshot, subject: &str) -> Result<Named<'a>, String> {
    if let Ok(slot) = subject.parse::<Slot>() {
        let row = snapshot.rows.live().find(|row| row.tunnel.slot == slot);
        return row
            .map(Named::Tunnel)
            .ok_or_else(|| format!("no tunnel is on {slot}; warren tunnels lists the tunnels"));
    }
    match subject.parse::<Prefix>() {
        Ok(node) if node == snapshot.identity.prefix => Err(format!("{node} is this node itself")),
        Ok(node) => Ok(Named::Node(node)),
        Err(_) => Err("expected a tunnel such as wrn0, or a prefix such as 7/16".to_owned()),
    }
}

fn named_node(snapshot: &Snapshot, subject: &str) -> Result<Prefix, String> {
    Ok(match named(snapshot, subject)? {
        Named::Tunnel(row) => row.tunnel.peer,
        Named::Node(node) => node,
    })
}

fn check_dial(snapshot: &Snapshot, subject: &str) -> Result<OperatorOrdered, String> {
    check_mode(snapshot)?;
    let node = named_node(snapshot, subject)?;
    if let Some(row) = snapshot.rows.live().find(|row| row.tunnel.peer == node) {
        return Err(format!("a tunnel to {node} exists: {}", row.tunnel.slot));
    }
    let mut candidates = snapshot.peers.candidates.iter();
    if !candidates.any(|candidate| candidate.peer == node) {
        return Err(format!(
            "no endpoint of {node} is known that can be dialled from here; warren peers lists them"
        ));
    }
    Ok(OperatorOrdered::Dial(node))
}

fn check_close(snapshot: &Snapshot, subject: &str) -> Result<OperatorOrdered, String> {
    check_mode(snapshot)?;
    let Named::Tunnel(row) = named(snapshot, subject)? else {
        return Err("expected a tunnel such as wrn0; warren tunnels lists the tunnels".to_owned());
    };
    let (slot, peer) = (row.tunnel.slot, row.tunnel.peer);
    if slot.role() == Role::Accepted {
        return Err(format!(
            "{peer} dialled {slot}, so it decides: close the tunnel there"
        ));
    }
    if snapshot.pins.contains(&peer) {
        return Err(format!("{peer} is pinned: warren unpin {peer} first"));
    }
    match row.tunnel.phase {
        Phase::Draining { .. } | Phase::Closing => Err(format!("{slot} closes already")),
        Phase::Connecting | Phase::Up => Ok(OperatorOrdered::Close(slot, peer)),
    }
}

fn check_pin(snapshot: &Snapshot, subject: &str) -> Result<OperatorOrdered, String> {
    let node = named_node(snapshot, subject)?;
    is_known(snapshot, node)
        .then_some(OperatorOrdered::Pin(node))
        .ok_or_else(|| format!("no node {node} is known; warren hosts --all lists the known nodes"))
}

fn check_unpin(snapshot: &Snapshot, subject: &str) -> Result<OperatorOrdered, String> {
    let node = named_node(snapshot, subject)?;
    if snapshot.pins.contains(&node) {
        Ok(OperatorOrdered::Unpin(node))
    } else {
        Err(format!(
            "no operator has pinned {node}; warren status lists the pinned nodes"
        ))
    }
}

/// Dials and closes of an operator are orders of the policy, which a dry run only logs.
fn check_mode(snapshot: &Snapshot) -> Result<(), String> {
    if snapshot.identity.dry_run {
        return Err("dry run: orders are logged and not carried out".to_owned());
    }
    Ok(())
}

fn is_known(snapshot: &Snapshot, node: Prefix) -> bool {
    let routes = snapshot.babel.iter().flat_map(|table| &table.routes);
    let mut nodes: BTreeSet<_> = routes.map(|route| route.node).collect();
    nodes.extend(snapshot.rows.live().map(|row| row.tunnel.peer));
    nodes.extend(snapshot.peers.candidates.iter().map(|peer| peer.peer));
    nodes.contains(&node)
}
