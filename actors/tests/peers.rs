//! Lets members ask each other over real TLS, and outsiders try.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

mod netns;

use actix::{Actor, Context, Handler};
use actors::{
    clock::Clock,
    member::Member,
    messages::{PeerSource, PeersHeard, RoutesRead},
    peer_api::{PeerApi, SharedNode},
    peer_cache::SharedPeers,
    peer_client::{AskError, Asker, ClientSettings, PeerClient},
};
use arc_swap::ArcSwap;
use netns::Namespace;
use policies::{
    names::{Endpoint, Prefix, Slot},
    units::Uptime,
    world::{BabelTable, Candidate, Route},
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use std::{
    net::{IpAddr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use wire::{
    overlay::Network,
    peer::{NodeDocument, PeersDocument},
};

const PORT: u16 = 326;
const ASKED: u32 = 7;
const ASKS: u32 = 8;

fn prefix(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

fn network() -> Network {
    Network::new("2001:db8:42::/48".parse().unwrap()).unwrap()
}

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

/// A CA that signs nodes.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The member with the address of node `number`.
    fn member(&self, number: u32) -> Member {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            vec![SanType::IpAddress(IpAddr::V6(network().node_address(prefix(number))))];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        Member::from_pem(self.pem.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }
}

/// Node [`ASKED`] answers with the certificate of node `certified` that `ca` signed, as node `says`.
fn serve(ca: &Ca, certified: u32, says: u32) {
    let node = NodeDocument {
        version: wire::peer::VERSION,
        prefix: prefix(says),
        endpoints: vec![endpoint("udp:45.67.0.1:1194"), endpoint("udp:127.0.0.1:1194")],
        software: "warren".into(),
        network_version: 1,
        revocations_version: 0,
    };
    let candidate = |number| Candidate {
        peer: prefix(number),
        endpoints: vec![endpoint("tcp:45.67.0.9:443")],
        confirmed: None,
        failed: None,
        failures: 0,
    };
    let peers = SharedPeers::new(ArcSwap::from_pointee((20..120).map(candidate).collect()));
    let node: SharedNode = Arc::new(ArcSwap::from_pointee(node));
    let address = SocketAddrV6::new(network().node_address(prefix(ASKED)), PORT, 0, 0);
    PeerApi::new(address, &ca.member(certified), node, peers).unwrap().start();
}

/// Node [`ASKS`], with the certificate of node `certified` that `ca` signed.
fn asker(ca: &Ca, certified: u32) -> Asker {
    let settings = ClientSettings { me: prefix(ASKS), network: network(), port: PORT, allow_private: false };
    Asker::new(&settings, &ca.member(certified)).unwrap()
}

/// Runs a test in a namespace where both node addresses are.
fn check<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !netns::can() {
        return;
    }
    let namespace = Namespace::new();
    for number in [ASKED, ASKS] {
        let address = network().node_address(prefix(number));
        namespace.sh(&format!("ip addr add {address}/128 dev lo nodad"));
    }
    namespace.actors(test);
}

/// Asks until the server has begun.
async fn ask(asker: &Asker) -> Result<Vec<Endpoint>, AskError> {
    for _ in 0..100 {
        match asker.ask(prefix(ASKED)).await {
            Err(AskError::Http { source, .. }) if too_early(&source) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
    asker.ask(prefix(ASKED)).await
}

fn too_early(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        // An address is there a moment after it was added.
        let early = [std::io::ErrorKind::ConnectionRefused, std::io::ErrorKind::NetworkUnreachable];
        if io.is_some_and(|error| early.contains(&error.kind())) {
            return true;
        }
        source = error.source();
    }
    false
}

#[test]
fn a_member_tells_a_member_where_it_can_be_dialled() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, ASKED, ASKED);
        let endpoints = ask(&asker(&ca, ASKS)).await.unwrap();
        assert_eq!(endpoints, [endpoint("udp:45.67.0.1:1194")]);
    });
}

