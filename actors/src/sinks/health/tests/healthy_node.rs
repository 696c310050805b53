//! The snapshot of a healthy node, and the readings that change it.

use crate::{
    messages::{
        EndpointSource, LinksSampled, OwnCertificate, OwnEndpointsRead, PeersRead, ProcessesRead,
        RegistryContacted, RoutesRead, UnusedEndpoint,
    },
    sinks::telemetry::{NodeDescription, Snapshot},
};
use os::process::ProcessReading;
use policies::{
    names::{Prefix, Slot, Transport},
    observation::{BabelTable, Candidate, LinkCounters, LinkReading, Phase, Route, TunnelReading},
    units::Uptime,
};
use std::{sync::Arc, time::Duration};
use wire::{babel::ExitRoutes, overlay::Network};

/// The time of the last reading, and of the assessment.
pub(super) const NOW: Uptime = Uptime::from_secs(3_600);

/// The wall clock at [`NOW`], in seconds since 1970.
pub(super) const WALL_S: u64 = 1_800_000_000;

pub(super) const DAY_S: u64 = 86_400;

pub(super) fn prefix(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

pub(super) fn ago(seconds: u64) -> Uptime {
    Uptime::from_secs(3_600 - seconds)
}

pub(super) fn contact(failure: Option<&str>) -> RegistryContacted {
    RegistryContacted {
        at: NOW,
        failure: failure.map(str::to_owned),
        is_certificate_rejected: false,
        hidden_nodes: Some(0),
        listed_peers: Some(1),
        clock_offset_s: Some(2),
        other_machine: None,
    }
}

pub(super) fn candidate(number: u32) -> Candidate {
    Candidate {
        peer: prefix(number),
        endpoints: ["udp:192.0.2.9:1194", "tcp:192.0.2.9:1194"]
            .map(|endpoint| endpoint.parse().unwrap())
            .into(),
        on_lan: 0,
        confirmed_at: None,
        failed_at: None,
        failures: 0,
        transit_cost: 0,
    }
}

pub(super) fn links(at: Uptime, endpoint: &str, frames: u64) -> LinksSampled {
    let tunnel = TunnelReading {
        slot: Slot::Dialling(0),
        peer: prefix(9),
        phase: Phase::Up,
        since: ago(3_000),
        up_since: Some(ago(3_000)),
        endpoint: Some(endpoint.parse().unwrap()),
    };
    let counters = LinkCounters {
        rx_packets: frames,
        rx_bytes: frames * 100,
        ..LinkCounters::default()
    };
    LinksSampled {
        at,
        links: vec![LinkReading { tunnel, counters }],
        free_slots: vec![],
        was_reached: false,
    }
}

pub(super) fn no_links() -> LinksSampled {
    LinksSampled {
        links: vec![],
        ..links(NOW, "udp:192.0.2.9:1194", 0)
    }
}

pub(super) fn routes(metric: u16) -> RoutesRead {
    let route = Route {
        node: prefix(9),
        slot: Slot::Dialling(0),
        via: prefix(9),
        installed: true,
        metric,
        refmetric: 0,
    };
    RoutesRead {
        at: NOW,
        table: Some(Arc::new(BabelTable {
            neighbours: vec![],
            routes: vec![route],
        })),
        exit_routes: ExitRoutes::default(),
        claims: Arc::default(),
    }
}

pub(super) fn process(name: &str, starts: u32) -> ProcessReading {
    ProcessReading {
        name: name.into(),
        pid: Some(42),
        ready: true,
        starts,
        exits: Default::default(),
        stale: false,
        failure: None,
    }
}

pub(super) fn processes(processes: Vec<ProcessReading>) -> ProcessesRead {
    ProcessesRead {
        at: NOW,
        processes,
        ..ProcessesRead::default()
    }
}

pub(super) fn peers(candidates: Vec<Candidate>, unused: Vec<UnusedEndpoint>) -> Arc<PeersRead> {
    Arc::new(PeersRead {
        at: NOW,
        candidates,
        unused,
        narrow: Vec::new(),
    })
}

pub(super) fn expiring(expires_in_s: u64) -> Option<Arc<OwnCertificate>> {
    let not_after_s = WALL_S + expires_in_s;
    Some(Arc::new(OwnCertificate {
        serial: "0a".into(),
        not_before_s: not_after_s - 365 * DAY_S,
        not_after_s,
    }))
}

/// A node with one tunnel by UDP to the only other node, which has dialled it, too.
pub(super) fn healthy() -> Snapshot {
    let identity = NodeDescription {
        prefix: prefix(7),
        network: Network::new("fd12:3456:789a::/48".parse().unwrap()).unwrap(),
        software: "1.2.3",
        revision: "unknown",
        actors: vec!["policy"],
        dry_run: false,
        unused_ports: Vec::new(),
        started: ago(3_500),
    };
    let booted_at = Duration::from_secs(WALL_S) - NOW.0;
    let mut node = Snapshot::new(identity, booted_at);
    node.at = NOW;
    node.on_processes_read(processes(vec![
        process("babeld", 1),
        process("server-udp", 1),
    ]));
    node.on_links_sampled(links(ago(1), "udp:192.0.2.9:1194", 5));
    node.on_links_sampled(links(NOW, "udp:192.0.2.9:1194", 6));
    node.on_routes_read(routes(96));
    node.on_registry_contacted(contact(None));
    node.peers = peers(vec![candidate(9)], vec![]);
    node.certificate = expiring(200 * DAY_S);
    node.own_endpoints = Arc::new(OwnEndpointsRead {
        endpoints: vec![(
            "udp:192.0.2.7:1194".parse().unwrap(),
            EndpointSource::Configured,
        )],
    });
    node.reached.insert((Transport::Udp, false), ago(100));
    node
}
