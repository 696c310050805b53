//! Tests of the candidate prober: it probes a real OpenVPN server while the network's key changes, and a silent port.

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
/// Longer than any RTT probe takes: one scheduling interval, then two packets a second apart for each of two keys.
const DEADLINE: Duration = Duration::from_secs(10);

struct Sink {
    answered: tokio::sync::mpsc::UnboundedSender<bool>,
    rtts: tokio::sync::mpsc::UnboundedSender<Option<Duration>>,
}

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<CandidateProbed> for Sink {
    type Result = ();

    fn handle(&mut self, fact: CandidateProbed, _: &mut Self::Context) {
        assert_eq!(fact.peer, prefix(PEER));
        let _ = self.answered.send(fact.answered);
    }
}

impl Handler<CandidatesMeasured> for Sink {
    type Result = ();

    fn handle(&mut self, reading: CandidatesMeasured, _: &mut Self::Context) {
        let [candidate] = reading.candidate_rtts[..] else {
            return;
        };
        let _ = self.rtts.send(candidate.rtt);
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

/// A candidate prober that knows one peer, at that endpoint, and what it reports.
struct Probing {
    ca: Ca,
    prober: Addr<CandidateProber>,
    answered: UnboundedReceiver<bool>,
    rtts: UnboundedReceiver<Option<Duration>>,
}

impl Probing {
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
        let client_settings = PeerApiSettings {
            me: prefix(ME),
            network: network(),
            port: 1,
            private,
        };
        let client = PeerApiClient::new(&client_settings, &ca.member(ME)).unwrap();
        let (report_answered, answered) = unbounded_channel();
        let (report_rtts, rtts) = unbounded_channel();
        let sink = Sink {
            answered: report_answered,
            rtts: report_rtts,
        }
        .start();
        let store = Store {
            candidates: SharedCandidates::new(ArcSwap::from_pointee(vec![peer])),
            ..Store::new(Clock::boottime(), prefix(ME))
        };
        let prober = CandidateProber::new(CandidateProberDeps {
            settings: CandidateProberSettings::from_network(prefix(ME), document),
            store,
            peers: client,
            readers: vec![sink.clone().recipient()],
            outcomes: sink.recipient(),
        });
        Self {
            ca,
            prober: prober.start(),
            answered,
            rtts,
        }
    }

    /// From now on the network is that.
    fn change(&self, document: &NetworkDocument) {
        let documents = self.ca.holding(&self.ca.sealed(document)).load_full();
        let kind = Some(DocumentKind::Network);
        self.prober.do_send(DocumentsChanged {
            kind,
            documents,
            revoked: Default::default(),
        });
    }

    /// Waits for a probe with the expected outcome; one with the settings of before may be under way.
    async fn check(&mut self, answered: bool) {
        let found = async {
            loop {
                let (fact, rtt) = (
                    self.answered.recv().await.unwrap(),
                    self.rtts.recv().await.unwrap(),
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
    let mut output = String::new();
    loop {
        let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap();
        let line = line.unwrap_or_else(|| panic!("openvpn exited: {output}"));
        output.push_str(&line);
        if line.contains("Initialization Sequence Completed") {
            server.stdout = Some(lines.into_inner().into_inner());
            return server;
        }
    }
}

#[test]
fn a_server_answers_as_soon_as_the_network_document_has_its_key() {
    if !netns::can_create() {
        return;
    }
    Namespace::new().run_actors(|| async {
        let folder = tempfile::tempdir().unwrap();
        let _server = server(folder.path(), 1194, 0xb).await;
        // With a refresh of an hour a candidate is probed once a minute; the changed interval counts at once, too.
        let mut probing = Probing::start("127.0.0.1:1194", &document(1, 3600, 0xa, None));
        probing.change(&document(2, 60, 0xa, None));
        probing.check(false).await;
        probing.change(&document(3, 60, 0xa, Some(0xb)));
        probing.check(true).await;
        probing.change(&document(4, 60, 0xc, None));
        probing.check(false).await;
        probing.change(&document(5, 60, 0xb, None));
        probing.check(true).await;
    });
}

#[test]
fn a_silent_candidate_has_no_round_trip_after_the_deadline() {
    if !netns::can_create() {
        return;
    }
    Namespace::new().run_actors(|| async {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut probing = Probing::start(
            &format!("127.0.0.1:{port}"),
            &document(1, 60, 0xa, Some(0xb)),
        );
        probing.check(false).await;
        // It received packets made with either key.
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
fn no_candidate_is_probed_through_the_network_itself() {
    if !netns::can_create() {
        return;
    }
    let namespace = Namespace::new();
    let own = network().node_address(prefix(ME));
    // As on a host whose only IPv6 address is the network's.
    namespace.sh(&format!("ip addr add {own}/128 dev lo nodad"));
    namespace.sh(&format!(
        "ip -6 route add local 2001:db8:9::/64 dev lo src {own}"
    ));
    namespace.run_actors(|| async {
        let silent = UdpSocket::bind("[::]:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut probing = Probing::start(
            &format!("[2001:db8:9::5]:{port}"),
            &document(1, 60, 0xa, None),
        );
        probing.check(false).await;
        assert!(silent.try_recv(&mut [0; 64]).is_err(), "it was probed");
    });
}
