//! Tests the prober on real links between network namespaces, with peers that fall silent.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test"
)]

mod netns;
mod proc_links;

use proc_links::ProcLinks;

use actix::{Actor, Context, Handler};
use actors::{
    deciders::prober::{Prober, ProberDeps, ProberSettings},
    effects::link_orders::{self, LinkOrder},
    messages::{Ordered, ProbesRead},
    sources::sampler::{LinkCounterReader, Sampler, SamplerDeps},
    store::{Loss, LostPeers, Store, TunnelTable},
};
use netns::Namespace;
use os::clock::Clock;
use policies::{
    names::{Prefix, Slot},
    observation::{LinkCounters, Phase, TunnelReading},
    orders::{CloseReason, Order},
    parameters::Parameters,
    probe::ProbePace,
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    convert::Infallible,
    net::{SocketAddrV6, UdpSocket},
    rc::Rc,
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use wire::{
    drain_notice::DRAIN_NOTICE,
    overlay::{Network, link_local},
    suspicion::{PORT, Suspicion},
};

fn prefix(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

fn network() -> Network {
    Network::new("2001:db8:42::/48".parse().unwrap()).unwrap()
}

const ME: u32 = 1;
const DIES: u32 = 7;
const LIVES: u32 = 8;

/// Creates two namespaces: one for this node, with `wrn0` to [`DIES`] and `wrn1` to [`LIVES`], and one for both peers.
fn two_peers() -> (Namespace, Namespace) {
    let (own, peers) = (Namespace::new(), Namespace::new());
    for (slot, far, peer) in [("wrn0", "dies", DIES), ("wrn1", "lives", LIVES)] {
        let (ours, theirs) = (link_local(prefix(ME)), link_local(prefix(peer)));
        own.sh(&format!(
            "ip link add {slot} type veth peer name {far} netns {peers}
             ip link set {slot} addrgenmode none; ip addr add {ours}/64 dev {slot} nodad; ip link set {slot} up",
            peers = peers.id
        ));
        peers.sh(&format!(
            "ip link set {far} addrgenmode none; ip addr add {theirs}/64 dev {far} nodad; ip link set {far} up"
        ));
    }
    (own, peers)
}

/// The command that drops all frames from and to [`DIES`]; the carrier of the link stays up.
const DROP_FRAMES: &str = "nft 'table inet death {
    chain in { type filter hook input priority 0
               iifname dies drop
    }
    chain out { type filter hook output priority 0
                oifname dies drop
    }
}'";

/// Forwards the messages that it gets to a channel.
struct FakeSink<M>(mpsc::UnboundedSender<M>);

impl<M: Unpin + 'static> Actor for FakeSink<M> {
    type Context = Context<Self>;
}

impl<M: actix::Message<Result = ()> + Unpin + 'static> Handler<M> for FakeSink<M> {
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Self::Context) {
        let _ = self.0.send(message);
    }
}

/// The messages of a running prober, and the lost peers that it reads.
struct RunningProber {
    orders: mpsc::UnboundedReceiver<Ordered>,
    readings: mpsc::UnboundedReceiver<ProbesRead>,
    links: mpsc::UnboundedReceiver<LinkOrder>,
    lost_peers: LostPeers,
}

/// Starts a prober and a sampler, with an established tunnel to each peer.
fn start_prober() -> RunningProber {
    let clock = Clock::boottime();
    let now = clock.now();
    let tunnel = |(slot, peer)| {
        let (slot, peer, since) = (Slot::Dialling(slot), prefix(peer), now);
        (
            slot,
            TunnelReading {
                slot,
                peer,
                phase: Phase::Up,
                since,
                up_since: Some(now),
                endpoint: None,
            },
        )
    };
    let tunnels = [(0, DIES), (1, LIVES)].map(tunnel).into();
    let tunnels = Rc::new(RefCell::new(TunnelTable {
        tunnels,
        ..TunnelTable::default()
    }));
    let lost_peers = tunnels.borrow().lost_peers.clone();
    let settings = ProberSettings {
        me: prefix(ME),
        network: network(),
        pace: ProbePace::new(&Parameters::default(), 8),
        is_metered: false,
        openvpn_uid: 65_534,
    };
    let (order, orders) = mpsc::unbounded_channel();
    let (report, readings) = mpsc::unbounded_channel();
    let (link, links) = mpsc::unbounded_channel();
    let (order, report) = (
        FakeSink(order).start().recipient(),
        FakeSink(report).start().recipient(),
    );
    let store = Store {
        tunnels,
        ..Store::new(clock, settings.me)
    };
    let prober = Prober::new(ProberDeps {
        settings,
        store: store.clone(),
        links: link_orders::LinkOrderQueue::to(link),
        orders: order,
        readers: vec![report],
    });
    let prober = prober.start();
    Sampler::new(SamplerDeps {
        links: ProcLinks,
        store,
        readers: vec![prober.recipient()],
    })
    .start();
    RunningProber {
        orders,
        readings,
        links,
        lost_peers,
    }
}

