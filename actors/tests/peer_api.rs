//! Tests the peer API over real TLS, with nodes of the network and with strangers.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

mod ca;
mod learnt_names;
mod netns;
mod peer_api_server;

use peer_api_server::*;

use actix::{Actor, Context, Handler};
use actors::{
    messages::{DocumentOffered, PeerSource, PeersReported, RoutesRead},
    restart_lock::{self, SharedRestartLock},
    sources::{
        peer_api::{PeerApi, PeerApiDeps},
        peer_discovery::{PeerDiscovery, PeerDiscoveryDeps},
    },
    store::{SharedCandidates, SharedRouteView, Store},
};
use arc_swap::ArcSwap;
use ca::{Ca, network, prefix};
use membership::{
    documents::{DocumentStore, UpdateOutcome},
    peer_api::{PeerApiClient, PeerApiError, PeerApiSettings, PeerReport, SharedNodeDocument},
};
use netns::Namespace;
use os::clock::Clock;
use policies::{
    names::{Endpoint, Slot},
    observation::{BabelTable, Candidate, Route},
    route_view::RouteView,
    units::Uptime,
};
use std::{
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use wire::{
    peer::{NextHopDocument, NodeDocument, PeersDocument, VERSION},
    registry::DocumentKind,
};

const PORT: u16 = 326;
const SERVER: u32 = 7;
const CLIENT: u32 = 8;
const OTHER: u32 = 9;

#[test]
fn a_node_gets_the_endpoints_of_another_node() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let endpoints = fetch_from_server(&client(&ca, CLIENT))
            .await
            .unwrap()
            .endpoints;
        assert_eq!(endpoints, [endpoint("udp:45.67.0.1:1194")]);
    });
}

#[test]
fn a_node_gets_the_route_view_of_another_node_and_the_regret_of_their_tunnel() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let client = client(&ca, CLIENT);
        fetch_from_server(&client).await.unwrap();
        let view = client.fetch_route_view(prefix(SERVER)).await.unwrap();
        assert_eq!(
            (view.peer, view.accepts_tunnels, view.accepted, view.regret),
            (prefix(SERVER), true, Some(3), Some(40))
        );
        assert_eq!(view.distances, [(prefix(20), 96), (prefix(21), 300)]);
    });
}

#[test]
fn a_node_says_by_which_tunnel_its_packets_to_another_leave_and_where_it_has_no_route() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let client = client(&ca, CLIENT);
        fetch_from_server(&client).await.unwrap();
        let hop = client.fetch_next_hop(prefix(SERVER), prefix(20)).await;
        assert_eq!(hop.unwrap(), next_hop());
        let hop = client.fetch_next_hop(prefix(SERVER), prefix(21)).await;
        assert!(matches!(hop, Err(PeerApiError::Http { .. })), "{hop:?}");
    });
}

#[test]
fn a_client_without_a_certificate_of_the_network_gets_no_answer() {
    check(|| async {
        let (ca, other) = (Ca::new(), Ca::new());
        serve(&ca, SERVER, SERVER);
        fetch_from_server(&client(&ca, CLIENT)).await.unwrap();
        let foreign = fetch_from_server(&client(&other, CLIENT)).await;
        assert!(
            matches!(foreign, Err(PeerApiError::Http { .. })),
            "{foreign:?}"
        );
    });
}

#[test]
fn a_node_that_connects_from_an_address_not_its_own_is_rejected() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let answer = fetch_from_server(&client(&ca, 9)).await;
        let Err(PeerApiError::Http { source, .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(source.status().map(|status| status.as_u16()), Some(403));
    });
}

#[test]
fn a_server_at_an_address_that_is_not_in_its_certificate_is_rejected() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, 9, SERVER);
        let answer = fetch_from_server(&client(&ca, CLIENT)).await;
        assert!(
            matches!(&answer, Err(PeerApiError::Http { source, .. }) if source.is_connect()),
            "{answer:?}"
        );
    });
}

