//! Findings about reachability: whether this node reaches others, and whether they can connect to it.

use super::{Finding, FindingId, Severity, span};
use crate::messages::{EndpointSource, MissingReason};
use crate::sinks::telemetry::{Row, Snapshot};
use membership::documents::is_private;
use policies::{
    hole_punching::{NatMapping, PunchResult},
    names::{Prefix, Slot, Transport},
    observation::INFINITY,
    parameters::METERED_HELLO_INTERVAL,
    path_mtu::FullSize,
    probe::max_silence,
    silence::DISCONNECTED_AFTER,
    units::Uptime,
};
use std::time::Duration;

/// Time after the start within which the absence of tunnels is reported as a start.
const START_SPAN: Duration = Duration::from_secs(15);

/// A node that was up for this long without an accepted tunnel gets the finding that nobody has dialled it.
const REACH_EXPECTED: Duration = Duration::from_secs(600);

/// Maximum number of nodes that one finding names.
const MAX_NAMED_NODES: usize = 3;

/// Returns what keeps the node from reaching others, or that it waits for others.
pub(super) fn connection(node: &Snapshot, now: Uptime) -> Option<Finding> {
    let up: Vec<_> = node.rows.live().filter(|row| row.is_up()).collect();
    if up.is_empty() {
        return Some(no_tunnel(node, now));
    }
    let silences = up.iter().filter_map(|row| {
        let silence = row.silent_for(node.at)?;
        (silence > longest_silence(node, row, silence)).then_some(silence)
    });
    let silences: Vec<_> = silences.collect();
    if silences.len() == up.len() {
        let shortest = silences.iter().min().copied().unwrap_or_default();
        let (tunnels, silence) = (counted(up.len(), "tunnel"), span(shortest));
        let seen = format!("nothing was received by {tunnels} for {silence}");
        let finding = Finding::new(FindingId::Disconnected, seen).count(up.len());
        return Some(finding.time(shortest));
    }
    (node.is_babel_up() && node.nodes_reachable == 0).then(|| {
        let tunnels = counted(up.len(), "tunnel");
        let seen = format!("babeld has no route to any node, with {tunnels} up");
        Finding::new(FindingId::NoRoute, seen).count(up.len())
    })
}

/// Returns how long nothing may arrive by a tunnel that works and has been silent for `silence`. A peer that carries no traffic of
/// others may be metered, sends hellos rarely, and is not asked. Others answer if they were asked since.
fn longest_silence(node: &Snapshot, row: &Row, silence: Duration) -> Duration {
    let may_be_metered = |peer: Prefix| {
        let mut known = node.peers.candidates.iter();
        known
            .find(|known| known.peer == peer)
            .is_some_and(|known| known.transit_cost == INFINITY)
    };
    let parameters = node.documents.network().map(|network| network.parameters());
    let hello = parameters.unwrap_or_default().hello_interval;
    if may_be_metered(row.tunnel.peer) {
        max_silence(hello.max(METERED_HELLO_INTERVAL))
    } else if node.asked_at.is_some_and(|at| node.at.since(at) < silence) {
        DISCONNECTED_AFTER
    } else {
        max_silence(hello)
    }
}

/// Returns whether the registry answers, and neither the registry nor this node knows another node.
fn is_only_node(node: &Snapshot) -> bool {
    let registry = &node.registry;
    let is_listed_alone = registry.listed_peers == Some(0) && registry.hidden_nodes == 0;
    let knows_nobody = node.peers.candidates.is_empty() && node.peers.unused.is_empty();
    node.is_registry_up() && is_listed_alone && knows_nobody
}

fn no_tunnel(node: &Snapshot, now: Uptime) -> Finding {
    let registry = &node.registry;
    let (candidates, uptime) = (&node.peers.candidates, now.since(node.identity.started));
    if is_only_node(node) {
        let seen = "this is the only node of its network so far; it waits for others";
        return Finding::new(FindingId::WaitingForOthers, seen);
    }
    let failing = candidates.iter().filter(|peer| peer.failures > 0);
    let failing: Vec<_> = failing.map(|candidate| candidate.peer).collect();
    let seen = if uptime < START_SPAN {
        format!("no tunnel is up yet; the node started {} ago", span(uptime))
    } else if candidates.is_empty() && registry.failure.is_some() {
        "no tunnel is up: no peer is known, and the registry does not answer".to_owned()
    } else if candidates.is_empty() {
        "no tunnel is up: no peer is known that can be dialled from here".to_owned()
    } else {
        let peers = counted(candidates.len(), "peer");
        let (count, list) = (failing.len(), node_list(node, &failing));
        format!("no tunnel is up; of {peers} known, dials to {count} failed{list}")
    };
    Finding::new(FindingId::NoTunnel, seen).count(candidates.len())
}

