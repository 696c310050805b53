//! Tests the candidate prober with a real OpenVPN server while the network's key changes, and with a silent port.

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
use membership::peer_api::{PeerApiClient, PeerApiSettings};
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
/// Maximum wait for an outcome. A probe takes at most one scheduling interval and a second for each of two packets with each of
/// two keys.
const TIMEOUT: Duration = Duration::from_secs(10);

struct FakeSink {
    outcomes: tokio::sync::mpsc::UnboundedSender<bool>,
    rtts: tokio::sync::mpsc::UnboundedSender<Option<Duration>>,
}

impl Actor for FakeSink {
    type Context = Context<Self>;
}

impl Handler<CandidateProbed> for FakeSink {
    type Result = ();

    fn handle(&mut self, fact: CandidateProbed, _: &mut Self::Context) {
        assert_eq!(fact.peer, prefix(PEER));
        let _ = self.outcomes.send(fact.answered);
    }
}

impl Handler<CandidatesMeasured> for FakeSink {
    type Result = ();

    fn handle(&mut self, reading: CandidatesMeasured, _: &mut Self::Context) {
        let [candidate] = reading.candidate_rtts[..] else {
            return;
        };
        let _ = self.rtts.send(candidate.rtt);
    }
}

/// A network document with this `tls-crypt` key, possibly a second one, and a refresh interval of `refresh_s`.
fn document(version: u64, refresh_s: u64, key: u8, other_key: Option<u8>) -> NetworkDocument {
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
        tls_crypt_other: other_key.map(|key| static_key_text(&[key; 256])),
        gateways: Vec::new(),
        ipv4: None,
        min_version: None,
        prefix_lengths: Vec::new(),
    }
}

/// A running candidate prober that knows one peer, and the outcomes that it reports.
struct RunningProber {
    ca: Ca,
    prober: Addr<CandidateProber>,
    outcomes: UnboundedReceiver<bool>,
    rtts: UnboundedReceiver<Option<Duration>>,
}

impl RunningProber {
    fn start(endpoint: &str, document: &NetworkDocument) -> Self {
        let ca = Ca::new();
        let peer = Candidate {
            peer: prefix(PEER),
            endpoints: vec![format!("udp:{endpoint}").parse().unwrap()],
            on_lan: 0,
            confirmed_at: None,
            failed_at: None,
            failures: 0,
            transit_cost: 0,
        };
        let client_settings = PeerApiSettings {
            me: prefix(ME),
            network: network(),
            port: 1,
            names: membership::node_names::NodeNames::default(),
        };
        let client = PeerApiClient::new(&client_settings, &ca.node_credentials(ME)).unwrap();
        let (outcome_sender, outcomes) = unbounded_channel();
        let (rtt_sender, rtts) = unbounded_channel();
        let sink = FakeSink {
            outcomes: outcome_sender,
            rtts: rtt_sender,
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
            outcomes,
            rtts,
        }
    }

    /// Makes `document` the current network document.
    fn change_network(&self, document: &NetworkDocument) {
        let documents = self
            .ca
            .documents_with(&self.ca.sign_document(document))
            .load_full();
        let kind = Some(DocumentKind::Network);
        self.prober.do_send(DocumentsChanged {
            kind,
            documents,
            revoked: Default::default(),
        });
    }

    /// Waits for a probe with the expected outcome. A probe with the earlier settings may still be in flight.
    async fn check(&mut self, expected: bool) {
        let wait = async {
            loop {
                let (answered, rtt) = (
                    self.outcomes.recv().await.unwrap(),
                    self.rtts.recv().await.unwrap(),
                );
                assert_eq!(answered, rtt.is_some());
                assert!(rtt.is_none_or(|rtt| rtt < Duration::from_secs(1)));
                if answered == expected {
                    return;
                }
            }
        };
        timeout(TIMEOUT, wait).await.unwrap();
    }
}

/// Starts an OpenVPN server in this namespace with this `tls-crypt` key, and waits until it is ready.
async fn start_server(folder: &Path, port: u16, key: u8) -> Child {
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
        let line = timeout(TIMEOUT, lines.next_line()).await.unwrap().unwrap();
        let line = line.unwrap_or_else(|| panic!("openvpn exited: {output}"));
        output.push_str(&line);
        if line.contains("Initialization Sequence Completed") {
            server.stdout = Some(lines.into_inner().into_inner());
            return server;
        }
    }
}

#[test]
fn a_server_answers_once_the_network_document_has_its_key() {
    if !netns::can_create() {
        return;
    }
    Namespace::new().run_actors(|| async {
        let folder = tempfile::tempdir().unwrap();
        let _server = start_server(folder.path(), 1194, 0xb).await;
        // With a refresh interval of an hour, one candidate a minute is probed. The shorter interval must take effect at once.
        let mut prober = RunningProber::start("127.0.0.1:1194", &document(1, 3600, 0xa, None));
        prober.change_network(&document(2, 60, 0xa, None));
        prober.check(false).await;
        prober.change_network(&document(3, 60, 0xa, Some(0xb)));
        prober.check(true).await;
        prober.change_network(&document(4, 60, 0xc, None));
        prober.check(false).await;
        prober.change_network(&document(5, 60, 0xb, None));
        prober.check(true).await;
    });
}

#[test]
fn a_candidate_that_does_not_answer_in_time_has_no_round_trip() {
    if !netns::can_create() {
        return;
    }
    Namespace::new().run_actors(|| async {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut prober = RunningProber::start(
            &format!("127.0.0.1:{port}"),
            &document(1, 60, 0xa, Some(0xb)),
        );
        prober.check(false).await;
        // It received the two packets of each key.
        let mut packet = [0; 64];
        for _ in 0..4 {
            assert_eq!(
                timeout(TIMEOUT, silent.recv(&mut packet))
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
    // The only IPv6 address of this host is that of the network.
    namespace.sh(&format!("ip addr add {own}/128 dev lo nodad"));
    namespace.sh(&format!(
        "ip -6 route add local 2001:db8:9::/64 dev lo src {own}"
    ));
    namespace.run_actors(|| async {
        let silent = UdpSocket::bind("[::]:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut prober = RunningProber::start(
            &format!("[2001:db8:9::5]:{port}"),
            &document(1, 60, 0xa, None),
        );
        prober.check(false).await;
        assert!(silent.try_recv(&mut [0; 64]).is_err(), "it was probed");
    });
}
