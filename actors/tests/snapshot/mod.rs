//! The messages of a made-up node to telemetry: a fact or a reading of every kind.

#![allow(dead_code, reason = "each test uses a part of this")]

pub mod many_tunnels;

use actix::Addr;
use actors::{
    messages::{
        ActorRestarted, CandidateProbed, CredentialsChanged, Decided, DocumentsChanged, Lease,
        LeasesRead, LinksSampled, MissingLease, MissingReason, OwnCertificate, PeersRead,
        ProbesRead, ProcessesRead, RegistryContacted, RoutesRead, TunnelCameUp, TunnelClosed,
        TunnelOpened, UnusedEndpoint,
    },
    sinks::telemetry::{NodeDescription, Telemetry},
};
use membership::documents::PrivateEndpointError;
use os::{
    process::{Exits, ProcessKind, ProcessReading},
    process_usage::ProcessUsage,
};
use policies::{
    names::{Endpoint, Prefix, Role, Slot, Transport},
    observation::{
        BabelTable, Candidate, LinkCounters, LinkReading, Neighbour, Phase, ProbeCounts,
        ProbeReading, Route, TunnelReading,
    },
    orders::{CloseReason, Decision, OpenReason, Order},
    planner::Verdict,
    probe_history::ProbeTotals,
    units::Uptime,
};
use std::{sync::Arc, time::Duration};
use wire::babel::{DefaultRoute, ExitRoutes};

const DIALLED: Slot = Slot::Dialling(0);
const ACCEPTED: Slot = Slot::Accepting(Transport::Tcp, 2);

