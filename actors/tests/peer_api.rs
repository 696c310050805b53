//! Lets members ask each other over real TLS, and outsiders try.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

mod ca;
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
    documents::{DocumentStore, PrivateEndpoints, UpdateOutcome},
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
    net::{IpAddr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use wire::{
    peer::{NodeDocument, PeersDocument},
    registry::DocumentKind,
};

const PORT: u16 = 326;
const SERVER: u32 = 7;
const CLIENT: u32 = 8;

#[test]
fn a_member_gets_the_endpoints_of_another_member() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let endpoints = ask(&client(&ca, CLIENT)).await.unwrap().endpoints;
        assert_eq!(endpoints, [endpoint("udp:45.67.0.1:1194")]);
    });
}

#[test]
fn a_member_gets_the_route_view_of_another_member_and_the_regret_of_their_tunnel() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let client = client(&ca, CLIENT);
        ask(&client).await.unwrap();
        let view = client.view(prefix(SERVER)).await.unwrap();
        assert_eq!(
            (view.peer, view.accepts_tunnels, view.accepted, view.regret),
            (prefix(SERVER), true, Some(3), Some(40))
        );
        assert_eq!(view.distances, [(prefix(20), 96), (prefix(21), 300)]);
    });
}

#[test]
fn a_client_without_a_certificate_of_the_network_gets_no_answer() {
    check(|| async {
        let (ca, other) = (Ca::new(), Ca::new());
        serve(&ca, SERVER, SERVER);
        ask(&client(&ca, CLIENT)).await.unwrap();
        let foreign = ask(&client(&other, CLIENT)).await;
        assert!(
            matches!(foreign, Err(PeerApiError::Http { .. })),
            "{foreign:?}"
        );
    });
}

#[test]
fn a_member_that_comes_from_an_address_not_its_own_is_refused() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let answer = ask(&client(&ca, 9)).await;
        let Err(PeerApiError::Http { source, .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(source.status().map(|status| status.as_u16()), Some(403));
    });
}

#[test]
fn a_member_that_answers_at_an_address_not_its_own_is_not_believed() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, 9, SERVER);
        let answer = ask(&client(&ca, CLIENT)).await;
        assert!(
            matches!(&answer, Err(PeerApiError::Http { source, .. }) if source.is_connect()),
            "{answer:?}"
        );
    });
}

#[test]
fn a_member_gets_a_random_sample_of_peers_no_larger_than_requested() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        ask(&client(&ca, CLIENT)).await.unwrap();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(ca.member(CLIENT).client().unwrap())
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
fn a_member_whose_certificate_is_revoked_is_refused() {
    check(|| async {
        let ca = Ca::new();
        serve_holding(&ca, SERVER, SERVER, ca.holding(&ca.revocations(1, CLIENT)));
        let answer = ask(&client(&ca, CLIENT)).await;
        let Err(PeerApiError::Http { source, .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(source.status().map(|status| status.as_u16()), Some(403));
    });
}

#[test]
fn a_member_gets_the_current_document_and_posts_a_newer_one() {
    check(|| async {
        let ca = Ca::new();
        let (old, new) = (ca.revocations(1, 9), ca.revocations(2, 9));
        let mut offered = serve_holding(&ca, SERVER, SERVER, ca.holding(&old));
        let client = client(&ca, CLIENT);
        ask(&client).await.unwrap();
        assert_eq!(
            client
                .document(prefix(SERVER), DocumentKind::Revocations)
                .await
                .unwrap(),
            old
        );
        let none = client.document(prefix(SERVER), DocumentKind::Network).await;
        assert!(
            matches!(&none, Err(PeerApiError::Http { source, .. }) if source.is_status()),
            "{none:?}"
        );
        client
            .post(prefix(SERVER), DocumentKind::Revocations, &new)
            .await
            .unwrap();
        let DocumentOffered { from, document } = offered.recv().await.unwrap();
        assert_eq!((from, document), (prefix(CLIENT), new));
    });
}

#[test]
fn only_a_newer_document_that_the_ca_vouches_for_is_taken() {
    let (ca, other) = (Ca::new(), Ca::new());
    let held = ca.holding(&ca.revocations(7, 9)).load_full();
    assert!(matches!(
        held.take(&ca.revocations(8, 9)),
        Ok(UpdateOutcome::New(DocumentKind::Revocations, _))
    ));
    assert!(matches!(
        held.take(&ca.revocations(6, 9)),
        Ok(UpdateOutcome::Older(DocumentKind::Revocations))
    ));
    assert!(matches!(
        held.take(&ca.revocations(7, 9)),
        Ok(UpdateOutcome::Same)
    ));
    assert!(held.take(&other.revocations(8, 9)).is_err());
    assert!(
        held.is_ca_revoked("09")
            && held.is_ca_revoked("9")
            && !held.is_ca_revoked("0a")
            && held.is_ca_revoked("no number")
    );
    let Ok(UpdateOutcome::New(_, next)) = held.take(&ca.revocations(8, 10)) else {
        panic!("not taken")
    };
    assert_eq!(next.revoked_since(&held), [prefix(10)].into());
}

#[test]
fn an_answer_about_another_node_is_not_believed() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, 9);
        let answer = ask(&client(&ca, CLIENT)).await;
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

    fn handle(&mut self, heard: PeersReported, _: &mut Self::Context) {
        let _ = self.0.send(heard);
    }
}

#[test]
fn a_node_of_babels_table_is_asked_and_its_answer_is_reported() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let (sink, mut told) = mpsc::unbounded_channel();
        let to = vec![FakeSink(sink).start().recipient()];
        let client = PeerDiscovery::new(PeerDiscoveryDeps {
            me: prefix(CLIENT),
            store: Store::new(Clock::boottime(), prefix(CLIENT)),
            peers: client(&ca, CLIENT),
            readers: to,
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
            table,
            exit_routes: wire::babel::ExitRoutes::default(),
        });
        let heard = timeout(Duration::from_secs(5), told.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(heard.source, PeerSource::Itself);
        let endpoints = vec![endpoint("udp:45.67.0.1:1194")];
        assert_eq!(
            heard.peers,
            [PeerReport {
                peer: prefix(SERVER),
                endpoints,
                transit_cost: Some(10_000)
            }]
        );
    });
}

#[test]
fn a_node_that_is_not_granted_all_locks_keeps_none_and_dead_neighbours_are_skipped() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        ask(&client(&ca, CLIENT)).await.unwrap();
        let all = || [prefix(SERVER), prefix(99)].into();
        for (own_is_free, expected) in [(true, true), (false, false)] {
            let own = SharedRestartLock::new(Clock::from_fn(|| Uptime::from_secs(100)));
            assert!(own_is_free || own.acquire(prefix(20)));
            let granted =
                restart_lock::acquire_all(prefix(CLIENT), all(), own.clone(), client(&ca, CLIENT))
                    .await;
            assert_eq!(
                (granted, own.holder() == Some(prefix(CLIENT))),
                (expected, expected)
            );
        }
    });
}
