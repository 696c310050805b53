//! Serves the peer API of one node, and builds clients of it, for the tests of the peer API.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper of tests"
)]

use super::*;

pub(crate) fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

/// Node [`ASKED`] answers with the certificate of node `certified` that `ca` signed, as node `says`.
pub(crate) fn serve(ca: &Ca, certified: u32, says: u32) {
    serve_holding(ca, certified, says, DocumentStore::default());
}

/// The same; it holds those documents. What it is given arrives at the receiver.
pub(crate) fn serve_holding(
    ca: &Ca,
    certified: u32,
    says: u32,
    held: DocumentStore,
) -> mpsc::UnboundedReceiver<DocumentOffered> {
    let node = NodeDocument {
        version: wire::peer::VERSION,
        prefix: prefix(says),
        endpoints: vec![
            endpoint("udp:45.67.0.1:1194"),
            endpoint("udp:127.0.0.1:1194"),
        ],
        software: "warren".into(),
        network_version: 1,
        revocations_version: 0,
        transit_cost: 10_000,
    };
    let candidate = |number| Candidate {
        peer: prefix(number),
        endpoints: vec![endpoint("tcp:45.67.0.9:443")],
        confirmed_at: None,
        failed_at: None,
        failures: 0,
        transit_cost: 0,
    };
    let peers = SharedCandidates::new(ArcSwap::from_pointee((20..120).map(candidate).collect()));
    let node: SharedNodeDocument = Arc::new(ArcSwap::from_pointee(node));
    let address = SocketAddrV6::new(network().node_address(prefix(ASKED)), PORT, 0, 0);
    let tls = Arc::new(ArcSwap::from_pointee(
        ca.member(certified).server().unwrap(),
    ));
    let (sink, offered) = mpsc::unbounded_channel();
    let store = Store {
        documents: held,
        node_document: node,
        candidates: peers,
        route_view: outlook(),
        ..Store::new(Clock::from_fn(|| Uptime::from_secs(100)), prefix(ASKED))
    };
    PeerApi::new(PeerApiDeps {
        address,
        store,
        server_tls: tls,
        offered: FakeTable(sink).start().recipient(),
    })
    .start();
    offered
}

/// Two metrics; room beside three accepted tunnels; a tunnel that [`ASKS`] dialled, which would be missed by 40.
pub(crate) fn outlook() -> SharedRouteView {
    Arc::new(ArcSwap::from_pointee(RouteView {
        accepts_tunnels: true,
        accepted: 3,
        distances: vec![(prefix(20), 96), (prefix(21), 300)],
        regrets: [(prefix(ASKS), Some(40)), (prefix(77), Some(9))].into(),
    }))
}

/// Where documents are put down.
pub(crate) struct FakeTable(mpsc::UnboundedSender<DocumentOffered>);

impl Actor for FakeTable {
    type Context = Context<Self>;
}

impl Handler<DocumentOffered> for FakeTable {
    type Result = ();

    fn handle(&mut self, offered: DocumentOffered, _: &mut Self::Context) {
        let _ = self.0.send(offered);
    }
}

/// Node [`ASKS`], with the certificate of node `certified` that `ca` signed.
pub(crate) fn asker(ca: &Ca, certified: u32) -> PeerApiClient {
    let settings = PeerApiSettings {
        me: prefix(ASKS),
        network: network(),
        port: PORT,
        private: PrivateEndpoints::default(),
    };
    PeerApiClient::new(&settings, &ca.member(certified)).unwrap()
}

/// Runs a test in a namespace where both node addresses are.
pub(crate) fn check<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
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
pub(crate) async fn ask(asker: &PeerApiClient) -> Result<PeerReport, PeerApiError> {
    for _ in 0..100 {
        match asker.ask(prefix(ASKED)).await {
            Err(PeerApiError::Http { source, .. }) if too_early(&source) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
    asker.ask(prefix(ASKED)).await
}

pub(crate) fn too_early(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        // An address is there a moment after it was added.
        let early = [
            std::io::ErrorKind::ConnectionRefused,
            std::io::ErrorKind::NetworkUnreachable,
        ];
        if io.is_some_and(|error| early.contains(&error.kind())) {
            return true;
        }
        source = error.source();
    }
    false
}
