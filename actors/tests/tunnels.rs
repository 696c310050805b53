//! Tests of the tunnels actor with real OpenVPN clients that cannot connect.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod ca;
mod netns;

use actix::{Actor, Addr, Context, Handler};
use actors::{
    effects::{
        link_orders::LinkOrderQueue,
        tunnels::{Connections, Facts, OpenvpnFiles, TunnelSettings, Tunnels, TunnelsDeps},
    },
    messages::{
        Decided, KeyShared, Ordered, TunnelCameUp, TunnelClosed, TunnelOpened, WaitOverdue,
    },
    store::Store,
};
use ca::{Ca, network, prefix};
use membership::peer_api::{PeerApiClient, PeerApiSettings};
use netns::Namespace;
use os::{
    clock::Clock,
    process::{Capabilities, ChildEvents, Rights},
};
use policies::{
    names::{Endpoint, Slot},
    observation::{Phase, TunnelIdentity, TunnelReading},
    orders::{CloseReason, OpenReason, Order},
    units::Uptime,
};
use std::{path::Path, time::Duration};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{sleep, timeout},
};

const ME: u32 = 1;
const PEER: u32 = 2;
const SLOT: Slot = Slot::Dialling(0);
/// A user id that no other process of this machine has.
const CHILD_UID: u32 = 61_199;

/// Receives all facts, and forwards closed tunnels.
struct FakeTelemetry(UnboundedSender<TunnelClosed>);

impl Actor for FakeTelemetry {
    type Context = Context<Self>;
}

impl Handler<TunnelClosed> for FakeTelemetry {
    type Result = ();

    fn handle(&mut self, closed: TunnelClosed, _: &mut Self::Context) {
        let _ = self.0.send(closed);
    }
}

macro_rules! ignore {
    ($($message:ty),*) => {$(
        impl Handler<$message> for FakeTelemetry {
            type Result = ();

            fn handle(&mut self, _: $message, _: &mut Self::Context) {}
        }
    )*};
}

ignore!(TunnelOpened, TunnelCameUp, Decided, WaitOverdue, KeyShared);

/// A tunnels actor without servers, whose OpenVPN finds none of its files and exits at once.
struct Running {
    tunnels: Addr<Tunnels>,
    store: Store,
    connections: Connections,
    closed: UnboundedReceiver<TunnelClosed>,
}

impl Running {
    fn start(folder: &Path) -> Self {
        let store = Store::new(Clock::boottime(), prefix(ME));
        store.tunnels.borrow_mut().dialling_slots = vec![SLOT];
        let (closed_sender, closed) = unbounded_channel();
        let telemetry = FakeTelemetry(closed_sender).start();
        let (links, _) = unbounded_channel();
        let connections = Connections::default();
        let peer_api = PeerApiSettings {
            me: prefix(ME),
            network: network(),
            port: 1,
            names: membership::node_names::NodeNames::default(),
        };
        let file = |name: &str| folder.join(name);
        let tunnels = Tunnels::new(TunnelsDeps {
            settings: TunnelSettings {
                me: prefix(ME),
                network: network(),
                openvpn: "/usr/sbin/openvpn".into(),
                rights: Rights {
                    uid: CHILD_UID,
                    gid: CHILD_UID,
                    capabilities: Capabilities::Network,
                    nice: 0,
                },
                files: OpenvpnFiles {
                    ca: file("ca"),
                    certificate: file("certificate"),
                    key: file("key"),
                    tls_crypt: file("tls-crypt"),
                    tls_crypt_other: file("tls-crypt-other"),
                    revoked: file("revoked"),
                    tun_node: None,
                    ipv6: true,
                },
                servers: Vec::new(),
                max_dialling_slots: 1,
                max_accepted: 0,
                children: file("child"),
            },
            store: store.clone(),
            connections: connections.clone(),
            links: LinkOrderQueue::to(links),
            facts: Facts {
                opened: telemetry.clone().recipient(),
                came_up: telemetry.clone().recipient(),
                closed: telemetry.clone().recipient(),
                decided: telemetry.clone().recipient(),
                overdue: telemetry.clone().recipient(),
                key_shared: telemetry.recipient(),
            },
            events: ChildEvents::default(),
            peers: PeerApiClient::new(&peer_api, &Ca::new().node_credentials(ME)).unwrap(),
            seed: 1,
        });
        Self {
            tunnels: tunnels.start(),
            store,
            connections,
            closed,
        }
    }

    fn order(&self, order: Order) {
        self.tunnels.do_send(Ordered { order, about: None });
    }

