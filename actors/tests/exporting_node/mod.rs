//! A node's telemetry, with an exporter on a free port for tests that scrape it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of tests"
)]
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test uses a part of this"
)]

use crate::snapshot::{identity, links, send_everything};
use actix::{Actor, Addr};
use actors::{
    messages::{ActorRestarted, RoutesRead},
    sinks::{
        control, exporter,
        telemetry::{self, Published, Telemetry, TelemetryDeps},
    },
};
use membership::node_names::NodeNames;
use os::clock::Clock;
use policies::orders::Order;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use wire::control::{
    DECISIONS_PATH, DecisionsDocument, PEERS_PATH, PeersDocument, ROUTES_PATH, RoutesDocument,
    STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument,
};

/// Calls `probe` ten times a second until it returns a value; panics after 30 s.
pub async fn wait_until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..300 {
        ticks.tick().await;
        if let Some(found) = probe().await {
            return found;
        }
    }
    panic!("no {what} within 30 s");
}

pub async fn get(stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> (u16, String) {
    ask(stream, "GET", path).await
}

/// Sends a request; returns status and body.
pub async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: warren\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

/// A temporary folder that is removed at the end of the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("warren-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A telemetry actor with a full snapshot, and an exporter on a free port of loopback.
pub struct Node {
    pub telemetry: Addr<Telemetry>,
    pub published: Published,
    pub clock: Clock,
    pub port: u16,
}

impl Node {
    pub async fn start() -> Self {
        let clock = Clock::boottime();
        let published = telemetry::publish(identity(clock.now()), &NodeNames::default(), &clock);
        let telemetry = Telemetry::new(TelemetryDeps {
            clock: clock.clone(),
            published: published.clone(),
            names: NodeNames::default(),
            pins: Default::default(),
            find: actors::sinks::health::present_findings,
        })
        .start();
        let port = free_port();
        let listen = exporter::Listen::Tcp(([127, 0, 0, 1], port).into());
        actix_rt::spawn(exporter::serve(&listen, clock.clone(), published.clone()).unwrap());
        send_everything(&telemetry, clock.now());
        let node = Self {
            telemetry,
            published,
            clock,
            port,
        };
        node.sample(0);
        node.sample(100_000);
        wait_until("snapshot", async || {
            (node.published.load().routes_installed > 0).then_some(())
        })
        .await;
        node
    }

    pub fn sample(&self, bytes: u64) {
        self.telemetry.do_send(links(self.clock.now(), bytes));
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        get(
            TcpStream::connect(("127.0.0.1", self.port)).await.unwrap(),
            path,
        )
        .await
    }
}
