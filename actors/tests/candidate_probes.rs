//! Lets the scout sound a real OpenVPN server while the network's key changes, and a port that is silent.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "all of it is tests; they start openvpn"
)]

mod ca;
mod netns;

use actix::{Actor, Addr, Context, Handler};
use actors::{
    messages::{CandidateProbed, CandidatesMeasured, DocumentsChanged},
    sources::candidate_prober::{CandidateProber, CandidateProberDeps, CandidateProberSettings},
    store::{SharedCandidates, Store},
};
use arc_swap::ArcSwap;
use ca::{Ca, network, prefix};
use membership::{
    documents::PrivateEndpoints,
    peer_api::{PeerApiClient, PeerApiSettings},
};
use netns::Namespace;
use os::clock::Clock;
use policies::{observation::Candidate, parameters::Parameters};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UdpSocket,
    process::{Child, Command},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};
use wire::registry::{DocumentKind, NetworkDocument, static_key_text};

const ME: u32 = 1;
const PEER: u32 = 2;
/// Longer than any sounding may take: a beat, then two packets a second each, by either of two keys.
const DEADLINE: Duration = Duration::from_secs(10);

struct Sink {
    sounded: tokio::sync::mpsc::UnboundedSender<bool>,
    scouted: tokio::sync::mpsc::UnboundedSender<Option<Duration>>,
}

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<CandidateProbed> for Sink {
    type Result = ();

    fn handle(&mut self, fact: CandidateProbed, _: &mut Self::Context) {
        assert_eq!(fact.peer, prefix(PEER));
        let _ = self.sounded.send(fact.answered);
    }
}

impl Handler<CandidatesMeasured> for Sink {
    type Result = ();

    fn handle(&mut self, reading: CandidatesMeasured, _: &mut Self::Context) {
        let [sounding] = reading.candidate_rtts[..] else {
            return;
        };
        let _ = self.scouted.send(sounding.rtt);
    }
}

/// A network document with that key, and another that counts too; a refresh of `refresh_s`.
fn document(version: u64, refresh_s: u64, key: u8, other: Option<u8>) -> NetworkDocument {
    let parameters = Parameters {
        refresh: Duration::from_secs(refresh_s),
        ..Parameters::default()
    };
    NetworkDocument {
        kind: DocumentKind::Network,
        version,
        network: network().range(),
        parameters: parameters.into(),
        babel_key: "0f".repeat(32),
        tls_crypt: static_key_text(&[key; 256]),
        private_endpoints: false,
        authorities: Vec::new(),
        babel_lenient: false,
        tls_crypt_other: other.map(|other| static_key_text(&[other; 256])),
        gateways: Vec::new(),
        ipv4: None,
        min_version: None,
    }
}

/// A scout that knows one peer, at that port, and what it tells.
struct Scouting {
    ca: Ca,
    scout: Addr<CandidateProber>,
    sounded: UnboundedReceiver<bool>,
    scouted: UnboundedReceiver<Option<Duration>>,
}

impl Scouting {
    fn start(endpoint: &str, document: &NetworkDocument) -> Self {
        let ca = Ca::new();
        let peer = Candidate {
            peer: prefix(PEER),
            endpoints: vec![format!("udp:{endpoint}").parse().unwrap()],
            confirmed_at: None,
            failed_at: None,
            failures: 0,
            transit_cost: 0,
        };
        let private = PrivateEndpoints::default();
        let told = PeerApiSettings {
            me: prefix(ME),
            network: network(),
            port: 1,
            private,
        };
        let asker = PeerApiClient::new(&told, &ca.member(ME)).unwrap();
        let (tell_sounded, sounded) = unbounded_channel();
        let (tell_scouted, scouted) = unbounded_channel();
        let sink = Sink {
            sounded: tell_sounded,
            scouted: tell_scouted,
        }
        .start();
        let store = Store {
            candidates: SharedCandidates::new(ArcSwap::from_pointee(vec![peer])),
            ..Store::new(Clock::boottime(), prefix(ME))
        };
        let scout = CandidateProber::new(CandidateProberDeps {
            settings: CandidateProberSettings::of(prefix(ME), document),
            store,
            peers: asker,
            readers: vec![sink.clone().recipient()],
            outcomes: sink.recipient(),
        });
        Self {
            ca,
            scout: scout.start(),
            sounded,
            scouted,
        }
    }