#[test]
fn a_node_gets_a_random_sample_of_peers_no_larger_than_requested() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        fetch_from_server(&client(&ca, CLIENT)).await.unwrap();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(ca.node_credentials(CLIENT).peer_client_config().unwrap())
            .local_address(IpAddr::V6(network().node_address(prefix(CLIENT))))
            .build()
            .unwrap();
        let mut samples = Vec::new();
        for (query, expected) in [
            ("?count=5", 5),
            ("?count=5", 5),
            ("", 64),
            ("?count=9999", 64),
        ] {
            let address = network().node_address(prefix(SERVER));
            let answer = http
                .get(format!("https://[{address}]:{PORT}/v1/peers{query}"))
                .send()
                .await
                .unwrap();
            let document: PeersDocument = answer.json().await.unwrap();
            assert_eq!(document.nodes.len(), expected);
            samples.push(document.nodes);
        }
        assert_ne!(samples[0], samples[1]);
        let address = network().node_address(prefix(SERVER));
        let bad = http
            .get(format!("https://[{address}]:{PORT}/v1/peers?count=x"))
            .send()
            .await
            .unwrap();
        assert_eq!(bad.status().as_u16(), 400);
        let unknown = http
            .get(format!("https://[{address}]:{PORT}/"))
            .send()
            .await
            .unwrap();
        assert_eq!(unknown.status().as_u16(), 404);
    });
}

#[test]
fn a_node_that_opens_many_connections_keeps_no_other_node_out() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let client = client(&ca, CLIENT);
        fetch_from_server(&client).await.unwrap();
        let server = SocketAddr::from((network().node_address(prefix(SERVER)), PORT));
        let mut idle = Vec::new();
        for _ in 0..200 {
            // The other node connects, and sends nothing.
            let socket = tokio::net::TcpSocket::new_v6().unwrap();
            let from = network().node_address(prefix(OTHER));
            socket.bind(SocketAddr::from((from, 0))).unwrap();
            idle.push(socket.connect(server).await.unwrap());
        }
        fetch_from_server(&client).await.unwrap();
        let mut open = 0;
        for connection in &idle {
            // A closed connection can be read: it returns its end.
            let closed = timeout(Duration::from_millis(20), connection.readable()).await;
            open += usize::from(closed.is_err());
        }
        assert!((1..=4).contains(&open), "{open}");
    });
}

#[test]
fn a_node_with_a_revoked_certificate_is_rejected() {
    check(|| async {
        let ca = Ca::new();
        serve_with_documents(
            &ca,
            SERVER,
            SERVER,
            ca.documents_with(&ca.revocations(1, CLIENT)),
        );
        let answer = fetch_from_server(&client(&ca, CLIENT)).await;
        let Err(PeerApiError::Http { source, .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(source.status().map(|status| status.as_u16()), Some(403));
    });
}

#[test]
fn a_node_gets_the_current_document_and_posts_a_newer_one() {
    check(|| async {
        let ca = Ca::new();
        let (old, new) = (ca.revocations(1, 9), ca.revocations(2, 9));
        let mut offered = serve_with_documents(&ca, SERVER, SERVER, ca.documents_with(&old));
        let client = client(&ca, CLIENT);
        fetch_from_server(&client).await.unwrap();
        assert_eq!(
            client
                .fetch_signed_document(prefix(SERVER), DocumentKind::Revocations)
                .await
                .unwrap(),
            old
        );
        let none = client
            .fetch_signed_document(prefix(SERVER), DocumentKind::Network)
            .await;
        assert!(
            matches!(&none, Err(PeerApiError::Http { source, .. }) if source.is_status()),
            "{none:?}"
        );
        client
            .post_signed_document(prefix(SERVER), DocumentKind::Revocations, &new)
            .await
            .unwrap();
        let DocumentOffered { from, document } = offered.recv().await.unwrap();
        assert_eq!((from, document), (prefix(CLIENT), new));
    });
}

#[test]
fn only_a_newer_document_that_the_ca_vouches_for_is_accepted() {
    let (ca, other) = (Ca::new(), Ca::new());
    let current = ca.documents_with(&ca.revocations(7, 9)).load_full();
    assert!(matches!(
        current.accept_document(&ca.revocations(8, 9)),
        Ok(UpdateOutcome::New(DocumentKind::Revocations, _))
    ));
    assert!(matches!(
        current.accept_document(&ca.revocations(6, 9)),
        Ok(UpdateOutcome::Older(DocumentKind::Revocations))
    ));
    assert!(matches!(
        current.accept_document(&ca.revocations(7, 9)),
        Ok(UpdateOutcome::Same)
    ));
    assert!(current.accept_document(&other.revocations(8, 9)).is_err());
    assert!(
        current.is_serial_revoked("09")
            && current.is_serial_revoked("9")
            && !current.is_serial_revoked("0a")
            && current.is_serial_revoked("no number")
    );
    let Ok(UpdateOutcome::New(_, next)) = current.accept_document(&ca.revocations(8, 10)) else {
        panic!("not accepted")
    };
    assert_eq!(next.revoked_since(&current), [prefix(10)].into());
}

#[test]
fn an_answer_about_another_node_is_rejected() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, 9);
        let answer = fetch_from_server(&client(&ca, CLIENT)).await;
        assert!(
            matches!(answer, Err(PeerApiError::OtherNode { .. })),
            "{answer:?}"
        );
    });
}

