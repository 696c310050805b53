//! Helpers of the peer API's tests: they start the server of one node, and build clients.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper of tests"
)]

mod hole_punching;

use super::*;
use actors::sources::hole_punching::PunchSettings;
use membership::{credentials::NodeCredentials, node_names::NodeNames};

/// The port of the UDP server that node [`SERVER`] would have.
pub(crate) const UDP_PORT: u16 = 1194;

pub(crate) fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

/// Starts the peer API at the address of node [`SERVER`], with the certificate of node `certified` and a document about node
/// `claimed`.
pub(crate) fn serve(ca: &Ca, certified: u32, claimed: u32) {
    serve_with_documents(ca, certified, claimed, DocumentStore::default());
}

/// Like [`serve`], with these current documents. Returns the receiver of posted documents.
pub(crate) fn serve_with_documents(
    ca: &Ca,
    certified: u32,
    claimed: u32,
    documents: DocumentStore,
) -> mpsc::UnboundedReceiver<DocumentOffered> {
    let credentials = ca.node_credentials(certified);
    serve_with_credentials(&credentials, claimed, documents, NodeNames::default())
}

/// Like [`serve_with_documents`], with these credentials; names that callers' certificates state are put into `names`.
pub(crate) fn serve_with_credentials(
    credentials: &NodeCredentials,
    claimed: u32,
    documents: DocumentStore,
    names: NodeNames,
) -> mpsc::UnboundedReceiver<DocumentOffered> {
    let node = NodeDocument {
        version: wire::peer::VERSION,
        prefix: prefix(claimed),
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
        on_lan: 0,
        confirmed_at: None,
        failed_at: None,
        failures: 0,
        transit_cost: 0,
    };
    let peers = SharedCandidates::new(ArcSwap::from_pointee((20..120).map(candidate).collect()));
    let node: SharedNodeDocument = Arc::new(ArcSwap::from_pointee(node));
    let address = SocketAddrV6::new(network().node_address(prefix(SERVER)), PORT, 0, 0);
    let tls = Arc::new(ArcSwap::from_pointee(credentials.server_config().unwrap()));
    let (sink, offered) = mpsc::unbounded_channel();
    let store = Store {
        documents,
        names,
        node_document: node,
        candidates: peers,
        route_view: route_view(),
        ..Store::new(Clock::from_fn(|| Uptime::from_secs(100)), prefix(SERVER))
    };
    PeerApi::new(PeerApiDeps {
        address,
        store,
        server_tls: tls,
        offered: FakeDocuments(sink).start().recipient(),
        punch_settings: PunchSettings {
            me: prefix(SERVER),
            network: network(),
            server_port: Some(UDP_PORT),
            openvpn_uid: 0,
        },
        peers: client_of(SERVER, credentials, NodeNames::default()),
        find_next_hop: Arc::new(|to| (to == prefix(20)).then(next_hop)),
    })
    .start();
    offered
}

/// A route view with two distances and three accepted tunnels. The tunnel that [`CLIENT`] dialled has a regret of 40.
pub(crate) fn route_view() -> SharedRouteView {
    Arc::new(ArcSwap::from_pointee(RouteView {
        accepts_tunnels: true,
        accepted: 3,
        distances: vec![(prefix(20), 96), (prefix(21), 300)],
        regrets: [(prefix(CLIENT), Some(40)), (prefix(77), Some(9))].into(),
    }))
}

/// The tunnel by which the server's packets to node 20 leave.
pub(crate) fn next_hop() -> NextHopDocument {
    NextHopDocument {
        version: VERSION,
        prefix: prefix(SERVER),
        to: prefix(20),
        tunnel: Slot::Dialling(3),
        neighbour: prefix(CLIENT),
        rtt_seconds: Some(0.003),
        loss_ratio: None,
    }
}

/// Stands in for the documents actor, and forwards posted documents to a channel.
pub(crate) struct FakeDocuments(mpsc::UnboundedSender<DocumentOffered>);

impl Actor for FakeDocuments {
    type Context = Context<Self>;
}

impl Handler<DocumentOffered> for FakeDocuments {
    type Result = ();

    fn handle(&mut self, offered: DocumentOffered, _: &mut Self::Context) {
        let _ = self.0.send(offered);
    }
}

/// Returns the name of node `number`.
pub(crate) fn name_of(names: &NodeNames, number: u32) -> Option<String> {
    names.load().get(prefix(number)).map(ToString::to_string)
}

/// Builds the client of node [`CLIENT`], with the certificate of node `certified`.
pub(crate) fn client(ca: &Ca, certified: u32) -> PeerApiClient {
    client_with_credentials(&ca.node_credentials(certified), NodeNames::default())
}

/// Builds the client of node [`CLIENT`], with these credentials; names that servers' certificates state are put into `names`.
pub(crate) fn client_with_credentials(
    credentials: &NodeCredentials,
    names: NodeNames,
) -> PeerApiClient {
    client_of(CLIENT, credentials, names)
}

fn client_of(me: u32, credentials: &NodeCredentials, names: NodeNames) -> PeerApiClient {
    let settings = PeerApiSettings {
        me: prefix(me),
        network: network(),
        port: PORT,
        names,
    };
    PeerApiClient::new(&settings, credentials).unwrap()
}

/// Runs a test in a network namespace that has both node addresses.
pub(crate) fn check<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !netns::can_create() {
        return;
    }
    let namespace = Namespace::new();
    for number in [SERVER, CLIENT, OTHER] {
        let address = network().node_address(prefix(number));
        namespace.sh(&format!("ip addr add {address}/128 dev lo nodad"));
    }
    namespace.run_actors(test);
}

/// Fetches the endpoints of node [`SERVER`], and retries until the server listens.
pub(crate) async fn fetch_from_server(client: &PeerApiClient) -> Result<PeerReport, PeerApiError> {
    for _ in 0..100 {
        match client.fetch_endpoints(prefix(SERVER)).await {
            Err(PeerApiError::Http { source, .. }) if is_not_listening_yet(&source) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
    client.fetch_endpoints(prefix(SERVER)).await
}

/// Returns whether the server does not listen yet, or its address does not exist yet.
fn is_not_listening_yet(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        let kinds = [
            std::io::ErrorKind::ConnectionRefused,
            std::io::ErrorKind::NetworkUnreachable,
        ];
        if io.is_some_and(|error| kinds.contains(&error.kind())) {
            return true;
        }
        source = error.source();
    }
    false
}
