//! Builds the documents of the control socket from a snapshot.

mod events;
mod health_report;
mod hole_punching;
mod lan;
mod leases;
mod pins;

use crate::messages::EndpointSource;
use crate::sinks::{
    health,
    telemetry::{Row, Snapshot},
};
use health_report::health_report;
use membership::documents::is_private;
use os::clock::Clock;
use policies::{
    endpoint_checks::Reachability,
    names::{Endpoint, Prefix, Slot},
    units::Uptime,
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use time::OffsetDateTime;
use wire::control::{
    DecisionEntry, DecisionsDocument, ExitRouteEntry, NamesDocument, NeighbourEntry, NodeNameEntry,
    OwnEndpointEntry, PeerEntry, PeersDocument, ProcessEntry, RegistryState, RoleCounts,
    RouteEntry, RoutesDocument, StatusDocument, TunnelEntry, TunnelsDocument, UnusedEndpointEntry,
    VERSION, VerdictEntry,
};

/// A snapshot, and the time at which it is read.
pub(crate) struct View<'a> {
    pub(super) node: &'a Snapshot,
    pub(super) now: Uptime,
}

impl<'a> View<'a> {
    pub(crate) fn new(node: &'a Snapshot, clock: &Clock) -> Self {
        Self {
            node,
            now: clock.now(),
        }
    }

