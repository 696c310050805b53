//! All metrics: name, kind, labels and help of each, and how it is read from a [`Snapshot`].
//!
//! `docs/METRICS.md` documents the same metrics. The values of labels come from closed lists, or their number is
//! bounded by that of slots. No label contains an address, a time or a text of another node.

use super::{event_samples::*, samples::*};
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
    /// Counts of durations by their size.
    Histogram,
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
    pub(super) read: Reader,
}

/// Reads the samples of a metric.
pub(super) enum Reader {
    /// Those of a counter.
    Counter(fn(&Source) -> Vec<Sample>),
    /// Those of a gauge.
    Gauge(fn(&Source) -> Vec<Sample>),
    /// Those of a histogram.
    Histogram(fn(&Source) -> Vec<HistogramSample>),
}

const TUNNEL: &[&str] = &["tunnel", "peer", "role"];

macro_rules! families {
    ($($kind:ident $name:ident $labels:expr, $help:literal, $read:expr;)*) => {
        /// All metrics of a node.
        pub const FAMILIES: &[Family] = &[$(Family {
            name: stringify!($name),
            kind: Kind::$kind,
            labels: $labels,
            help: $help,
            read: Reader::$kind($read),
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
    Gauge warren_clock_offset_seconds &[],
        "How far the clock of this host is ahead of the registry's, at the registry's last answer; negative if it is behind.",
        |source| maybe(source.node.registry.clock_offset_s.map(|offset| -signed_float(offset)));
    Gauge warren_reading_timestamp_seconds &["reading"],
        "When the reading was last taken; one that fails is not counted, and the figures of the last one are kept.",
        |source| reading_times(source.node);
    Gauge warren_snapshot_timestamp_seconds &[], "When the snapshot that is served was taken.",
        |source| one([], source.node.unix(source.node.at).as_secs_f64());

    Gauge warren_tunnels &["role", "state"],
        "Tunnels by role and state.",
        |source| tunnels(source.node);
    Gauge warren_tunnel_info &["tunnel", "peer", "role", "transport", "peer_name"],
        "Transport protocol of the tunnel, and the name of the peer, empty if it has none; always 1.",
        |source| tunnel_info(source.node);
    Gauge warren_tunnel_up TUNNEL, "Whether frames pass; 0 also for half a minute after the close.",
        |source| rows(source.node, |row| Some(truth(row.is_up())));
    Gauge warren_tunnel_state &["tunnel", "peer", "role", "state"],
        "1 for the state that the tunnel is in; there is no sample for the others.",
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
    Counter warren_tunnel_receive_dropped_total TUNNEL,
        "Received frames that the kernel dropped on the tunnel's link since it was opened.",
        |source| rows(source.node, |row| Some(float(row.carried.rx_dropped)));
    Counter warren_tunnel_transmit_dropped_total TUNNEL,
        "Frames to be sent that the kernel dropped on the tunnel's link since it was opened.",
        |source| rows(source.node, |row| Some(float(row.carried.tx_dropped)));
    Counter warren_tunnel_reconnects_total TUNNEL,
        "Times that the tunnel came up again, because OpenVPN was restarted at either end.",
        |source| rows(source.node, |row| Some(float(row.reconnects())));
    Gauge warren_tunnel_nodes_served TUNNEL, "Nodes that can be reached by installed routes through the tunnel.",
        |source| live(source.node, |row| Some(float(source.node.served_by(row.tunnel.slot).nodes)));
    Gauge warren_tunnel_rtt_seconds TUNNEL,
        "Smoothed round trip of our probes; absent until one is answered.",
        |source| live(source.node, |row| probe(source.node, row)?.rtt.map(|rtt| rtt.as_secs_f64()));
    Gauge warren_tunnel_loss_ratio TUNNEL,
        "Share of our probes of the last minute that got no answer, 0 to 1.",
        |source| live(source.node, |row| loss(source.node, row));
    Counter warren_traffic_bytes_total &["direction", "role"],
        "Frame bytes through all tunnels, closed ones included.",
        |source| traffic(source.node, |c| c.rx_bytes, |c| c.tx_bytes);
    Counter warren_traffic_packets_total &["direction", "role"],
        "Frames through all tunnels, closed ones included.",
        |source| traffic(source.node, |c| c.rx_packets, |c| c.tx_packets);
    Counter warren_traffic_dropped_total &["direction", "role"],
        "Frames that the kernel dropped on the links of all tunnels, closed ones included.",
        |source| traffic(source.node, |c| c.rx_dropped, |c| c.tx_dropped);
    Counter warren_probes_sent_total &["role"], "Probes of all tunnels, closed ones included.",
        |source| probes(source.node, |totals| totals.sent);
    Counter warren_probes_lost_total &["role"], "Probes that got no answer in time.",
        |source| probes(source.node, |totals| totals.lost);
    Histogram warren_probe_rtt_seconds &["role"], "Round trips of the probes of all tunnels.",
        |source| probe_rtts(source.node);
    Histogram warren_tunnel_setup_seconds &["role"], "Time from the opening of a tunnel until it came up for the first time.",
        |source| setup_times(source.node);

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
    Counter warren_route_changes_total &["change"],
        "Installed routes towards nodes that differ from the reading before.",
        |source| map(&source.node.route_history.changes, |change| vec![s(change.label())]);
    Histogram warren_heal_seconds &[],
        "Time from the verdict that a peer is dead, or from the exit of its OpenVPN, to the last route that moved.",
        |source| vec![(Vec::new(), source.node.route_history.healed.clone())];
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
        "Rules, routes, addresses, settings, links and the nftables table of the node on its host that others had removed or changed and that were restored.",
        |source| map(&source.node.counts.host_repairs, |kind| vec![s(kind.label())]);

    Gauge warren_process_up &["process"], "Supervised processes that run and are ready.",
        |source| children(source.node, |totals| float(totals.ready));
    Counter warren_process_starts_total &["process"],
        "Starts of supervised processes, the first included, of exited ones, too.",
        |source| children(source.node, |totals| float(totals.starts));
    Counter warren_process_exits_total &["process", "kind"],
        "Exits of supervised processes, those of closed tunnels included.",
        |source| exits(source.node);
    Counter warren_process_cpu_seconds_total &["process"],
        "CPU time of supervised processes, user and system, of exited ones, too.",
        |source| children(source.node, |totals| totals.cpu.as_secs_f64());
    Gauge warren_process_resident_memory_bytes &["process"], "Resident memory of the supervised processes that run.",
        |source| children(source.node, |totals| float(totals.resident_bytes));
    Counter warren_openvpn_receive_dropped_total &["process"],
        "Datagrams that the kernel dropped because OpenVPN did not read its UDP socket in time.",
        |source| udp_drops(source.node);
    Counter warren_server_transmit_dropped_total &["transport"],
        "Frames to clients that the kernel dropped because the server did not read its TAP in time; their tunnels count them as sent.",
        |source| source.server_drops.iter().map(|(transport, drops)| (vec![s(transport)], float(*drops))).collect();
    Counter warren_netlink_dropped_total &[],
        "Messages of the kernel that were dropped because the daemon did not read its netlink sockets in time.",
        |source| one([], float(source.node.children.netlink_dropped));
    Gauge warren_process_stale &["process"],
        "Supervised processes that still use certificates or keys that have been replaced on disk.",
        |source| children(source.node, |totals| float(totals.stale));
    Gauge warren_leases &["transport"], "Port mappings on gateways.",
        |source| leases(source.node);
    Gauge warren_lease_expiry_timestamp_seconds &["transport"],
        "When the first port mapping expires unless it is renewed.",
        |source| lease_ends(source.node);
    Gauge warren_lease_missing &["reason"],
        "1 for the reason why a port has no mapping on the gateway, 0 for the others.",
        |source| missing_lease(source.node);
    Gauge warren_pinholes &["transport"], "Ports for which the firewall of the router is open for IPv6.",
        |source| pinholes(source.node);
    Gauge warren_lan_nodes &[], "Other nodes that answer on the LANs of the host.",
        |source| one([], float(count(source.node.lan.nodes.iter())));
    Counter warren_lan_messages_total &["outcome"],
        "Messages by which nodes find each other on LANs; 0 while lan-discovery is off.",
        |source| lan_messages(source.node);
    Counter warren_hole_punches_total &["result"],
        "Attempts of this node to open a path to another one behind NAT by sending from both sides at once.",
        |source| hole_punches(source.node);
    Gauge warren_peer_cache_entries &["state"],
        "Peers that could be dialled: confirmed in this run, remembered from disk, or failing.",
        |source| cache(source.node);
    Gauge warren_endpoints &["state"],
        "Public endpoints that the node announces, by what other nodes found when they tried them.",
        |source| own_endpoints(source.node);
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
    Counter warren_mailbox_dropped_total &["actor"],
        "Readings that an actor did not get because its mailbox was full; the next reading replaced each.",
        |source| map(&source.node.readings_dropped, |actor| vec![s(actor)]);
    Counter warren_actor_restarts_total &["actor"], "Actors restarted after a panic.",
        |source| map(&source.node.counts.actor_restarts, |actor| vec![s(actor)]);

    Counter process_cpu_seconds_total &[], "CPU time of the daemon, user and system, without its children.",
        |source| own_process(source, |p| Some(p.usage.cpu.as_secs_f64()));
    Gauge process_resident_memory_bytes &[], "Resident memory of the daemon.",
        |source| own_process(source, |p| Some(float(p.usage.resident_bytes)));
    Gauge process_virtual_memory_bytes &[], "Virtual memory of the daemon.",
        |source| own_process(source, |p| Some(float(p.virtual_bytes)));
    Gauge process_open_fds &[], "Open file descriptors of the daemon.",
        |source| own_process(source, |p| p.open_fds.map(float));
    Gauge process_max_fds &[], "Most file descriptors that the daemon may open.",
        |source| own_process(source, |p| p.max_fds.map(float));
    Gauge process_threads &[], "Threads of the daemon.",
        |source| own_process(source, |p| Some(float(p.threads)));
    Gauge process_start_time_seconds &[], "When the daemon started.",
        |source| own_process(source, |p| Some((source.node.booted_at + p.started).as_secs_f64()));
}

/// The age of the newest snapshot from which the daemon counts as unhealthy.
pub(super) const MAX_HEALTHY_AGE: Duration = Duration::from_secs(10);