/// Returns that all tunnels go by TCP although their peers can be dialled by UDP, too.
pub(super) fn udp_blocked(node: &Snapshot) -> Option<Finding> {
    let up: Vec<_> = node.rows.live().filter(|row| row.is_up()).collect();
    let is_all_tcp = up.iter().all(|row| row.transport() == Some(Transport::Tcp));
    let dialled: Vec<_> = up
        .iter()
        .filter(|row| matches!(row.tunnel.slot, Slot::Dialling(_)))
        .collect();
    // UDP passes to a peer that is dialled by TCP because large packets are lost.
    let offers_udp = |peer: Prefix| {
        if node.peers.narrow.contains(&peer) {
            return false;
        }
        let known = node
            .peers
            .candidates
            .iter()
            .find(|known| known.peer == peer);
        known.is_some_and(|known| {
            let mut endpoints = known.endpoints.iter();
            endpoints.any(|endpoint| endpoint.transport == Transport::Udp)
        })
    };
    let is_blocked =
        is_all_tcp && !dialled.is_empty() && dialled.iter().all(|row| offers_udp(row.tunnel.peer));
    is_blocked.then(|| {
        let tunnels = counted(dialled.len(), "dialled tunnel");
        let seen = format!("{tunnels} by TCP only, although the peers offer UDP, too");
        Finding::new(FindingId::UdpBlocked, seen).count(dialled.len())
    })
}

/// Returns that tunnels carry small packets only.
pub(super) fn narrow_path(node: &Snapshot) -> Option<Finding> {
    let is_narrow = |row: &&Row| {
        let probe = node.probes.get(&row.tunnel.slot);
        row.is_up() && probe.is_some_and(|probe| probe.full_size == FullSize::Lost)
    };
    let peers: Vec<_> = node
        .rows
        .live()
        .filter(is_narrow)
        .map(|row| row.tunnel.peer)
        .collect();
    let count = peers.len();
    (count > 0).then(|| {
        let (tunnels, list) = (counted(count, "tunnel"), node_list(node, &peers));
        let seen = format!("the path of {tunnels} drops large packets and their fragments{list}");
        Finding::new(FindingId::NarrowPath, seen).count(count)
    })
}

/// Returns that peers are known, but none by an endpoint that may be dialled.
pub(super) fn private_endpoints_only(node: &Snapshot) -> Option<Finding> {
    let hidden = usize::try_from(node.registry.hidden_nodes).unwrap_or(usize::MAX);
    let count = node.peers.unused.len().saturating_add(hidden);
    let is_only = node.peers.candidates.is_empty() && count > 0;
    is_only.then(|| {
        let reason = node.peers.unused.first();
        let reason = reason.map_or(
            "they are in other networks than this host".to_owned(),
            |unused| format!("{}: {}", node.names.describe(unused.peer), unused.reason),
        );
        let seen = format!("other nodes are known by private endpoints only: {reason}");
        Finding::new(FindingId::PrivateEndpointsOnly, seen).count(count)
    })
}

/// Returns that nobody can dial the node, or that nobody has done so for long. A node that has a tunnel does its work all the
/// same, such as one behind NAT; one without any would need to be dialled.
pub(super) fn not_reached(node: &Snapshot, now: Uptime) -> Option<Finding> {
    let processes = &node.processes.processes;
    let has_server = processes
        .iter()
        .any(|process| process.name.starts_with("server-") && process.ready);
    if !has_server || node.registry.called_at.is_none() {
        return None;
    }
    let has_tunnel = node.rows.live().any(Row::is_up);
    let severity = if has_tunnel {
        Severity::Information
    } else {
        Severity::Degraded
    };
    let endpoints = &node.own_endpoints.endpoints;
    if endpoints.is_empty() {
        let seen = "no endpoint is announced, so no other node can dial this one";
        return Some(Finding::new(FindingId::NoEndpoint, seen).severity(severity));
    }
    let uptime = now.since(node.identity.started);
    let has_others = if has_tunnel {
        node.nodes_reachable > 0
    } else {
        !is_only_node(node)
    };
    let is_expected = uptime >= REACH_EXPECTED && has_others;
    (is_expected && node.reached.is_empty()).then(|| {
        let are_private = endpoints.iter().all(|(endpoint, _)| is_private(*endpoint));
        let noun = if are_private {
            "private endpoint"
        } else {
            "endpoint"
        };
        let (endpoints, time) = (endpoints.len(), span(uptime));
        let seen = format!(
            "no other node got through to the {} of this one in {time}",
            counted(endpoints, noun)
        );
        Finding::new(FindingId::NotReached, seen)
            .severity(severity)
            .count(endpoints)
            .time(uptime)
    })
}

