//! Every metric: its name, kind, labels and help, and how it is read from a [`Snapshot`].
//!
//! `docs/METRICS.md` lists the same. Labels come from closed lists or are bounded by the number of
//! slots; never an address, a time or a text from outside.

use super::samples::*;
use crate::sinks::telemetry::float;
use std::time::Duration;
use wire::registry::DocumentKind as Document;

/// Counter or gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The description of one metric.
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// The help text, one line.
    pub help: &'static str,
    pub(super) read: fn(&Seen) -> Vec<Sample>,
}

use Kind::{Counter, Gauge};

const TUNNEL: &[&str] = &["tunnel", "peer", "role"];

macro_rules! families {
    ($($kind:ident $name:ident $labels:expr, $help:literal, $read:expr;)*) => {
        /// All of them.
        pub const FAMILIES: &[Family] = &[$(Family {
            name: stringify!($name), kind: $kind, labels: $labels, help: $help, read: $read,
        },)*];
    };
}

families! {
    Gauge warren_build_info &["version", "revision"], "Software of the daemon; always 1.",
        |seen| one([seen.node.identity.software, seen.node.identity.revision], 1.0);
    Gauge warren_node_info &["prefix", "address", "network"], "Identity of the node; always 1.",
        |seen| node_info(seen.node);
    Gauge warren_ready &[], "Whether babeld answers and a tunnel is up or the registry answered.",
        |seen| one([], truth(seen.node.ready()));
    Gauge warren_certificate_expiry_timestamp_seconds &[], "When the node's certificate expires.",
        |seen| maybe(seen.node.certificate_not_after.map(float));
    Gauge warren_ca_expiry_timestamp_seconds &["ca"],
        "When a CA certificate that the node trusts expires; two while the network's CA is replaced.",
        |seen| cas(seen.node);
    Gauge warren_snapshot_timestamp_seconds &[], "When the snapshot that is served was taken.",
        |seen| one([], seen.node.unix(seen.node.at).as_secs_f64());

    Gauge warren_tunnels &["role", "state"],
        "Tunnels by role and state.",
        |seen| tunnels(seen.node);
    Gauge warren_tunnel_info &["tunnel", "peer", "role", "transport"],
        "Transport protocol of the tunnel; always 1.",
        |seen| tunnel_info(seen.node);
    Gauge warren_tunnel_up TUNNEL, "Whether frames pass; 0 also for half a minute after the close.",
        |seen| rows(seen.node, |row| Some(truth(row.carries())));
    Gauge warren_tunnel_state &["tunnel", "peer", "role", "state"],
        "1 for the state that the tunnel is in, 0 for the others.",
        |seen| states(seen.node);
    Gauge warren_tunnel_up_since_timestamp_seconds TUNNEL, "When the tunnel came up.",
        |seen| live(seen.node, |row| row.tunnel.up_since.map(|at| seen.node.unix(at).as_secs_f64()));
    Counter warren_tunnel_receive_bytes_total TUNNEL,
        "Frame bytes received through the tunnel since it was opened.",
        |seen| rows(seen.node, |row| Some(float(row.carried.rx_bytes)));
    Counter warren_tunnel_transmit_bytes_total TUNNEL,
        "Frame bytes sent through the tunnel since it was opened.",
        |seen| rows(seen.node, |row| Some(float(row.carried.tx_bytes)));
    Counter warren_tunnel_receive_packets_total TUNNEL,
        "Frames received through the tunnel since it was opened.",
        |seen| rows(seen.node, |row| Some(float(row.carried.rx_packets)));
    Counter warren_tunnel_transmit_packets_total TUNNEL,
        "Frames sent through the tunnel since it was opened.",
        |seen| rows(seen.node, |row| Some(float(row.carried.tx_packets)));
    Gauge warren_tunnel_routes TUNNEL, "Routes that babeld knows through the tunnel, installed or not.",
        |seen| live(seen.node, |row| Some(float(seen.node.served_by(row.tunnel.slot).routes)));
    Gauge warren_tunnel_nodes_served TUNNEL, "Nodes that installed routes reach through the tunnel.",
        |seen| live(seen.node, |row| Some(float(seen.node.served_by(row.tunnel.slot).nodes)));
    Gauge warren_tunnel_rtt_seconds TUNNEL,
        "Smoothed round trip of our probes; absent until one is answered.",
        |seen| live(seen.node, |row| probe(seen.node, row)?.rtt.map(|rtt| rtt.as_secs_f64()));
    Gauge warren_tunnel_rtt_deviation_seconds TUNNEL, "Mean deviation of the round trip of our probes.",
        |seen| live(seen.node, |row| jitter(seen.node, row));
    Gauge warren_tunnel_loss_ratio TUNNEL,
        "Share of our probes of the last minute that got no answer, 0 to 1.",
        |seen| live(seen.node, |row| loss(seen.node, row));
    Counter warren_traffic_bytes_total &["direction", "role"],
        "Frame bytes through all tunnels, closed ones included.",
        |seen| traffic(seen.node, |c| c.rx_bytes, |c| c.tx_bytes);
    Counter warren_traffic_packets_total &["direction", "role"],
        "Frames through all tunnels, closed ones included.",
        |seen| traffic(seen.node, |c| c.rx_packets, |c| c.tx_packets);

    Gauge warren_babel_up &[], "Whether babeld answered within the last 10 s.",
        |seen| one([], truth(seen.node.babel_up()));
    Gauge warren_neighbours &[], "Babel neighbours on slots.",
        |seen| one([], float(neighbours(seen.node)));
    Gauge warren_neighbour_cost &["tunnel", "peer"], "Babel's cost of the link; 65535 is unreachable.",
        |seen| neighbour(seen.node, |n| Some(f64::from(n.cost)));
    Gauge warren_neighbour_rtt_seconds &["tunnel", "peer"], "Round trip as babeld measures it.",
        |seen| neighbour(seen.node, |n| n.rtt.map(|rtt| rtt.as_secs_f64()));
    Gauge warren_routes &[], "Routes towards nodes that babeld knows, installed or not.",
        |seen| one([], float(count(seen.node.babel.iter().flat_map(|table| &table.routes))));
    Gauge warren_routes_installed &[], "Routes towards nodes that babeld installed.",
        |seen| one([], float(seen.node.routes_installed));
    Gauge warren_nodes_known &[], "Other nodes that babeld has a route to.",
        |seen| one([], float(seen.node.nodes_known));
    Gauge warren_exit_gateway_info &["gateway"],
        "The node by which packets leave the network; always 1, absent where there is none.",
        |seen| seen.node.gateway().map(|gateway| (vec![s(gateway)], 1.0)).into_iter().collect();

    Counter warren_decisions_total &["order", "reason"], "Orders about tunnels: of the planner, of rolling restarts and of revocations.",
        |seen| map(&seen.node.counts.decisions, |(order, reason)| vec![s(order), s(reason)]);
    Counter warren_drains_total &["outcome"], "Drains that have ended.",
        |seen| map(&seen.node.counts.drains, |outcome| vec![s(outcome.label())]);
    Counter warren_tunnels_opened_total &["role"], "Tunnels dialled or accepted.",
        |seen| map(&seen.node.counts.opened, |role| vec![s(role)]);
    Counter warren_tunnels_connected_total &["role"], "Tunnels that came up.",
        |seen| map(&seen.node.counts.came_up, |role| vec![s(role)]);
    Counter warren_tunnels_closed_total &["role", "reason"], "Closed tunnels.",
        |seen| map(&seen.node.counts.closed, |(role, reason)| vec![s(role), s(reason)]);

    Gauge warren_process_up &["process"], "Whether the supervised process runs and is ready.",
        |seen| processes(seen.node, |p| truth(p.pid.is_some() && p.ready));
    Counter warren_process_starts_total &["process"],
        "Starts of the supervised process, the first included.",
        |seen| processes(seen.node, |p| f64::from(p.starts));
    Gauge warren_process_stale &["process"],
        "Whether the process still uses certificates or keys that have been replaced on disk.",
        |seen| processes(seen.node, |p| truth(p.stale));
    Gauge warren_leases &["transport"], "Port mappings on gateways.",
        |seen| leases(seen.node);
    Gauge warren_lease_expiry_timestamp_seconds &["transport"],
        "When the first port mapping expires unless it is renewed.",
        |seen| lease_ends(seen.node);
    Gauge warren_peer_cache_entries &["state"],
        "Peers that could be dialled: confirmed in this run, remembered from disk, or failing.",
        |seen| cache(seen.node);
    Counter warren_candidate_probes_total &["outcome"],
        "RTT probes of peers without a tunnel, each by the first packet of a dial.",
        |seen| vec![
        (vec![s("answered")], float(seen.node.counts.candidate_probes_answered)),
        (vec![s("unanswered")], float(seen.node.counts.candidate_probes_unanswered)),
    ];
    Gauge warren_registry_up &[], "Whether the registry answered the last call.",
        |seen| one([], truth(seen.node.registry_up()));
    Gauge warren_registry_last_answer_timestamp_seconds &[],
        "When the registry last answered; absent until it has.",
        |seen| maybe(seen.node.registry.answered.map(|at| seen.node.unix(at).as_secs_f64()));
    Counter warren_registry_requests_total &["outcome"], "Calls to the registry.",
        |seen| vec![
        (vec![s("answered")], float(seen.node.counts.registry_answered)),
        (vec![s("failed")], float(seen.node.counts.registry_failed)),
    ];
    Gauge warren_document_version &["document"],
        "Version of the current signed document; 0 if there is none.",
        |seen| vec![
        (vec![s("network")], float(seen.node.documents.version(Document::Network))),
        (vec![s("revocations")], float(seen.node.documents.version(Document::Revocations))),
    ];
    Gauge warren_software_outdated &[], "Whether the network requires newer software than this (min-version).",
        |seen| one([], truth(seen.node.wants_newer().is_some()));
    Gauge warren_revoked_certificates &[], "Certificates on the current revocation list.",
        |seen| one([], float(u64::try_from(seen.node.documents.revoked_count()).unwrap_or(u64::MAX)));
    Counter warren_readings_dropped_total &[],
        "Readings dropped because a mailbox was full; the next reading replaced each.",
        |seen| one([], float(seen.node.readings_dropped));
    Counter warren_actor_restarts_total &["actor"], "Actors restarted after a panic.",
        |seen| map(&seen.node.counts.remade, |actor| vec![s(actor)]);

    Counter process_cpu_seconds_total &[], "CPU time of the daemon, user and system, without its children.",
        |seen| own(seen, |p| Some(p.cpu_seconds));
    Gauge process_resident_memory_bytes &[], "Resident memory of the daemon.",
        |seen| own(seen, |p| Some(p.resident_bytes));
    Gauge process_virtual_memory_bytes &[], "Virtual memory of the daemon.",
        |seen| own(seen, |p| Some(p.virtual_bytes));
    Gauge process_open_fds &[], "Open file descriptors of the daemon.",
        |seen| own(seen, |p| p.open_fds);
    Gauge process_max_fds &[], "Most file descriptors that the daemon may open.",
        |seen| own(seen, |p| p.max_fds);
    Gauge process_threads &[], "Threads of the daemon.",
        |seen| own(seen, |p| Some(p.threads));
    Gauge process_start_time_seconds &[], "When the daemon started.",
        |seen| own(seen, |p| Some(seen.node.booted.as_secs_f64() + p.started_seconds));
}

/// The age of a snapshot from which the daemon counts as unhealthy.
pub(super) const HEALTHY: Duration = Duration::from_secs(10);
