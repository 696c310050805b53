//! Serves metrics and the control socket. If that fails at the start, the node runs without them, and the error is logged.

use crate::host::Host;
use actix_web::dev::ServerHandle;
use actors::sinks::{
    control::{self, ReloadRequest},
    exporter::{self, ExporterError, Listen},
    telemetry::Published,
};
use config::{Metrics, paths::Paths};
use os::clock::Clock;
use tokio::sync::mpsc;
use wire::errors::Chain;

/// Requests to reload the configuration that wait while one is carried out.
const MAX_WAITING_RELOADS: usize = 4;

/// The server of metrics, whose address can be changed.
pub(crate) struct MetricsServer {
    clock: Clock,
    published: Published,
    address: Metrics,
    /// The running server; `None` if metrics are turned off or could not be served.
    handle: Option<ServerHandle>,
}

impl MetricsServer {
    /// Serves metrics at this address.
    pub(crate) fn start(address: &Metrics, clock: &Clock, published: &Published) -> Self {
        let mut server = Self {
            clock: clock.clone(),
            published: published.clone(),
            address: address.clone(),
            handle: None,
        };
        if let Err(error) = server.serve() {
            tracing::error!(error = %Chain(&error), "metrics are not served");
        }
        server
    }

    fn serve(&mut self) -> Result<(), ExporterError> {
        let listen = match &self.address {
            Metrics::Tcp(address) => Listen::Tcp(*address),
            Metrics::Unix(path) => Listen::Unix(path.clone()),
            Metrics::Off => return Ok(()),
        };
        let server = exporter::serve(&listen, self.clock.clone(), self.published.clone())?;
        self.handle = Some(server.handle());
        actix_rt::spawn(server);
        Ok(())
    }

    /// Serves metrics at another address. The old server is stopped first, because the addresses may overlap.
    ///
    /// # Errors
    /// The new address cannot be used; metrics are served at the old one again.
    pub(crate) async fn move_to(&mut self, address: &Metrics) -> Result<(), ExporterError> {
        if self.address == *address {
            return Ok(());
        }
        if let Some(handle) = self.handle.take() {
            handle.stop(false).await;
        }
        let old = std::mem::replace(&mut self.address, address.clone());
        let served = self.serve();
        if served.is_err() {
            self.address = old;
            if let Err(error) = self.serve() {
                tracing::error!(error = %Chain(&error), "metrics are no longer served");
            }
        }
        served
    }
}

/// Serves the control socket. Returns the receiver of the requests to reload the configuration.
pub(crate) fn serve_control(
    host: &Host,
    paths: &Paths,
    clock: &Clock,
    published: &Published,
) -> mpsc::Receiver<ReloadRequest> {
    let group = nix::unistd::Group::from_name("warren")
        .ok()
        .flatten()
        .map(|group| group.gid.as_raw());
    let access = control::Access {
        path: paths.control(),
        group,
        rejected_uids: vec![host.openvpn_rights.uid, host.babeld_rights.uid],
    };
    let (requests, reloads) = mpsc::channel(MAX_WAITING_RELOADS);
    match control::serve(access, clock.clone(), published.clone(), requests) {
        Ok(server) => drop(actix_rt::spawn(server)),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "the control socket is not served; warren status and the like do not work")
        }
    }
    reloads
}