    /// Orders the close of this tunnel.
    fn close(&self, about: TunnelIdentity) {
        let (slot, reason) = (SLOT, CloseReason::PeerDead);
        self.tunnels.do_send(Ordered {
            order: Order::Close { slot, reason },
            about: Some(about),
        });
    }

    fn dial(&self, endpoints: usize) {
        let endpoint: Endpoint = "udp:192.0.2.1:1194".parse().unwrap();
        self.order(Order::Open {
            slot: SLOT,
            peer: prefix(PEER),
            endpoints: vec![endpoint; endpoints],
            reason: OpenReason::Bootstrap,
        });
    }

    /// Waits until OpenVPN was started that often and does not run.
    async fn wait_until_down(&self, starts: u32) {
        let is_down = || {
            let readings = self.connections.readings();
            let reading = readings.first();
            reading.is_some_and(|reading| reading.starts == starts && reading.pid.is_none())
        };
        let wait = async {
            while !is_down() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), wait).await.unwrap();
    }

    fn phase(&self) -> Option<Phase> {
        let table = self.store.tunnels.borrow();
        table.tunnels.get(&SLOT).map(|tunnel| tunnel.phase)
    }

    async fn next_closed(&mut self, within: Duration) -> CloseReason {
        let closed = timeout(within, self.closed.recv()).await;
        closed.unwrap().unwrap().reason
    }
}

fn check<F: Future<Output = ()>>(test: impl FnOnce(Running) -> F + Send + 'static) {
    if !netns::can_create() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    std::fs::create_dir(path.join("child")).unwrap();
    Namespace::new().run_actors(move || async move { test(Running::start(&path)).await });
}

#[test]
fn a_dial_that_is_closed_between_two_attempts_is_closed_at_once() {
    check(|mut running| async move {
        running.dial(16);
        // OpenVPN exits within milliseconds. After its third exit the next attempt follows no sooner than 2 s later.
        running.wait_until_down(3).await;
        assert_eq!(running.phase(), Some(Phase::Connecting));
        running.order(Order::Close {
            slot: SLOT,
            reason: CloseReason::Duplicate,
        });
        let reason = running.next_closed(Duration::from_secs(1)).await;
        assert_eq!(reason, CloseReason::Duplicate);
        assert_eq!(running.phase(), None);
    });
}

#[test]
fn a_dial_whose_endpoints_all_fail_is_closed_as_failed_and_counted() {
    check(|mut running| async move {
        running.dial(2);
        let reason = running.next_closed(Duration::from_secs(10)).await;
        assert_eq!(reason, CloseReason::DialFailed);
        let history = running
            .store
            .tunnels
            .borrow()
            .dials
            .get(&prefix(PEER))
            .copied();
        assert_eq!(history.unwrap().failures, 1);
    });
}

#[test]
fn an_order_about_an_earlier_tunnel_does_not_close_the_one_that_has_its_slot_now() {
    check(|mut running| async move {
        let identity = |second| TunnelIdentity {
            peer: prefix(PEER),
            up_since: Some(Uptime::from_secs(second)),
        };
        let tunnel = TunnelReading {
            slot: SLOT,
            peer: prefix(PEER),
            phase: Phase::Up,
            since: Uptime::from_secs(2),
            up_since: identity(2).up_since,
            endpoint: None,
        };
        let tunnels = &running.store.tunnels;
        tunnels.borrow_mut().tunnels.insert(SLOT, tunnel);
        running.close(identity(1));
        let still = timeout(Duration::from_millis(300), running.closed.recv()).await;
        assert!(still.is_err(), "{still:?}");
        running.close(identity(2));
        let reason = running.next_closed(Duration::from_secs(1)).await;
        assert_eq!(reason, CloseReason::PeerDead);
    });
}

#[test]
fn a_tunnel_without_a_process_is_closed_by_an_order() {
    check(|mut running| async move {
        let tunnel = TunnelReading {
            slot: SLOT,
            peer: prefix(PEER),
            phase: Phase::Closing,
            since: Uptime::default(),
            up_since: None,
            endpoint: None,
        };
        let tunnels = &running.store.tunnels;
        tunnels.borrow_mut().tunnels.insert(SLOT, tunnel);
        running.order(Order::Close {
            slot: SLOT,
            reason: CloseReason::PeerDead,
        });
        let reason = running.next_closed(Duration::from_secs(1)).await;
        assert_eq!(reason, CloseReason::PeerDead);
    });
}
