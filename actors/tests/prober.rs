//! Probes real links between network namespaces, and lets peers die without a word.

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
    sources::sampler::{Links, Sampler, SamplerDeps},
    store::{LostPeers, Store, TunnelTable},
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

const ME: u32 = 1;
const DIES: u32 = 7;
const LIVES: u32 = 8;

/// We in one namespace with `wrn0` to [`DIES`] and `wrn1` to [`LIVES`], both in the other namespace.
fn two_peers() -> (Namespace, Namespace) {
    let (we, they) = (Namespace::new(), Namespace::new());
    for (slot, far, peer) in [("wrn0", "dies", DIES), ("wrn1", "lives", LIVES)] {
        let (ours, theirs) = (link_local(prefix(ME)), link_local(prefix(peer)));
        we.sh(&format!(
            "ip link add {slot} type veth peer name {far} netns {they}
             ip link set {slot} addrgenmode none; ip addr add {ours}/64 dev {slot} nodad; ip link set {slot} up",
            they = they.id
        ));
        they.sh(&format!(
            "ip link set {far} addrgenmode none; ip addr add {theirs}/64 dev {far} nodad; ip link set {far} up"
        ));
    }
    (we, they)
}

/// Not a frame more leaves or enters [`DIES`], and no carrier tells of it.
const DEATH: &str = "nft 'table inet death {
    chain in { type filter hook input priority 0
               iifname dies drop
    }
    chain out { type filter hook output priority 0
                oifname dies drop
    }
}'";

/// Hands on what it is readings.
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

/// What a prober that has just begun does.
struct StartedProber {
    orders: mpsc::UnboundedReceiver<Ordered>,
    readings: mpsc::UnboundedReceiver<ProbesRead>,
    links: mpsc::UnboundedReceiver<LinkOrder>,
    losses: LostPeers,
}

fn prober() -> StartedProber {
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
    let losses = tunnels.borrow().losses.clone();
    let settings = ProberSettings {
        me: prefix(ME),
        network: Network::new("2001:db8:42::/48".parse().unwrap()).unwrap(),
        pace: ProbePace::new(&Parameters::default(), 8),
    };
    let (order, orders) = mpsc::unbounded_channel();
    let (tell, readings) = mpsc::unbounded_channel();
    let (link, links) = mpsc::unbounded_channel();
    let (order, tell) = (
        FakeSink(order).start().recipient(),
        FakeSink(tell).start().recipient(),
    );
    let store = Store {
        tunnels,
        ..Store::new(clock, settings.me)
    };
    let prober = Prober::new(ProberDeps {
        settings,
        store: store.clone(),
        links: link_orders::Links::to(link),
        orders: order,
        readers: vec![tell],
    });
    let prober = prober.start();
    Sampler::new(SamplerDeps {
        links: ProcLinks,
        store,
        readers: vec![prober.recipient()],
    })
    .start();
    StartedProber {
        orders,
        readings,
        links,
        losses,
    }
}

/// Waits for the order and prints how long it took.
async fn check(orders: &mut mpsc::UnboundedReceiver<Ordered>, within: Duration) {
    let from = os::clock::runtime_now();
    let ordered = timeout(within, orders.recv()).await;
    let took = from.elapsed();
    let close = Order::Close {
        slot: Slot::Dialling(0),
        reason: CloseReason::PeerDead,
    };
    assert_eq!(
        ordered.ok().flatten().map(|ordered| ordered.order),
        Some(close),
        "after {took:?}"
    );
    eprintln!("ordered after {took:?}");
}

/// Waits until both tunnels have a round trip of less than 250 ms.
async fn until_answered(readings: &mut mpsc::UnboundedReceiver<ProbesRead>) {
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

/// Sends payload through `wrn0`, a packet each 20 ms, as long as it is not dropped.
fn traffic() -> tokio::task::JoinHandle<()> {
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
fn a_silent_death_under_traffic_is_detected_within_two_seconds_and_reported_to_neighbours() {
    if !netns::can() {
        return;
    }
    let (we, they) = two_peers();
    let suspicions = they.on(|| UdpSocket::bind("[::]:327").unwrap());
    we.actors(move || async move {
        let StartedProber {
            mut orders,
            mut readings,
            ..
        } = prober();
        until_answered(&mut readings).await;
        let traffic = traffic();
        for _ in 0..3 {
            readings.recv().await.unwrap();
        }
        they.sh(DEATH);
        check(&mut orders, Duration::from_secs(2)).await;
        traffic.abort();
        // Two seconds: all copies are under way.
        readings.recv().await.unwrap();
        readings.recv().await.unwrap();
        assert_eq!(they.on(move || count_suspicions(&suspicions)), 3);
    });
}

/// How many copies of one suspicion of [`DIES`] wait unread.
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
    if !netns::can() {
        return;
    }
    let (we, they) = two_peers();
    let suspicions = they.on(|| UdpSocket::bind("[::]:327").unwrap());
    we.actors(move || async move {
        let StartedProber {
            mut readings,
            losses,
            orders: _orders,
            ..
        } = prober();
        until_answered(&mut readings).await;
        losses.note(prefix(DIES));
        readings.recv().await.unwrap();
        losses.note(prefix(DIES));
        readings.recv().await.unwrap();
        assert_eq!(they.on(move || count_suspicions(&suspicions)), 3);
    });
}

#[test]
fn a_suspicion_closes_an_idle_tunnel_to_a_dead_peer_soon_and_keeps_a_living_one() {
    if !netns::can() {
        return;
    }
    let (we, they) = two_peers();
    we.actors(move || async move {
        let StartedProber {
            mut orders,
            mut readings,
            ..
        } = prober();
        until_answered(&mut readings).await;
        let they = Rc::new(they);
        let send_suspicion = |peer: u32| {
            they.on(move || {
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
        they.sh(DEATH);
        let silent = timeout(Duration::from_millis(1500), orders.recv()).await;
        assert!(silent.is_err(), "{silent:?}");
        send_suspicion(DIES);
        check(&mut orders, Duration::from_secs(2)).await;
    });
}

#[test]
fn only_a_draining_peer_gets_a_high_cost_for_its_tunnel() {
    if !netns::can() {
        return;
    }
    let (we, they) = two_peers();
    we.actors(move || async move {
        let StartedProber {
            mut links,
            mut readings,
            orders: _orders,
            ..
        } = prober();
        until_answered(&mut readings).await;
        they.on(|| {
            let lives = nix::net::if_::if_nametoindex("lives").unwrap();
            let to = SocketAddrV6::new(link_local(prefix(ME)), PORT, 0, lives);
            let socket = UdpSocket::bind("[::]:0").unwrap();
            socket.send_to(b"wrnD\x02\0\0\0", to).unwrap();
            socket.send_to(&DRAIN_NOTICE, to).unwrap();
        });
        let ordered = timeout(Duration::from_secs(2), links.recv()).await.unwrap();
        assert_eq!(
            ordered,
            Some(LinkOrder::RaiseCost(Slot::Dialling(1), prefix(LIVES)))
        );
        assert!(links.try_recv().is_err());
    });
}