/// Returns why the router maps no port to this host, unless others can reach the host without that.
pub(super) fn port_mapping_missing(node: &Snapshot) -> Option<Finding> {
    let missing = node.leases.missing.as_ref()?;
    let mut endpoints = node.own_endpoints.endpoints.iter();
    let has_public_endpoint = endpoints
        .any(|(endpoint, source)| !is_private(*endpoint) && *source != EndpointSource::PortMapping);
    let needs_none = [MissingReason::NotNeeded, MissingReason::NoGateway];
    if has_public_endpoint || needs_none.contains(&missing.reason) {
        return None;
    }
    // A node in a LAN of its peers needs no mapping.
    let is_reached = missing.reason == MissingReason::NoAnswer && !node.reached.is_empty();
    let severity = if is_reached {
        Severity::Information
    } else {
        Severity::Degraded
    };
    let text = &missing.text;
    let seen = if node.leases.leases.is_empty() {
        format!("the router maps no port to this host: {text}")
    } else {
        format!("the router maps not all ports to this host: {text}")
    };
    Some(Finding::new(FindingId::PortMappingMissing, seen).severity(severity))
}

/// Returns why the router does not open its firewall for IPv6; it is worse if no other node reaches this one.
pub(super) fn ipv6_firewall_closed(node: &Snapshot) -> Option<Finding> {
    let missing = node.pinholes.missing.as_ref()?;
    if missing.reason == MissingReason::NotNeeded {
        return None;
    }
    let severity = match node.reached.is_empty() {
        true => Severity::Degraded,
        false => Severity::Information,
    };
    let scope = match node.pinholes.pinholes.is_empty() {
        true => "opens its firewall for no IPv6 endpoint of this node",
        false => "does not open its firewall for all IPv6 endpoints of this node",
    };
    let seen = format!("the router {scope}: {}", missing.text);
    Some(Finding::new(FindingId::Ipv6FirewallClosed, seen).severity(severity))
}

/// Returns that this node's NAT keeps nodes behind other NATs from a direct tunnel to it, unless others reach it.
pub(super) fn endpoint_dependent_nat(node: &Snapshot) -> Option<Finding> {
    let punches = &node.hole_punches;
    if punches.mapping != NatMapping::EndpointDependent || !node.reached.is_empty() {
        return None;
    }
    let results = punches.results.iter();
    let failed = results.filter(|(_, result)| **result == PunchResult::EndpointDependentNat);
    let failed: Vec<_> = failed.map(|(peer, _)| *peer).collect();
    let (count, list) = (failed.len(), node_list(node, &failed));
    let failures = match count {
        0 => String::new(),
        _ => format!(
            "; hole punching failed with {}{list}",
            counted(count, "node")
        ),
    };
    let seen = format!(
        "the NAT in front of this host maps each destination to another port (symmetric){failures}"
    );
    Some(Finding::new(FindingId::EndpointDependentNat, seen).count(count))
}

/// Returns nodes by name and prefix after a colon, such as ": web (9/16), 8/16, …"; nothing if there are none.
fn node_list(node: &Snapshot, nodes: &[Prefix]) -> String {
    let named = nodes.iter().take(MAX_NAMED_NODES);
    let mut shown: Vec<_> = named.map(|prefix| node.names.describe(*prefix)).collect();
    if nodes.len() > MAX_NAMED_NODES {
        shown.push("…".to_owned());
    }
    let colon = if shown.is_empty() { "" } else { ": " };
    format!("{colon}{}", shown.join(", "))
}

/// Returns a number with its noun, such as "1 tunnel", "2 tunnels".
fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