fn prefix(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

fn endpoint() -> Endpoint {
    "udp:192.0.2.9:1194".parse().unwrap()
}

pub fn identity(now: Uptime) -> NodeDescription {
    NodeDescription {
        prefix: prefix(7),
        network: wire::overlay::Network::new("fd12:3456:789a::/48".parse().unwrap()).unwrap(),
        software: "1.2.3",
        revision: "unknown",
        actors: vec!["tunnels", "policy"],
        dry_run: true,
        unused_ports: Vec::new(),
        started: now,
    }
}

fn tunnel(slot: Slot, peer: u32, at: Uptime) -> TunnelReading {
    let endpoint = Some(endpoint());
    TunnelReading {
        slot,
        peer: prefix(peer),
        phase: Phase::Up,
        since: at,
        up_since: Some(at),
        endpoint,
    }
}

pub fn links(at: Uptime, bytes: u64) -> LinksSampled {
    let counters = LinkCounters {
        rx_bytes: bytes,
        tx_bytes: 2 * bytes,
        rx_packets: bytes / 100,
        tx_packets: bytes / 50,
        rx_dropped: bytes / 10_000,
        tx_dropped: bytes / 5_000,
    };
    let link = |slot, peer| LinkReading {
        tunnel: tunnel(slot, peer, at),
        counters,
    };
    LinksSampled {
        at,
        links: vec![link(DIALLED, 9), link(ACCEPTED, 11)],
        free_slots: vec![],
        was_reached: true,
    }
}

fn neighbour(slot: Slot, peer: u32) -> Neighbour {
    Neighbour {
        slot,
        peer: prefix(peer),
        reach: 0xffff,
        rxcost: 96,
        txcost: 96,
        rtt: Some(Duration::from_millis(12)),
        cost: 96,
    }
}

fn table() -> BabelTable {
    let route = |node, slot, via, installed, metric| Route {
        node: prefix(node),
        slot,
        via: prefix(via),
        installed,
        metric,
        refmetric: 0,
    };
    BabelTable {
        neighbours: vec![neighbour(DIALLED, 9), neighbour(ACCEPTED, 11)],
        routes: vec![
            route(9, DIALLED, 9, true, 96),
            route(12, DIALLED, 9, true, 192),
            route(11, ACCEPTED, 11, true, 96),
            route(12, ACCEPTED, 11, false, 65535),
        ],
    }
}

/// A default route that is installed, and one that is unreachable.
fn exit_routes() -> ExitRoutes {
    let route = |gateway, slot, via, installed, metric| DefaultRoute {
        gateway: prefix(gateway),
        slot,
        via: prefix(via),
        installed,
        metric,
        refmetric: 0,
    };
    let routes = vec![
        route(11, ACCEPTED, 11, false, 65535),
        route(12, DIALLED, 9, true, 192),
    ];
    ExitRoutes { routes, own: false }
}

fn decided(at: Uptime) -> Decided {
    let open = Order::Open {
        slot: DIALLED,
        peer: prefix(9),
        endpoints: vec![endpoint()],
        reason: OpenReason::Bootstrap,
    };
    let drain = Order::Drain {
        slot: DIALLED,
        reason: CloseReason::Unused,
    };
    let close = Order::Close {
        slot: DIALLED,
        reason: CloseReason::Unused,
    };
    let decisions = [open, drain, close]
        .map(|order| Decision {
            order,
            terms: "usage=3 B/s".into(),
        })
        .into();
    let verdicts = vec![Verdict {
        slot: DIALLED,
        text: "kept: carries a fair share".into(),
    }];
    Decided {
        at,
        decisions,
        verdicts: Some(verdicts),
    }
}

/// Sends the messages of a node with one tunnel in each direction, one closed tunnel, three decisions, a lease and so on.
pub fn send_everything(telemetry: &Addr<Telemetry>, at: Uptime) {
    let (slot, peer) = (Slot::Dialling(1), prefix(8));
    let opened = |slot, peer| TunnelOpened {
        at,
        is_up: false,
        slot,
        peer,
    };
    telemetry.do_send(opened(slot, peer));
    let (reason, lived) = (CloseReason::Unused, Duration::from_secs(60));
    telemetry.do_send(TunnelClosed {
        at,
        slot,
        peer,
        decided_at: at,
        reason,
        lived,
    });
    telemetry.do_send(opened(DIALLED, prefix(9)));
    for up_after in [2, 20] {
        let (at, peer) = (at + Duration::from_secs(up_after), prefix(9));
        let slot = DIALLED;
        telemetry.do_send(TunnelCameUp { at, slot, peer });
    }
    send_readings(telemetry, at);
    send_host_state(telemetry, at);
    send_membership(telemetry, at);
}

fn probe(slot: Slot) -> ProbeReading {
    ProbeReading {
        slot,
        rtt: Some(Duration::from_millis(10)),
        jitter: Duration::from_millis(1),
        sent: 10,
        lost: 1,
        recent: ProbeCounts { sent: 40, lost: 1 },
        rx_frames: 0,
        tx_frames: 0,
        full_size: policies::path_mtu::FullSize::Carried,
    }
}

fn probe_totals() -> ProbeTotals {
    let mut totals = ProbeTotals {
        sent: 50,
        lost: 2,
        ..ProbeTotals::default()
    };
    totals.rtt.observe(Duration::from_millis(20));
    totals
}

/// Sends the readings of babeld, the prober and the peer cache, and the decisions of the policy.
fn send_readings(telemetry: &Addr<Telemetry>, at: Uptime) {
    telemetry.do_send(RoutesRead {
        at,
        table: Some(table().into()),
        exit_routes: exit_routes(),
        claims: Arc::default(),
    });
    telemetry.do_send(ProbesRead {
        at,
        probes: vec![probe(DIALLED), probe(ACCEPTED)],
        totals: [(Role::Dialled, probe_totals())].into(),
        asked_at: None,
    });
    let peer = |number, confirmed, failures| Candidate {
        peer: prefix(number),
        endpoints: vec![endpoint()],
        on_lan: 0,
        confirmed_at: confirmed,
        failed_at: None,
        failures,
        transit_cost: 0,
    };
    telemetry.do_send(PeersRead {
        at,
        candidates: vec![peer(9, Some(at), 0), peer(20, None, 0), peer(21, None, 3)],
        unused: vec![UnusedEndpoint {
            peer: prefix(22),
            endpoint: "udp:192.168.7.7:1194".parse().unwrap(),
            reason: PrivateEndpointError::Elsewhere,
        }],
        narrow: Vec::new(),
    });
    telemetry.do_send(decided(at));
}

fn child(name: &str) -> ProcessReading {
    ProcessReading {
        name: name.into(),
        pid: Some(if name == "babeld" { 42 } else { 43 }),
        ready: true,
        starts: 1,
        exits: Exits::default(),
        stale: false,
        failure: None,
    }
}

/// Sends the lease, the processes, and the outcomes of a candidate probe and of a call to the registry.
fn send_host_state(telemetry: &Addr<Telemetry>, at: Uptime) {
    let external = "203.0.113.5:1194".parse().unwrap();
    let until = at + Duration::from_secs(600);
    let lease = Lease {
        transport: Transport::Udp,
        internal_port: 1194,
        external,
        until,
    };
    telemetry.do_send(LeasesRead {
        at,
        leases: vec![lease],
        missing: Some(MissingLease {
            reason: MissingReason::NoFreePort,
            text: "no free port for tcp 1194 on the gateway".into(),
        }),
    });
    let usage = ProcessUsage {
        cpu: Duration::from_millis(1_500),
        resident_bytes: 4_096,
    };
    telemetry.do_send(ProcessesRead {
        at,
        processes: vec![child("babeld"), child("wrn0")],
        closed_clients: (
            1,
            Exits {
                unexpected: 1,
                ..Exits::default()
            },
        ),
        usage: [(42, usage)].into(),
        udp_drops: Some([(7, (ProcessKind::Client, 12))].into()),
        netlink_drops: Some([(8, 3)].into()),
    });
    telemetry.do_send(CandidateProbed {
        at,
        peer: prefix(20),
        answered: true,
    });
    telemetry.do_send(RegistryContacted {
        at,
        failure: None,
        is_certificate_rejected: false,
        hidden_nodes: Some(2),
        listed_peers: Some(3),
        clock_offset_s: Some(2),
        other_machine: None,
    });
}

/// Sends the documents, the credentials, and the restart of an actor.
fn send_membership(telemetry: &Addr<Telemetry>, at: Uptime) {
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .der()
        .clone();
    let documents = std::sync::Arc::new(membership::documents::CurrentDocuments::new(vec![ca]));
    telemetry.do_send(DocumentsChanged {
        kind: None,
        documents,
        revoked: Default::default(),
    });
    telemetry.do_send(CredentialsChanged {
        at,
        network_version: 1,
        servers: false,
        dials: false,
        start_after: Duration::ZERO,
        force_after: Duration::ZERO,
        certificate: Some(OwnCertificate {
            serial: "0a".into(),
            not_before_s: 1_700_000_000,
            not_after_s: 2_000_000_000,
        }),
    });
    telemetry.do_send(ActorRestarted { actor: "policy" });
}