    /// From now on the network is that.
    fn change(&self, document: &NetworkDocument) {
        let held = self.ca.holding(&self.ca.sealed(document)).load_full();
        let kind = Some(DocumentKind::Network);
        self.scout.do_send(DocumentsChanged {
            kind,
            documents: held,
            revoked: Default::default(),
        });
    }

    /// What the next sounding brings, or the first one that brings what is expected: one may be under way.
    async fn check(&mut self, answered: bool) {
        let found = async {
            loop {
                let (fact, rtt) = (
                    self.sounded.recv().await.unwrap(),
                    self.scouted.recv().await.unwrap(),
                );
                assert_eq!(fact, rtt.is_some());
                assert!(rtt.is_none_or(|rtt| rtt < Duration::from_secs(1)));
                if fact == answered {
                    return;
                }
            }
        };
        timeout(DEADLINE, found).await.unwrap();
    }
}

/// An OpenVPN server of this namespace that takes packets by that key; ready when this returns.
async fn server(folder: &Path, port: u16, key: u8) -> Child {
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&pair)
        .unwrap();
    std::fs::write(folder.join("cert"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key"), pair.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls-crypt"), static_key_text(&[key; 256])).unwrap();
    let mut server = Command::new("openvpn")
        .current_dir(folder)
        .args(
            "--mode server --tls-server --dev-type tap --dev tap0 --proto udp4 --local 127.0.0.1"
                .split(' '),
        )
        .args("--ca cert --cert cert --key key --dh none --tls-crypt tls-crypt --port".split(' '))
        .arg(port.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut said = String::new();
    loop {
        let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap();
        let line = line.unwrap_or_else(|| panic!("openvpn ended: {said}"));
        said.push_str(&line);
        if line.contains("Initialization Sequence Completed") {
            server.stdout = Some(lines.into_inner().into_inner());
            return server;
        }
    }
}

#[test]
fn a_server_answers_as_soon_as_the_network_document_has_its_key() {
    if !netns::can() {
        return;
    }
    Namespace::new().actors(|| async {
        let folder = tempfile::tempdir().unwrap();
        let _server = server(folder.path(), 1194, 0xb).await;
        // A refresh of an hour sounds once a minute: the changed one counts at once, too.
        let mut scouting = Scouting::start("127.0.0.1:1194", &document(1, 3600, 0xa, None));
        scouting.change(&document(2, 60, 0xa, None));
        scouting.check(false).await;
        scouting.change(&document(3, 60, 0xa, Some(0xb)));
        scouting.check(true).await;
        scouting.change(&document(4, 60, 0xc, None));
        scouting.check(false).await;
        scouting.change(&document(5, 60, 0xb, None));
        scouting.check(true).await;
    });
}

#[test]
fn who_does_not_answer_is_given_up_by_the_deadline_and_stays_unknown() {
    if !netns::can() {
        return;
    }
    Namespace::new().actors(|| async {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut scouting = Scouting::start(
            &format!("127.0.0.1:{port}"),
            &document(1, 60, 0xa, Some(0xb)),
        );
        scouting.check(false).await;
        // It was knocked at, by either key.
        let mut packet = [0; 64];
        for _ in 0..4 {
            assert_eq!(
                timeout(DEADLINE, silent.recv(&mut packet))
                    .await
                    .unwrap()
                    .unwrap(),
                54
            );
        }
    });
}

#[test]
fn nobody_is_sounded_by_way_of_the_network_itself() {
    if !netns::can() {
        return;
    }
    let namespace = Namespace::new();
    let own = network().node_address(prefix(ME));
    // As on a host whose only IPv6 address is the network's.
    namespace.sh(&format!("ip addr add {own}/128 dev lo nodad"));
    namespace.sh(&format!(
        "ip -6 route add local 2001:db8:9::/64 dev lo src {own}"
    ));
    namespace.actors(|| async {
        let silent = UdpSocket::bind("[::]:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut scouting = Scouting::start(
            &format!("[2001:db8:9::5]:{port}"),
            &document(1, 60, 0xa, None),
        );
        scouting.check(false).await;
        assert!(silent.try_recv(&mut [0; 64]).is_err(), "it was sounded");
    });
}
