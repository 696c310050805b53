//! All metrics: name, kind, labels and help of each, and how it is read from a [`Snapshot`].
//!
//! `docs/METRICS.md` documents the same metrics. The values of labels come from closed lists, or their number is
//! bounded by that of slots. No label contains an address, a time or a text of another node.

use super::samples::*;
use crate::sinks::telemetry::float;
use std::time::Duration;
use wire::registry::DocumentKind as Document;

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that can grow and shrink.
    Gauge,
}

/// The description of one metric.
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// The kind of the metric.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The help text, one line.
    pub help: &'static str,
    /// Reads the samples.
    pub(super) read: fn(&Source) -> Vec<Sample>,
}

use Kind::{Counter, Gauge};

const TUNNEL: &[&str] = &["tunnel", "peer", "role"];

macro_rules! families {
    ($($kind:ident $name:ident $labels:expr, $help:literal, $read:expr;)*) => {
        /// All metrics of a node.
        pub const FAMILIES: &[Family] = &[$(Family {
            name: stringify!($name), kind: $kind, labels: $labels, help: $help, read: $read,
        },)*];
    };
}

families! {
    Gauge warren_build_info &["version", "revision"], "Software of the daemon; always 1.",
        |source| one([source.node.identity.software, source.node.identity.revision], 1.0);
    Gauge warren_node_info &["prefix", "name", "address", "network"],
        "Identity of the node; name is empty if it has none; always 1.",
        |source| node_info(source.node);
    Gauge warren_ready &[], "Whether the node does its work: no finding is an error.",
        |source| one([], truth(source.health.is_ready()));
    Gauge warren_health_findings &["finding", "severity"], "1 while the finding is shown by warren status, 0 otherwise.",
        |source| findings(&source.health);
    Gauge warren_certificate_expiry_timestamp_seconds &[], "When the node's certificate expires.",
        |source| maybe(source.node.certificate.as_ref().map(|own| float(own.not_after_s)));
    Gauge warren_ca_expiry_timestamp_seconds &["ca"],
        "When a CA certificate that the node trusts expires; two while the network's CA is replaced.",
        |source| cas(source.node);
    Gauge warren_snapshot_timestamp_seconds &[], "When the snapshot that is served was taken.",
        |source| one([], source.node.unix(source.node.at).as_secs_f64());

    Gauge warren_tunnels &["role", "state"],
        "Tunnels by role and state.",
        |source| tunnels(source.node);
    Gauge warren_tunnel_info &["tunnel", "peer", "role", "transport"],
        "Transport protocol of the tunnel; always 1.",
        |source| tunnel_info(source.node);
    Gauge warren_tunnel_up TUNNEL, "Whether frames pass; 0 also for half a minute after the close.",
        |source| rows(source.node, |row| Some(truth(row.is_up())));
    Gauge warren_tunnel_state &["tunnel", "peer", "role", "state"],
        "1 for the state that the tunnel is in, 0 for the others.",
        |source| states(source.node);
    Gauge warren_tunnel_up_since_timestamp_seconds TUNNEL, "When the tunnel came up.",
        |source| live(source.node, |row| row.tunnel.up_since.map(|at| source.node.unix(at).as_secs_f64()));
    Counter warren_tunnel_receive_bytes_total TUNNEL,
        "Frame bytes received through the tunnel since it was opened.",
        |source| rows(source.node, |row| Some(float(row.carried.rx_bytes)));
    Counter warren_tunnel_transmit_bytes_total TUNNEL,
        "Frame bytes sent through the tunnel since it was opened.",
        |source| rows(source.node, |row| Some(float(row.carried.tx_bytes)));
    Counter warren_tunnel_receive_packets_total TUNNEL,
        "Frames received through the tunnel since it was opened.",
        |source| rows(source.node, |row| Some(float(row.carried.rx_packets)));
    Counter warren_tunnel_transmit_packets_total TUNNEL,
        "Frames sent through the tunnel since it was opened.",
        |source| rows(source.node, |row| Some(float(row.carried.tx_packets)));
    Gauge warren_tunnel_routes TUNNEL, "Routes that babeld knows through the tunnel, installed or not.",
        |source| live(source.node, |row| Some(float(source.node.served_by(row.tunnel.slot).routes)));
    Gauge warren_tunnel_nodes_served TUNNEL, "Nodes that can be reached by installed routes through the tunnel.",
        |source| live(source.node, |row| Some(float(source.node.served_by(row.tunnel.slot).nodes)));
    Gauge warren_tunnel_rtt_seconds TUNNEL,
        "Smoothed round trip of our probes; absent until one is answered.",
        |source| live(source.node, |row| probe(source.node, row)?.rtt.map(|rtt| rtt.as_secs_f64()));
    Gauge warren_tunnel_rtt_deviation_seconds TUNNEL, "Mean deviation of the round trip of our probes.",
        |source| live(source.node, |row| jitter(source.node, row));
    Gauge warren_tunnel_loss_ratio TUNNEL,
        "Share of our probes of the last minute that got no answer, 0 to 1.",
        |source| live(source.node, |row| loss(source.node, row));
    Counter warren_traffic_bytes_total &["direction", "role"],
        "Frame bytes through all tunnels, closed ones included.",
        |source| traffic(source.node, |c| c.rx_bytes, |c| c.tx_bytes);
    Counter warren_traffic_packets_total &["direction", "role"],
        "Frames through all tunnels, closed ones included.",
        |source| traffic(source.node, |c| c.rx_packets, |c| c.tx_packets);

    Gauge warren_babel_up &[], "Whether babeld answered within the last 10 s.",
        |source| one([], truth(source.node.is_babel_up()));
    Gauge warren_neighbours &[], "Babel neighbours on slots.",
        |source| one([], float(neighbours(source.node)));
    Gauge warren_neighbour_cost &["tunnel", "peer"], "Babel's cost of the link; 65535 is unreachable.",
        |source| neighbour(source.node, |n| Some(f64::from(n.cost)));
    Gauge warren_neighbour_rtt_seconds &["tunnel", "peer"], "Round trip as babeld measures it.",
        |source| neighbour(source.node, |n| n.rtt.map(|rtt| rtt.as_secs_f64()));
    Gauge warren_routes &[], "Routes towards nodes that babeld knows, installed or not.",
        |source| one([], float(count(source.node.babel.iter().flat_map(|table| &table.routes))));
    Gauge warren_routes_installed &[], "Routes towards nodes that babeld installed and that lead somewhere.",
        |source| one([], float(source.node.routes_installed));
    Gauge warren_routes_unreachable &[], "Routes that babeld installed as unreachable, since it lost all others to the node.",
        |source| one([], float(source.node.routes_unreachable));
    Gauge warren_nodes_known &[], "Other nodes that babeld has a route to, installed or not.",
        |source| one([], float(source.node.nodes_known));
    Gauge warren_nodes_reachable &[], "Other nodes to which an installed route leads.",
        |source| one([], float(source.node.nodes_reachable));
    Gauge warren_exit_gateway_info &["gateway"],
        "The node by which packets leave the network; always 1, absent where there is none.",
        |source| source.node.gateway().map(|gateway| (vec![s(gateway)], 1.0)).into_iter().collect();

    Counter warren_decisions_total &["order", "reason"], "Orders about tunnels: of the planner, of rolling restarts and of revocations.",
        |source| map(&source.node.counts.decisions, |(order, reason)| vec![s(order), s(reason)]);
    Counter warren_drains_total &["outcome"], "Drains that have ended.",
        |source| map(&source.node.counts.drains, |outcome| vec![s(outcome.label())]);
    Counter warren_tunnels_opened_total &["role"], "Tunnels dialled or accepted.",
        |source| map(&source.node.counts.opened, |role| vec![s(role)]);
    Counter warren_tunnels_connected_total &["role"], "Tunnels that came up.",
        |source| map(&source.node.counts.came_up, |role| vec![s(role)]);
    Counter warren_tunnels_closed_total &["role", "reason"], "Closed tunnels.",
        |source| map(&source.node.counts.closed, |(role, reason)| vec![s(role), s(reason)]);
    Counter warren_overdue_total &["phase"], "Phases that lasted longer than their limit and were ended by it.",
        |source| map(&source.node.counts.overdue, |wait| vec![s(wait.label())]);
    Counter warren_suspicious_routes_total &["kind"],
        "Tunnels closed because the neighbour announced routes that cannot be its own.",
        |source| map(&source.node.counts.suspicious_routes, |kind| vec![s(kind.label())]);
    Counter warren_host_repairs_total &["kind"],
        "Rules, routes, addresses, settings and links of the node on its host that others had removed or changed and that were restored.",
        |source| map(&source.node.counts.host_repairs, |kind| vec![s(kind.label())]);

    Gauge warren_process_up &["process"], "Whether the supervised process runs and is ready.",
        |source| processes(source.node, |p| truth(p.pid.is_some() && p.ready));
    Counter warren_process_starts_total &["process"],
        "Starts of the supervised process, the first included.",
        |source| processes(source.node, |p| f64::from(p.starts));
    Gauge warren_process_stale &["process"],
        "Whether the process still uses certificates or keys that have been replaced on disk.",
        |source| processes(source.node, |p| truth(p.stale));
    Gauge warren_leases &["transport"], "Port mappings on gateways.",
        |source| leases(source.node);
    Gauge warren_lease_expiry_timestamp_seconds &["transport"],
        "When the first port mapping expires unless it is renewed.",
        |source| lease_ends(source.node);
    Gauge warren_peer_cache_entries &["state"],
        "Peers that could be dialled: confirmed in this run, remembered from disk, or failing.",
        |source| cache(source.node);
    Gauge warren_peer_endpoints_unused &[],
        "Private endpoints of peers that are not dialled, because they probably mean other hosts.",
        |source| one([], float(count(source.node.peers.unused.iter())));
    Counter warren_candidate_probes_total &["outcome"],
        "RTT probes of peers without a tunnel, each by the first packet of a dial.",
        |source| vec![
        (vec![s("answered")], float(source.node.counts.candidate_probes_answered)),
        (vec![s("unanswered")], float(source.node.counts.candidate_probes_unanswered)),
    ];
    Gauge warren_registry_up &[], "Whether the registry answered the last call.",
        |source| one([], truth(source.node.is_registry_up()));
    Gauge warren_registry_last_answer_timestamp_seconds &[],
        "When the registry last answered; absent until it has.",
        |source| maybe(source.node.registry.answered_at.map(|at| source.node.unix(at).as_secs_f64()));
    Counter warren_registry_requests_total &["outcome"], "Calls to the registry.",
        |source| vec![
        (vec![s("answered")], float(source.node.counts.registry_answered)),
        (vec![s("failed")], float(source.node.counts.registry_failed)),
    ];
    Gauge warren_document_version &["document"],
        "Version of the current signed document; 0 if there is none.",
        |source| vec![
        (vec![s("network")], float(source.node.documents.version(Document::Network))),
        (vec![s("revocations")], float(source.node.documents.version(Document::Revocations))),
    ];
    Gauge warren_software_outdated &[], "Whether the network requires newer software than this (min-version).",
        |source| one([], truth(source.node.required_release().is_some()));
    Gauge warren_revoked_certificates &[], "Certificates on the current revocation list.",
        |source| one([], float(u64::try_from(source.node.documents.revoked_count()).unwrap_or(u64::MAX)));
    Counter warren_readings_dropped_total &[],
        "Readings dropped because a mailbox was full; the next reading replaced each.",
        |source| one([], float(source.node.readings_dropped));
    Counter warren_actor_restarts_total &["actor"], "Actors restarted after a panic.",
        |source| map(&source.node.counts.actor_restarts, |actor| vec![s(actor)]);

    Counter process_cpu_seconds_total &[], "CPU time of the daemon, user and system, without its children.",
        |source| own_process(source, |p| Some(p.cpu_seconds));
    Gauge process_resident_memory_bytes &[], "Resident memory of the daemon.",
        |source| own_process(source, |p| Some(p.resident_bytes));
    Gauge process_virtual_memory_bytes &[], "Virtual memory of the daemon.",
        |source| own_process(source, |p| Some(p.virtual_bytes));
    Gauge process_open_fds &[], "Open file descriptors of the daemon.",
        |source| own_process(source, |p| p.open_fds);
    Gauge process_max_fds &[], "Most file descriptors that the daemon may open.",
        |source| own_process(source, |p| p.max_fds);
    Gauge process_threads &[], "Threads of the daemon.",
        |source| own_process(source, |p| Some(p.threads));
    Gauge process_start_time_seconds &[], "When the daemon started.",
        |source| own_process(source, |p| Some(source.node.booted_at.as_secs_f64() + p.started_seconds));
}

/// The age of the newest snapshot from which the daemon counts as unhealthy.
pub(super) const MAX_HEALTHY_AGE: Duration = Duration::from_secs(10);
