//! A real registry on loopback, whose clock the test sets, and a plain TLS client for it.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod kept_connection;
pub mod own_cas;
mod registry_thread;
mod shortcuts;

pub use kept_connection::KeptConnection;
use registry_thread::{FixedClock, run, wait_until_closed};
pub use shortcuts::*;

use rcgen::{CertificateParams, KeyPair};
use registry::{
    clock::UnixSeconds,
    http::{
        admin::{self, AdminError, InviteRequest, InviteResponse},
        server,
    },
    init::{self, NewNetwork},
    pki::credentials::OwnCa,
    service::Rollout,
    settings::RegistryPaths,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};
use wire::{
    invitation::{Invitation, token_text},
    registry::{Announced, Announcement, Claim, Claimed, VERSION},
};

/// The time at which each test begins.
pub const START: UnixSeconds = UnixSeconds(1_795_000_000);

/// Lifetime of certificates in these registries, in seconds: 30 days.
pub const LIFE_S: i64 = 30 * 86_400;

/// Grace period of these registries, in seconds: 10 days.
pub const GRACE_S: i64 = 10 * 86_400;

/// Lifetime of announcements in these registries, in seconds.
pub const TTL_S: i64 = 900;

/// Differences from a registry that an operator runs.
#[derive(Clone, Copy)]
struct Options {
    no_limits: bool,
    max_per_network: usize,
    trusted_proxy: Option<ipnet::IpNet>,
    offline_root: bool,
}

const DEFAULTS: Options = Options {
    no_limits: false,
    max_per_network: server::MAX_PER_NETWORK,
    trusted_proxy: None,
    offline_root: false,
};

/// A registry that runs in a thread of its own, with its files in a folder of its own.
pub struct Registry {
    pub paths: RegistryPaths,
    now_s: Arc<AtomicI64>,
    pub address: SocketAddr,
    /// Where the metrics are served.
    pub metrics: SocketAddr,
    options: Options,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

/// A node's certificate and key.
pub struct Identity {
    pub claimed: Claimed,
    pub key: KeyPair,
}

impl Registry {
    pub fn start() -> Self {
        Self::make(START, DEFAULTS, |_| {})
    }

    /// Starts a registry whose CA has a root; see [`Self::offline_root`].
    pub fn with_offline_root() -> Self {
        Self::make(
            START,
            Options {
                offline_root: true,
                ..DEFAULTS
            },
            |_| {},
        )
    }

    /// Returns the folder of the root's key.
    pub fn offline_root(&self) -> std::path::PathBuf {
        self.folder.path().join("offline")
    }

    /// Returns the certificate (PEM) that nodes trust.
    pub fn trusted(&self) -> String {
        let root = self.paths.config_dir.join("root.crt");
        read(&if root.exists() {
            root
        } else {
            self.paths.config_dir.join("ca.crt")
        })
    }

    /// Starts a registry with this limit of connections from one address.
    pub fn with_max_connections(max_per_network: usize) -> Self {
        Self::make(
            START,
            Options {
                max_per_network,
                ..DEFAULTS
            },
            |_| {},
        )
    }

    /// Starts a registry that trusts these proxies, with this limit of connections from one address.
    pub fn with_trusted_proxy(proxy: &str, max_per_network: usize) -> Self {
        Self::make(
            START,
            Options {
                trusted_proxy: Some(proxy.parse().unwrap()),
                max_per_network,
                ..DEFAULTS
            },
            |_| {},
        )
    }

    /// Starts a registry whose folder for the database is prepared first.
    pub fn with_state_dir(prepare: impl FnOnce(&std::path::Path)) -> Self {
        Self::make(START, DEFAULTS, prepare)
    }

    /// Starts a registry without limits of claims and requests, at this time.
    pub fn without_limits(now: UnixSeconds) -> Self {
        Self::make(
            now,
            Options {
                no_limits: true,
                ..DEFAULTS
            },
            |_| {},
        )
    }

    /// Starts a registry with this CA at this time; returns the reason if its creation is rejected.
    pub fn with_own_ca(start: UnixSeconds, own_ca: OwnCa) -> Result<Self, String> {
        Self::try_make(start, DEFAULTS, Some(own_ca), |_| {})
    }

    fn make(start: UnixSeconds, options: Options, prepare: impl FnOnce(&std::path::Path)) -> Self {
        Self::try_make(start, options, None, prepare).unwrap()
    }