#[test]
fn who_has_no_certificate_of_the_network_gets_no_answer_and_is_not_believed() {
    check(|| async {
        let (ca, other) = (Ca::new(), Ca::new());
        serve(&ca, ASKED, ASKED);
        ask(&asker(&ca, ASKS)).await.unwrap();
        let foreign = ask(&asker(&other, ASKS)).await;
        assert!(matches!(foreign, Err(AskError::Http { .. })), "{foreign:?}");
    });
}

#[test]
fn a_member_that_comes_from_an_address_not_its_own_is_refused() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, ASKED, ASKED);
        let answer = ask(&asker(&ca, 9)).await;
        let Err(AskError::Http { source, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!(source.status().map(|status| status.as_u16()), Some(403));
    });
}

#[test]
fn a_member_that_answers_at_an_address_not_its_own_is_not_believed() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, 9, ASKED);
        let answer = ask(&asker(&ca, ASKS)).await;
        assert!(matches!(&answer, Err(AskError::Http { source, .. }) if source.is_connect()), "{answer:?}");
    });
}

#[test]
fn a_member_is_told_a_random_sample_of_peers_no_larger_than_it_asks_for() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, ASKED, ASKED);
        ask(&asker(&ca, ASKS)).await.unwrap();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(ca.member(ASKS).client().unwrap())
            .local_address(IpAddr::V6(network().node_address(prefix(ASKS))))
            .build()
            .unwrap();
        let mut samples = Vec::new();
        for (query, expected) in [("?count=5", 5), ("?count=5", 5), ("", 64), ("?count=9999", 64)] {
            let address = network().node_address(prefix(ASKED));
            let answer =
                http.get(format!("https://[{address}]:{PORT}/v1/peers{query}")).send().await.unwrap();
            let document: PeersDocument = answer.json().await.unwrap();
            assert_eq!(document.nodes.len(), expected);
            samples.push(document.nodes);
        }
        assert_ne!(samples[0], samples[1]);
        let address = network().node_address(prefix(ASKED));
        let bad = http.get(format!("https://[{address}]:{PORT}/v1/peers?count=x")).send().await.unwrap();
        assert_eq!(bad.status().as_u16(), 400);
        let unknown = http.get(format!("https://[{address}]:{PORT}/")).send().await.unwrap();
        assert_eq!(unknown.status().as_u16(), 404);
    });
}

#[test]
fn an_answer_about_another_node_is_not_believed() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, ASKED, 9);
        let answer = ask(&asker(&ca, ASKS)).await;
        assert!(matches!(answer, Err(AskError::OtherNode { .. })), "{answer:?}");
    });
}

struct FakeSink(mpsc::UnboundedSender<PeersHeard>);

impl Actor for FakeSink {
    type Context = Context<Self>;
}

impl Handler<PeersHeard> for FakeSink {
    type Result = ();

    fn handle(&mut self, heard: PeersHeard, _: &mut Self::Context) {
        let _ = self.0.send(heard);
    }
}

#[test]
fn a_node_in_babels_table_is_asked_and_its_answer_is_told() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, ASKED, ASKED);
        let (sink, mut told) = mpsc::unbounded_channel();
        let to = vec![FakeSink(sink).start().recipient()];
        let client =
            PeerClient::new(prefix(ASKS), asker(&ca, ASKS), Clock::boottime(), SharedPeers::default(), to);
        let route = |number| Route {
            node: prefix(number),
            slot: Slot::Dialling(0),
            via: prefix(3),
            installed: true,
            metric: 96,
            refmetric: 0,
        };
        let table = Some(BabelTable { neighbours: vec![], routes: vec![route(ASKED), route(ASKS)] });
        client.start().do_send(RoutesRead { at: Uptime::from_secs(1), table });
        let heard = timeout(Duration::from_secs(5), told.recv()).await.unwrap().unwrap();
        assert_eq!(heard.source, PeerSource::Itself);
        assert_eq!(heard.peers, [(prefix(ASKED), vec![endpoint("udp:45.67.0.1:1194")])]);
    });
}