struct FakeSink(mpsc::UnboundedSender<PeersReported>);

impl Actor for FakeSink {
    type Context = Context<Self>;
}

impl Handler<PeersReported> for FakeSink {
    type Result = ();

    fn handle(&mut self, reported: PeersReported, _: &mut Self::Context) {
        let _ = self.0.send(reported);
    }
}

#[test]
fn a_node_in_babels_table_is_asked_and_its_answer_is_reported() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let (sink, mut reports) = mpsc::unbounded_channel();
        let readers = vec![FakeSink(sink).start().recipient()];
        let client = PeerDiscovery::new(PeerDiscoveryDeps {
            me: prefix(CLIENT),
            store: Store::new(Clock::boottime(), prefix(CLIENT)),
            peers: client(&ca, CLIENT),
            readers,
        });
        let route = |number| Route {
            node: prefix(number),
            slot: Slot::Dialling(0),
            via: prefix(3),
            installed: true,
            metric: 96,
            refmetric: 0,
        };
        let table = Some(BabelTable {
            neighbours: vec![],
            routes: vec![route(SERVER), route(CLIENT)],
        });
        client.start().do_send(RoutesRead {
            at: Uptime::from_secs(1),
            table: table.map(Arc::new),
            exit_routes: wire::babel::ExitRoutes::default(),
            claims: Arc::default(),
        });
        let reported = timeout(Duration::from_secs(5), reports.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reported.source, PeerSource::Itself);
        let endpoints = vec![endpoint("udp:45.67.0.1:1194")];
        assert_eq!(
            reported.peers,
            [PeerReport {
                peer: prefix(SERVER),
                endpoints,
                transit_cost: Some(10_000)
            }]
        );
    });
}

#[test]
fn a_node_that_does_not_get_all_restart_locks_keeps_none_and_dead_neighbours_are_skipped() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        fetch_from_server(&client(&ca, CLIENT)).await.unwrap();
        let all = || [prefix(SERVER), prefix(99)].into();
        for (is_own_free, expected) in [(true, true), (false, false)] {
            let clock = Clock::from_fn(|| Uptime::from_secs(100));
            let own = SharedRestartLock::new(prefix(CLIENT), clock);
            assert!(is_own_free || own.acquire(prefix(20)));
            let granted =
                restart_lock::acquire_all(prefix(CLIENT), all(), own.clone(), client(&ca, CLIENT))
                    .await;
            assert_eq!(
                (granted, own.is_holder(prefix(CLIENT))),
                (expected, expected)
            );
        }
    });
}