    fn try_make(
        start: UnixSeconds,
        options: Options,
        own_ca: Option<OwnCa>,
        prepare: impl FnOnce(&std::path::Path),
    ) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let paths = RegistryPaths {
            config_dir: at("etc"),
            state_dir: at("state"),
            admin_socket: at("run/admin.sock"),
        };
        fs::create_dir(&paths.state_dir).unwrap();
        prepare(&paths.state_dir);
        let new = NewNetwork {
            network: own_ca
                .is_none()
                .then(|| "fd12:3456:789a::/48".parse().unwrap()),
            address: wire::invitation::RegistryAddress::parse("127.0.0.1", 9443).unwrap(),
            prefix_length: 16,
            parameters: policies::parameters::Parameters::default(),
            certificate_life_s: LIFE_S,
            announcement_ttl_s: TTL_S,
            grace_s: GRACE_S,
            private_endpoints: false,
            offline_root: options.offline_root.then(|| at("offline")),
            own_ca,
        };
        if let Err(error) = init::init(&paths, &new, start) {
            let files = fs::read_dir(&paths.config_dir)
                .into_iter()
                .flatten()
                .count();
            assert_eq!(files, 0, "a rejected registry left files");
            return Err(wire::errors::Chain(&error).to_string());
        }
        let now_s = Arc::new(AtomicI64::new(start.0));
        let ([address, metrics], stop, thread) = run(&paths, &now_s, options).unwrap();
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self {
            paths,
            now_s,
            address,
            metrics,
            options,
            stop,
            thread,
            folder,
        })
    }

    /// Stops the registry and starts it again on the same files.
    pub fn restart(&mut self) {
        self.try_restart().unwrap();
    }

    /// Restarts like [`Self::restart`]; returns the reason if the registry does not start.
    pub fn try_restart(&mut self) -> Result<(), String> {
        self.stop_thread();
        let (addresses, stop, thread) = run(&self.paths, &self.now_s, self.options)?;
        [self.address, self.metrics] = addresses;
        (self.stop, self.thread) = (Some(stop), Some(thread));
        Ok(())
    }

    /// Stops the registry, and waits until its database is closed.
    pub fn stop(&mut self) {
        self.stop_thread();
        wait_until_closed(&self.paths);
    }

    fn stop_thread(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Returns the time of the registry's clock.
    pub fn now(&self) -> UnixSeconds {
        UnixSeconds(self.now_s.load(Ordering::SeqCst))
    }

    /// Moves the registry's clock forward.
    pub fn pass(&self, seconds: i64) {
        self.now_s.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Makes one call; returns the status and the body.
    pub fn call(
        &self,
        identity: Option<&Identity>,
        method: &str,
        call: &str,
        body: &str,
    ) -> (u16, String) {
        self.try_call(identity, method, call, "", body).unwrap()
    }

    /// Makes a call like [`Self::call`] with more headers; returns `None` if the connection closes without an answer.
    pub fn try_call(
        &self,
        identity: Option<&Identity>,
        method: &str,
        call: &str,
        headers: &str,
        body: &str,
    ) -> Option<(u16, String)> {
        let mut tls = self.connect(identity, &self.trusted());
        let length = body.len();
        let head =
            format!("{method} {call} HTTP/1.1\r\nhost: registry\r\nconnection: close\r\n{headers}");
        tls.write_all(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes())
            .ok()?;
        let mut answer = Vec::new();
        // The registry may close the connection without TLS's close_notify; the bytes sent before count.
        let _ = tls.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        ))
    }

    /// Connects as a client that trusts `ca` alone.
    pub fn connect(
        &self,
        identity: Option<&Identity>,
        ca: &str,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        self.connect_on(TcpStream::connect(self.address).unwrap(), identity, ca)
    }

    /// Connects like [`Self::connect`], over an existing TCP connection.
    pub fn connect_on(
        &self,
        tcp: TcpStream,
        identity: Option<&Identity>,
        ca: &str,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let certificates = identity.claimed.certificate.as_bytes();
                let chain = CertificateDer::pem_slice_iter(certificates)
                    .map(Result::unwrap)
                    .collect();
                let key =
                    PrivateKeyDer::from_pem_slice(identity.key.serialize_pem().as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        // The client judges certificates by the registry's clock, not by that of the machine.
        config.time_provider = Arc::new(FixedClock(self.now()));
        let session =
            ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        StreamOwned::new(session, tcp)
    }

    /// Returns a connection for many calls.
    pub fn keep_connection<'a>(&'a self, identity: Option<&'a Identity>) -> KeptConnection<'a> {
        KeptConnection::new(self, identity)
    }

    /// Makes a call like [`Self::call`], which must succeed, and parses the answer.
    #[track_caller]
    pub fn ask<T: serde::de::DeserializeOwned>(
        &self,
        identity: &Identity,
        method: &str,
        call: &str,
        document: &impl serde::Serialize,
    ) -> T {
        let (status, body) = self.call(
            Some(identity),
            method,
            call,
            &serde_json::to_string(document).unwrap(),
        );
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop_thread();
    }
}