/// Waits for the order to close the tunnel to the dead peer, and prints how long it took.
async fn check_closed(orders: &mut mpsc::UnboundedReceiver<Ordered>, within: Duration) {
    let start = os::clock::runtime_now();
    let ordered = timeout(within, orders.recv()).await;
    let elapsed = start.elapsed();
    let close = Order::Close {
        slot: Slot::Dialling(0),
        reason: CloseReason::PeerDead,
    };
    assert_eq!(
        ordered.ok().flatten().map(|ordered| ordered.order),
        Some(close),
        "after {elapsed:?}"
    );
    eprintln!("ordered after {elapsed:?}");
}

/// Waits until both tunnels have a round trip, which must be less than 250 ms.
async fn wait_for_rtts(readings: &mut mpsc::UnboundedReceiver<ProbesRead>) {
    loop {
        let read = timeout(Duration::from_secs(5), readings.recv())
            .await
            .unwrap()
            .unwrap();
        if read.probes.len() == 2 && read.probes.iter().all(|probe| probe.rtt.is_some()) {
            assert!(
                read.probes
                    .iter()
                    .all(|probe| probe.rtt < Some(Duration::from_millis(250))),
                "{read:?}"
            );
            return;
        }
    }
}

/// Sends a packet through `wrn0` every 20 ms until the task is aborted.
fn start_traffic() -> tokio::task::JoinHandle<()> {
    let index = nix::net::if_::if_nametoindex("wrn0").unwrap();
    let socket = UdpSocket::bind("[::]:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    actix::spawn(async move {
        let to = SocketAddrV6::new(link_local(prefix(DIES)), 9, 0, index);
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        loop {
            interval.tick().await;
            let _ = socket.send_to(b"payload", to);
        }
    })
}

#[test]
fn a_peer_that_falls_silent_under_traffic_is_detected_within_two_seconds_and_reported_to_neighbours()
 {
    if !netns::can_create() {
        return;
    }
    let (own, peers) = two_peers();
    let suspicions = peers.run(|| UdpSocket::bind("[::]:327").unwrap());
    own.run_actors(move || async move {
        let RunningProber {
            mut orders,
            mut readings,
            ..
        } = start_prober();
        wait_for_rtts(&mut readings).await;
        let traffic = start_traffic();
        for _ in 0..3 {
            readings.recv().await.unwrap();
        }
        peers.sh(DROP_FRAMES);
        check_closed(&mut orders, Duration::from_secs(2)).await;
        traffic.abort();
        // After two more readings, two seconds later, all copies have been sent.
        readings.recv().await.unwrap();
        readings.recv().await.unwrap();
        assert_eq!(peers.run(move || count_suspicions(&suspicions)), 3);
    });
}

/// Counts the unread copies of the suspicion of [`DIES`], which must be equal.
fn count_suspicions(suspicions: &UdpSocket) -> usize {
    suspicions
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut bytes = [0; 100];
    let mut copies = Vec::new();
    while let Ok(length) = suspicions.recv(&mut bytes) {
        copies.push(Suspicion::decode(&bytes[..length]).unwrap());
    }
    assert!(
        copies
            .iter()
            .all(|copy| copy.peer == prefix(DIES) && *copy == copies[0]),
        "{copies:?}"
    );
    copies.len()
}

