//! Serves metrics and the control socket. If that fails at the start, the node runs without them, and the error is logged.

use crate::host::Host;
use actix::Recipient;
use actix_web::dev::ServerHandle;
use actors::operator::OperatorOrdered;
use actors::sinks::{
    control::{self, AskNextHop, DaemonRequest},
    exporter::{self, ExporterError, Listen, Readers},
    telemetry::Published,
};
use config::{MetricsAddress, Settings, paths::Paths};
use membership::peer_api::PeerApiClient;
use os::clock::Clock;
use policies::node_reference::NodeReference;
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::mpsc;
use wire::errors::Chain;

/// Requests of root that wait while one is carried out.
const MAX_WAITING_REQUESTS: usize = 4;

/// The receiver of root's requests.
pub(crate) type Requests = mpsc::Receiver<DaemonRequest>;

/// Orders of an operator that wait while the daemon starts.
const MAX_WAITING_ORDERS: usize = 16;

/// The servers of metrics, whose addresses can be changed.
pub(crate) struct MetricsServer {
    clock: Clock,
    published: Published,
    addresses: Vec<MetricsAddress>,
    /// The nodes that may read metrics by the network.
    readers: Vec<NodeReference>,
    /// The running servers; those whose address cannot be used are missing.
    handles: Vec<ServerHandle>,
}

impl MetricsServer {
    /// Serves metrics as the settings say. An address that cannot be used is logged, and the others are served.
    pub(crate) fn start(settings: &Settings, clock: &Clock, published: &Published) -> Self {
        let mut server = Self {
            clock: clock.clone(),
            published: published.clone(),
            addresses: settings.metrics.clone(),
            readers: settings.metrics_from.clone(),
            handles: Vec::new(),
        };
        server.serve_all();
        server
    }

    /// Serves at all addresses; returns the error of the last one that cannot be used.
    fn serve_all(&mut self) -> Option<ExporterError> {
        let mut last_error = None;
        for address in self.addresses.clone() {
            if let Err(error) = self.serve(&address) {
                tracing::error!(error = %Chain(&error), "metrics are not served at one of their addresses");
                last_error = Some(error);
            }
        }
        last_error
    }

    fn serve(&mut self, address: &MetricsAddress) -> Result<(), ExporterError> {
        let identity = self.published.load().identity.clone();
        let listen = match address {
            MetricsAddress::Tcp(address) => Listen::Tcp(*address),
            MetricsAddress::Unix(path) => Listen::Unix(path.clone()),
            MetricsAddress::Overlay(port) => {
                let own = identity.network.node_address(identity.prefix);
                let readers = Readers(self.readers.clone());
                Listen::Overlay(SocketAddr::new(own.into(), *port), readers)
            }
        };
        let server = exporter::serve(&listen, self.clock.clone(), self.published.clone())?;
        self.handles.push(server.handle());
        actix_rt::spawn(server);
        Ok(())
    }

    async fn stop(&mut self) {
        for handle in self.handles.drain(..) {
            handle.stop(false).await;
        }
    }

    /// Serves metrics at other addresses, or to other nodes. The old servers are stopped first, because the addresses may overlap.
    ///
    /// # Errors
    /// A new address cannot be used; metrics are served at the old ones again.
    pub(crate) async fn move_to(&mut self, settings: &Settings) -> Result<(), ExporterError> {
        if self.addresses == settings.metrics && self.readers == settings.metrics_from {
            return Ok(());
        }
        self.stop().await;
        let old = std::mem::replace(&mut self.addresses, settings.metrics.clone());
        let old_readers = std::mem::replace(&mut self.readers, settings.metrics_from.clone());
        let Some(error) = self.serve_all() else {
            return Ok(());
        };
        self.stop().await;
        self.addresses = old;
        self.readers = old_readers;
        self.serve_all();
        Err(error)
    }
}

/// What arrives over the control socket for others.
pub(crate) struct ControlRequests {
    requests: Requests,
    /// The orders of an operator.
    orders: mpsc::Receiver<OperatorOrdered>,
}

impl ControlRequests {
    /// Passes the orders on, one after another. Returns the receiver of root's requests.
    pub(crate) fn forward_orders(mut self, reader: Recipient<OperatorOrdered>) -> Requests {
        actix_rt::spawn(async move {
            while let Some(ordered) = self.orders.recv().await {
                reader.do_send(ordered);
            }
        });
        self.requests
    }
}

/// Serves the control socket. `peers` asks other nodes what `warren trace` wants to know.
pub(crate) fn serve_control(
    host: &Host,
    paths: &Paths,
    clock: &Clock,
    published: &Published,
    peers: PeerApiClient,
) -> ControlRequests {
    let group = nix::unistd::Group::from_name("warren")
        .ok()
        .flatten()
        .map(|group| group.gid.as_raw());
    let access = control::Access {
        path: paths.control(),
        group,
        rejected_uids: vec![host.openvpn_rights.uid, host.babeld_rights.uid],
    };
    let (sender, requests) = mpsc::channel(MAX_WAITING_REQUESTS);
    let (given, orders) = mpsc::channel(MAX_WAITING_ORDERS);
    let ask: AskNextHop = Arc::new(move |at, to| {
        let peers = peers.clone();
        Box::pin(async move { peers.fetch_next_hop(at, to).await.ok() })
    });
    let senders = (sender, given, ask);
    match control::serve(access, clock.clone(), published.clone(), senders) {
        Ok(server) => drop(actix_rt::spawn(server)),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "the control socket is not served; warren status and the like do not work")
        }
    }
    ControlRequests { requests, orders }
}
