//! Sends messages to telemetry, and reads its snapshot over the control socket.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of it is tests, helpers included"
)]

mod exporting_node;
mod snapshot;

use actix_web::dev::Server;
use actors::{
    messages::ActorRestarted,
    operator::OperatorOrdered,
    sinks::{
        control::{self, ControlError},
        telemetry::{self, Published},
    },
};
use exporting_node::*;
use membership::node_names::NodeNames;
use os::clock::Clock;
use snapshot::identity;
use std::{path::Path, sync::Arc};
use tokio::{net::UnixStream, sync::mpsc};
use wire::control::{
    ChangedNodes, DECISIONS_PATH, DecisionsDocument, EVENTS_PATH, Event, EventsDocument,
    PEERS_PATH, PeersDocument, ROUTES_PATH, RoutesDocument, STATUS_PATH, StatusDocument,
    TUNNELS_PATH, TunnelsDocument,
};

/// Fetches a document from the control socket.
async fn fetch_document<D: for<'a> serde::Deserialize<'a>>(socket: &Path, path: &str) -> D {
    let (status, body) = get(UnixStream::connect(socket).await.unwrap(), path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Builds a server for all users at this path; returns what receives the orders of an operator, too.
fn serve(
    path: &Path,
    clock: &Clock,
    published: &Published,
) -> Result<(Server, mpsc::Receiver<OperatorOrdered>), ControlError> {
    let access = control::Access {
        path: path.to_owned(),
        group: None,
        rejected_uids: vec![],
    };
    let (requests, _) = mpsc::channel(1);
    let (orders, ordered) = mpsc::channel(1);
    let ask: control::AskNextHop = Arc::new(|_, _| Box::pin(std::future::ready(None)));
    let senders = (requests, orders, ask);
    Ok((
        control::serve(access, clock.clone(), published.clone(), senders)?,
        ordered,
    ))
}

#[actix::test]
async fn the_control_socket_serves_the_values_that_were_sent() {
    let node = Node::start().await;
    let folder = Folder::new("control");
    let path = folder.0.join("control.sock");
    let serve = || serve(&path, &node.clock, &node.published).map(|(server, _)| server);
    actix_rt::spawn(serve().unwrap());

    let status: StatusDocument = fetch_document(&path, STATUS_PATH).await;
    assert_eq!((status.prefix.as_str(), status.ready), ("7/16", true));
    assert_eq!(status.address.to_string(), "fd12:3456:789a:7::1");
    assert!(status.dry_run);
    assert_eq!(
        (status.tunnels_up.dialled, status.tunnels_up.accepted),
        (1, 1)
    );
    assert_eq!(
        (
            status.processes.len(),
            status.leases.len(),
            status.actor_restarts
        ),
        (2, 1, 1)
    );
    assert_eq!(
        (
            status.exit_gateway.as_deref(),
            status.nodes_known,
            status.routes_installed
        ),
        (Some("12/16"), 3, 3)
    );
    let tunnels: TunnelsDocument = fetch_document(&path, TUNNELS_PATH).await;
    let first = &tunnels.tunnels[0];
    assert_eq!(
        (first.slot.as_str(), first.peer.as_str(), first.rx_bytes),
        ("wrn0", "9/16", 100_000)
    );
    assert_eq!(
        (first.nodes_served, first.loss_ratio, first.rtt_seconds),
        (2, Some(0.1), Some(0.01))
    );
    assert_eq!(first.verdict.as_deref(), Some("kept: carries a fair share"));
    let peers: PeersDocument = fetch_document(&path, PEERS_PATH).await;
    let slots: Vec<_> = peers
        .peers
        .iter()
        .map(|peer| peer.slot.as_deref())
        .collect();
    assert_eq!(slots, [Some("wrn0"), None, None]);
    let routes: RoutesDocument = fetch_document(&path, ROUTES_PATH).await;
    assert_eq!(
        (
            routes.babeld_answers,
            routes.routes.len(),
            routes.neighbours.len()
        ),
        (true, 4, 2)
    );
    let exits: Vec<_> = routes
        .exit_routes
        .iter()
        .map(|exit| (exit.gateway.as_str(), exit.installed))
        .collect();
    assert_eq!(exits, [("11/16", false), ("12/16", true)]);
    let decisions: DecisionsDocument = fetch_document(&path, DECISIONS_PATH).await;
    assert!(decisions.dry_run);
    let summary = |entry: &wire::control::DecisionEntry| {
        (entry.number, entry.order.clone(), entry.peer.clone())
    };
    let expected = [
        (1, "closed", "8/16"),
        (2, "reconnected", "9/16"),
        (3, "open", "9/16"),
        (4, "drain", "9/16"),
        (5, "close", "9/16"),
    ];
    let expected =
        expected.map(|(number, order, peer)| (number, order.to_owned(), Some(peer.to_owned())));
    assert_eq!(
        decisions.decisions.iter().map(summary).collect::<Vec<_>>(),
        expected
    );

    assert_eq!(
        get(UnixStream::connect(&path).await.unwrap(), "/v1/else")
            .await
            .0,
        404
    );
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    let taken = serve().err().unwrap();
    assert!(
        taken.to_string().contains("another daemon answers"),
        "{taken}"
    );
}

#[actix::test]
async fn events_are_answered_at_once_and_a_reader_can_wait_for_the_next_one() {
    let node = Node::start().await;
    let folder = Folder::new("events");
    let path = folder.0.join("control.sock");
    let (server, _) = serve(&path, &node.clock, &node.published).unwrap();
    actix_rt::spawn(server);

    let past: EventsDocument = fetch_document(&path, EVENTS_PATH).await;
    let kinds: Vec<_> = past.events.iter().map(|entry| &entry.event).collect();
    assert!(matches!(kinds[0], Event::DaemonStarted { .. }), "{kinds:?}");
    let reached = ChangedNodes {
        count: 3,
        reachable: 3,
    };
    for expected in [Event::TunnelUp, Event::NodesReached(reached)] {
        assert!(kinds.contains(&&expected), "{kinds:?}");
    }
    let newest = past.events.last().unwrap().number;
    assert_eq!(newest, past.newest);

    let wait = format!("{EVENTS_PATH}?after={newest}&wait_seconds=30");
    let (next, ()) = tokio::join!(fetch_document::<EventsDocument>(&path, &wait), async {
        node.telemetry.do_send(ActorRestarted { actor: "policy" });
    });
    let next: Vec<_> = next.events.iter().map(|entry| &entry.event).collect();
    let actor = "policy".to_owned();
    assert!(next.contains(&&Event::ActorRestarted { actor }), "{next:?}");

    let other_run = format!("{EVENTS_PATH}?after=1000000&wait_seconds=30");
    let all: EventsDocument = fetch_document(&path, &other_run).await;
    assert!(all.events.len() > past.events.len());
}

#[actix::test]
async fn orders_of_root_are_checked_and_passed_on() {
    let node = Node::start().await;
    let folder = Folder::new("orders");
    let path = folder.0.join("control.sock");
    let (server, mut ordered) = serve(&path, &node.clock, &node.published).unwrap();
    actix_rt::spawn(server);
    let give = async |order: &str| {
        let stream = UnixStream::connect(&path).await.unwrap();
        ask(stream, "POST", order).await
    };
    if !nix::unistd::geteuid().is_root() {
        assert_eq!(give("/v1/pin?subject=9/16").await.0, 403);
        return;
    }
    for (order, reason) in [
        ("/v1/pin?subject=99/16", "no node 99/16 is known"),
        ("/v1/pin?subject=7/16", "this node itself"),
        ("/v1/pin?subject=wrn9", "no tunnel is on wrn9"),
        ("/v1/pin?subject=printer", "expected a tunnel"),
        ("/v1/unpin?subject=9/16", "no operator has pinned 9/16"),
        // The daemon of these tests only logs what the policy orders.
        ("/v1/dial?subject=9/16", "dry run"),
        ("/v1/close?subject=wrn0", "dry run"),
    ] {
        let (status, body) = give(order).await;
        assert_eq!(status, 422, "{order}: {body}");
        assert!(body.contains(reason), "{order}: {body}");
    }
    assert_eq!(give("/v1/pin").await.0, 400);
    let (status, body) = give("/v1/pin?subject=wrn0").await;
    assert_eq!(status, 200, "{body}");
    let peer = "9/16".parse().unwrap();
    assert_eq!(ordered.recv().await, Some(OperatorOrdered::Pin(peer)));
}

#[actix::test]
async fn a_socket_without_a_server_is_replaced_and_another_file_is_not() {
    let clock = Clock::boottime();
    let published = telemetry::publish(identity(clock.now()), &NodeNames::default(), &clock);
    let folder = Folder::new("dead");
    let serve = |name: &str| serve(&folder.0.join(name), &clock, &published);
    drop(std::os::unix::net::UnixListener::bind(folder.0.join("dead.sock")).unwrap());
    assert!(serve("dead.sock").is_ok());
    std::fs::write(folder.0.join("file"), "precious").unwrap();
    assert!(
        serve("file")
            .err()
            .unwrap()
            .to_string()
            .contains("is not a socket")
    );
    assert_eq!(
        std::fs::read_to_string(folder.0.join("file")).unwrap(),
        "precious"
    );
}