#[test]
fn a_lost_tunnel_is_reported_to_neighbours() {
    if !netns::can_create() {
        return;
    }
    let (own, peers) = two_peers();
    let suspicions = peers.run(|| UdpSocket::bind("[::]:327").unwrap());
    own.run_actors(move || async move {
        let RunningProber {
            mut readings,
            lost_peers,
            orders: _orders,
            ..
        } = start_prober();
        wait_for_rtts(&mut readings).await;
        lost_peers.note(prefix(DIES), Loss::Silent);
        readings.recv().await.unwrap();
        lost_peers.note(prefix(DIES), Loss::Silent);
        readings.recv().await.unwrap();
        assert_eq!(peers.run(move || count_suspicions(&suspicions)), 3);
    });
}

#[test]
fn a_peer_whose_tunnel_closed_unannounced_is_asked_by_another_route_to_probe_it() {
    if !netns::can_create() {
        return;
    }
    let (own, peers) = two_peers();
    let address = network().node_address(prefix(DIES));
    let gateway = link_local(prefix(LIVES));
    own.sh(&format!(
        "ip -6 route add {address}/128 via {gateway} dev wrn1"
    ));
    peers.sh(&format!(
        "ip link set lo up; ip addr add {address}/128 dev lo nodad"
    ));
    let notices = peers.run(move || UdpSocket::bind((address, PORT)).unwrap());
    own.run_actors(move || async move {
        let RunningProber {
            mut readings,
            lost_peers,
            orders: _orders,
            ..
        } = start_prober();
        wait_for_rtts(&mut readings).await;
        lost_peers.note(prefix(DIES), Loss::Unannounced);
        let mut received = 0;
        for _ in 0..4 {
            readings.recv().await.unwrap();
            let notices = notices.try_clone().unwrap();
            received += peers.run(move || count_suspicions(&notices));
        }
        assert_eq!(received, 4);
    });
}

#[test]
fn a_suspicion_closes_an_idle_tunnel_to_a_dead_peer_within_two_seconds_but_not_one_to_a_live_peer()
{
    if !netns::can_create() {
        return;
    }
    let (own, peers) = two_peers();
    own.run_actors(move || async move {
        let RunningProber {
            mut orders,
            mut readings,
            ..
        } = start_prober();
        wait_for_rtts(&mut readings).await;
        let peers = Rc::new(peers);
        let send_suspicion = |peer: u32| {
            peers.run(move || {
                let index = nix::net::if_::if_nametoindex("lives").unwrap();
                let to = SocketAddrV6::new(link_local(prefix(ME)), PORT, 0, index);
                let suspicion = Suspicion {
                    peer: prefix(peer),
                    nonce: 1,
                }
                .encode();
                UdpSocket::bind("[::]:0")
                    .unwrap()
                    .send_to(&suspicion, to)
                    .unwrap();
            });
        };
        for _ in 0..3 {
            readings.recv().await.unwrap();
        }
        send_suspicion(DIES);
        send_suspicion(LIVES);
        let early = timeout(Duration::from_secs(3), orders.recv()).await;
        assert!(early.is_err(), "{early:?}");
        peers.sh(DROP_FRAMES);
        let silent = timeout(Duration::from_millis(1500), orders.recv()).await;
        assert!(silent.is_err(), "{silent:?}");
        send_suspicion(DIES);
        check_closed(&mut orders, Duration::from_secs(2)).await;
    });
}

#[test]
fn only_a_valid_drain_notice_raises_the_cost_of_a_tunnel() {
    if !netns::can_create() {
        return;
    }
    let (own, peers) = two_peers();
    own.run_actors(move || async move {
        let RunningProber {
            mut links,
            mut readings,
            orders: _orders,
            ..
        } = start_prober();
        wait_for_rtts(&mut readings).await;
        peers.run(|| {
            let lives = nix::net::if_::if_nametoindex("lives").unwrap();
            let to = SocketAddrV6::new(link_local(prefix(ME)), PORT, 0, lives);
            let socket = UdpSocket::bind("[::]:0").unwrap();
            socket.send_to(b"wrnD\x02\0\0\0", to).unwrap();
            socket.send_to(&DRAIN_NOTICE, to).unwrap();
        });
        let ordered = timeout(Duration::from_secs(2), links.recv()).await.unwrap();
        let raise = LinkOrder::RaiseCost(Slot::Dialling(1), prefix(LIVES));
        assert_eq!(ordered, Some(raise));
        assert!(links.try_recv().is_err());
    });
}
