//! A node's telemetry with an exporter on a free port, for tests that scrape it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of tests"
)]
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test takes what it needs"
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

/// Looks ten times a second; gives up after 30 s.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..300 {
        ticks.tick().await;
        if let Some(found) = look().await {
            return found;
        }
    }
    panic!("waited in vain for {what}");
}

pub async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: warren\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

/// A folder that goes with the test.
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

/// An exporter on a free port of loopback with a full snapshot behind it.
pub struct Node {
    pub telemetry: Addr<Telemetry>,
    pub published: Published,
    pub clock: Clock,
    pub port: u16,
}

impl Node {
    pub async fn start() -> Self {
        let clock = Clock::boottime();
        let published = telemetry::publish(identity(clock.now()), &clock);
        let telemetry = Telemetry::new(TelemetryDeps {
            clock: clock.clone(),
            published: published.clone(),
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
        until("the snapshot", async || {
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