    /// Converts a time to the wall clock's time; one outside the calendar becomes 1970.
    pub(crate) fn wall_time(&self, at: Uptime) -> OffsetDateTime {
        let nanos = i128::try_from(self.node.unix(at).as_nanos()).unwrap_or(0);
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    pub(crate) fn name(&self, node: Prefix) -> Option<String> {
        self.node.names.get(node).map(ToString::to_string)
    }

    fn seconds_since(&self, at: Option<Uptime>) -> Option<f64> {
        at.map(|at| self.now.since(at).as_secs_f64())
    }

    pub(crate) fn status(&self) -> StatusDocument {
        let node = self.node;
        let health = health::assess(node, self.now);
        let identity = &node.identity;
        let neighbours = node
            .babel
            .as_ref()
            .map(|table| table.neighbours.len())
            .unwrap_or(0);
        let count_up = |is_dialled: bool| {
            let matches = |row: &&Row| {
                row.is_up() && matches!(row.tunnel.slot, Slot::Dialling(_)) == is_dialled
            };
            to_u64(node.rows.live().filter(matches).count())
        };
        StatusDocument {
            version: VERSION,
            at: self.wall_time(self.now),
            software: identity.software.to_owned(),
            prefix: identity.prefix.to_string(),
            name: self.name(identity.prefix),
            address: IpAddr::V6(identity.network.node_address(identity.prefix)),
            address4: node
                .documents
                .network()
                .and_then(|network| network.payload4()?.node_address(identity.prefix)),
            network: identity.network.range().to_string(),
            pid: std::process::id(),
            uptime_seconds: self.now.since(identity.started).as_secs_f64(),
            dry_run: identity.dry_run,
            ready: health.is_ready(),
            health: health_report(&health),
            tunnels_up: RoleCounts {
                dialled: count_up(true),
                accepted: count_up(false),
            },
            nodes_known: node.nodes_known,
            nodes_reachable: node.nodes_reachable,
            routes_installed: node.routes_installed,
            routes_unreachable: node.routes_unreachable,
            endpoints: self.own_endpoints(),
            neighbours: to_u64(neighbours),
            exit_gateway: node.gateway().map(|gateway| gateway.to_string()),
            exit_gateway_name: node.gateway().and_then(|gateway| self.name(gateway)),
            registry: self.registry_state(),
            lan: self.lan(),
            hole_punching: self.hole_punching(),
            leases: self.leases(),
            pinholes: self.pinholes(),
            pinholes_missing: self.pinholes_missing(),
            processes: node.processes.processes.iter().map(process_entry).collect(),
            actor_restarts: node.counts.actor_restarts.values().sum(),
            pins: self.pins(),
            unused_endpoints: to_u64(node.peers.unused.len()),
            unused_reason: self.unused_reason(),
            minimum_version: node.required_release().map(str::to_owned),
        }
    }

    fn own_endpoints(&self) -> Vec<OwnEndpointEntry> {
        let entry = |(endpoint, source): &(Endpoint, EndpointSource)| {
            let is_private = is_private(*endpoint);
            let reached = self.node.reached.get(&(endpoint.transport, is_private));
            OwnEndpointEntry {
                endpoint: endpoint.to_string(),
                source: source.label().to_owned(),
                is_private,
                reached_seconds_ago: self.seconds_since(reached.copied()),
                reachability: self.reachability(endpoint).label().to_owned(),
            }
        };
        self.node
            .own_endpoints
            .endpoints
            .iter()
            .map(entry)
            .collect()
    }

    fn reachability(&self, endpoint: &Endpoint) -> Reachability {
        let checked = self.node.endpoint_checks.endpoints.get(endpoint);
        checked.copied().unwrap_or_default()
    }

    fn registry_state(&self) -> RegistryState {
        let registry = &self.node.registry;
        RegistryState {
            last_request_at: registry.called_at.map(|at| self.wall_time(at)),
            last_answer_at: registry.answered_at.map(|at| self.wall_time(at)),
            last_error: registry.failure.clone(),
            hidden_nodes: registry.hidden_nodes,
        }
    }

    /// Returns the reason for which the first of the unused private endpoints is not dialled.
    fn unused_reason(&self) -> Option<String> {
        let first = self.node.peers.unused.first();
        first.map(|unused| unused.reason.to_string())
    }

    pub(crate) fn tunnels(&self) -> TunnelsDocument {
        let tunnels = self.node.rows.live().map(|row| self.tunnel(row)).collect();
        TunnelsDocument {
            version: VERSION,
            at: self.wall_time(self.now),
            tunnels,
        }
    }

    fn tunnel(&self, row: &Row) -> TunnelEntry {
        let slot = row.tunnel.slot;
        let served = self.node.served_by(slot);
        let probe = self.node.probes.get(&slot);
        TunnelEntry {
            slot: slot.to_string(),
            peer: row.tunnel.peer.to_string(),
            peer_name: self.name(row.tunnel.peer),
            role: slot.role().to_string(),
            transport: row.transport().map(|transport| transport.to_string()),
            endpoint: row.tunnel.endpoint.map(|endpoint| endpoint.address),
            phase: row.tunnel.phase.label().to_owned(),
            drain_reason: row
                .tunnel
                .phase
                .drain_reason()
                .map(|reason| reason.label().to_owned()),
            age_seconds: self.seconds_since(row.tunnel.up_since),
            rx_bytes: row.carried.rx_bytes,
            tx_bytes: row.carried.tx_bytes,
            rx_bytes_per_second: round_to_tenths(row.rx_rate),
            tx_bytes_per_second: round_to_tenths(row.tx_rate),
            nodes_served: served.nodes,
            routes: served.routes,
            rtt_seconds: probe
                .and_then(|probe| probe.rtt)
                .as_ref()
                .map(Duration::as_secs_f64),
            full_size_packets: probe
                .map(|probe| probe.full_size)
                .unwrap_or_default()
                .label()
                .to_owned(),
            hole_punched: self.node.hole_punches.slots.contains(&slot),
            loss_ratio: probe.and_then(|probe| probe.loss_ratio()),
            verdict: self
                .node
                .verdicts
                .iter()
                .find(|verdict| verdict.slot == slot)
                .map(|verdict| verdict.text.clone()),
        }
    }

    pub(crate) fn names(&self) -> NamesDocument {
        let node = self.node;
        let (identity, table) = (&node.identity, node.babel.as_ref());
        let mut nodes = BTreeSet::from([identity.prefix]);
        nodes.extend(node.names.nodes());
        nodes.extend(node.rows.live().map(|row| row.tunnel.peer));
        nodes.extend(node.peers.candidates.iter().map(|peer| peer.peer));
        nodes.extend(node.peers.unused.iter().map(|unused| unused.peer));
        nodes.extend(node.log.iter().filter_map(|entry| entry.peer));
        nodes.extend(
            table
                .iter()
                .flat_map(|table| &table.routes)
                .map(|route| route.node),
        );
        let entry = |prefix: Prefix| NodeNameEntry {
            prefix: prefix.to_string(),
            name: self.name(prefix),
            address: identity.network.node_address(prefix),
        };
        NamesDocument {
            version: VERSION,
            at: self.wall_time(self.now),
            network: identity.network.range().to_string(),
            nodes: nodes.into_iter().map(entry).collect(),
        }
    }

    pub(crate) fn peers(&self) -> PeersDocument {
        let entry = |peer: &policies::observation::Candidate| PeerEntry {
            prefix: peer.peer.to_string(),
            name: self.name(peer.peer),
            endpoints: peer.endpoints.iter().map(ToString::to_string).collect(),
            confirmed_seconds_ago: self.seconds_since(peer.confirmed_at),
            failed_seconds_ago: self.seconds_since(peer.failed_at),
            failures: peer.failures,
            transit_cost: peer.transit_cost,
            slot: self.slot_of(peer.peer).map(|slot| slot.to_string()),
        };
        let unused = |unused: &crate::messages::UnusedEndpoint| UnusedEndpointEntry {
            prefix: unused.peer.to_string(),
            name: self.name(unused.peer),
            endpoint: unused.endpoint.to_string(),
            reason: unused.reason.to_string(),
        };
        let known = &self.node.peers;
        PeersDocument {
            version: VERSION,
            at: self.wall_time(self.now),
            peers: known.candidates.iter().map(entry).collect(),
            unused_endpoints: known.unused.iter().map(unused).collect(),
        }
    }

    fn slot_of(&self, peer: Prefix) -> Option<Slot> {
        self.node
            .rows
            .live()
            .find(|row| row.tunnel.peer == peer)
            .map(|row| row.tunnel.slot)
    }

    pub(crate) fn routes(&self) -> RoutesDocument {
        let network = self.node.identity.network;
        let table = self.node.babel.as_ref();
        let neighbour = |n: &policies::observation::Neighbour| NeighbourEntry {
            slot: n.slot.to_string(),
            peer: n.peer.to_string(),
            peer_name: self.name(n.peer),
            reach: n.reach,
            rxcost: n.rxcost,
            txcost: n.txcost,
            rtt_seconds: n.rtt.as_ref().map(Duration::as_secs_f64),
            cost: n.cost,
        };
        let route = |r: &policies::observation::Route| RouteEntry {
            node: r.node.to_string(),
            node_name: self.name(r.node),
            address: network.node_address(r.node),
            slot: r.slot.to_string(),
            via: r.via.to_string(),
            via_name: self.name(r.via),
            installed: r.installed,
            metric: r.metric,
            refmetric: r.refmetric,
        };
        let default = |r: &wire::babel::DefaultRoute| ExitRouteEntry {
            gateway: r.gateway.to_string(),
            gateway_name: self.name(r.gateway),
            slot: r.slot.to_string(),
            via: r.via.to_string(),
            via_name: self.name(r.via),
            installed: r.installed,
            metric: r.metric,
            refmetric: r.refmetric,
        };
        RoutesDocument {
            version: VERSION,
            at: self.wall_time(self.now),
            babeld_answers: self.node.is_babel_up(),
            neighbours: table
                .iter()
                .flat_map(|table| &table.neighbours)
                .map(neighbour)
                .collect(),
            routes: table
                .iter()
                .flat_map(|table| &table.routes)
                .map(route)
                .collect(),
            exit_routes: self.node.exit_routes.routes.iter().map(default).collect(),
        }
    }

    pub(crate) fn decisions(&self) -> DecisionsDocument {
        let decision = |entry: &crate::sinks::telemetry::Entry| DecisionEntry {
            number: entry.number,
            at: self.wall_time(entry.at),
            order: entry.order.to_owned(),
            slot: entry.slot.to_string(),
            peer: entry.peer.map(|peer| peer.to_string()),
            peer_name: entry.peer.and_then(|peer| self.name(peer)),
            reason: entry.reason.to_owned(),
            terms: entry.terms.clone(),
        };
        let verdict = |verdict: &policies::planner::Verdict| VerdictEntry {
            slot: verdict.slot.to_string(),
            peer: self
                .node
                .rows
                .peer(verdict.slot)
                .map(|peer| peer.to_string()),
            peer_name: self
                .node
                .rows
                .peer(verdict.slot)
                .and_then(|peer| self.name(peer)),
            text: verdict.text.clone(),
        };
        DecisionsDocument {
            version: VERSION,
            at: self.wall_time(self.now),
            dry_run: self.node.identity.dry_run,
            decisions: self.node.log.iter().map(|entry| decision(entry)).collect(),
            verdicts: self.node.verdicts.iter().map(verdict).collect(),
        }
    }
}

fn process_entry(process: &os::process::ProcessReading) -> ProcessEntry {
    ProcessEntry {
        name: process.name.clone(),
        pid: process.pid,
        ready: process.ready,
        starts: process.starts,
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Rounds a rate to one decimal place, since it is only an estimate.
fn round_to_tenths(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}
