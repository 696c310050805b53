//! Findings about other programs on the host that touch what the node needs there, and about other machines with the same key.

use super::{Finding, FindingId, span};
use crate::sinks::telemetry::Snapshot;
use os::kernel::Repair;
use policies::units::Uptime;
use std::time::Duration;

/// Span within which repairs are counted.
const REPAIR_SPAN: Duration = Duration::from_secs(600);

/// Number of repairs within [`REPAIR_SPAN`] from which something is said to be changed again and again.
const MANY_REPAIRS: usize = 2;

/// Span after the last rejected dial in which two machines are said to share a key.
const SHARED_SPAN: Duration = Duration::from_secs(900);

/// Returns that another machine announces itself with the certificate of this node.
pub(super) fn own_key_shared(node: &Snapshot) -> Option<Finding> {
    let other = node.registry.other_machine?;
    let seen = format!("another machine, at {other}, uses the key of this node");
    Some(Finding::new(FindingId::OwnKeyShared, seen))
}

/// Returns that two machines have dialled this node with the key of one node.
pub(super) fn peer_key_shared(node: &Snapshot, now: Uptime) -> Option<Finding> {
    let shared = node.shared_keys.iter();
    let mut recent = shared.filter(|(_, (at, _))| now.since(*at) < SHARED_SPAN);
    let (peer, (_, [first, other])) = recent.next()?;
    let name = node.names.describe(*peer);
    let seen =
        format!("two machines use the key of {name}: {first} has its tunnel, {other} is rejected");
    Some(Finding::new(FindingId::PeerKeyShared, seen).count(1 + recent.count()))
}

/// Returns that packets to a node do not leave by a tunnel.
pub(super) fn routes_diverted(node: &Snapshot) -> Option<Finding> {
    let diversion = node.host.comparison.diversion.as_ref()?;
    let seen = format!("packets to nodes that babeld has a route to {diversion}");
    Some(Finding::new(FindingId::RoutesDiverted, seen))
}

/// Returns that the node has no IPv4, since the range would hide a network of the host.
pub(super) fn ipv4_overlap(node: &Snapshot) -> Option<Finding> {
    let overlap = node.host.comparison.ipv4_overlap.as_ref()?;
    let seen = format!("this node has no IPv4 in the network: its range {overlap}");
    Some(Finding::new(FindingId::Ipv4Overlap, seen))
}

/// Returns that the node carries no traffic of others, since the host would drop it.
pub(super) fn transit_blocked(node: &Snapshot) -> Option<Finding> {
    let seen = "a firewall of this host drops packets that the node should forward for others, so it carries no transit traffic";
    let is_blocked = node.host.comparison.is_transit_blocked;
    is_blocked.then(|| Finding::new(FindingId::TransitBlocked, seen))
}

/// Returns that the node does not accept tunnels at all ports of the configuration.
pub(super) fn port_unused(node: &Snapshot) -> Option<Finding> {
    let unused = &node.identity.unused_ports;
    let seen = || format!("tunnels are not accepted at {}", unused.join(", "));
    (!unused.is_empty()).then(|| Finding::new(FindingId::PortUnused, seen()))
}

/// Returns that another program shares babeld's port.
pub(super) fn another_babeld(node: &Snapshot) -> Option<Finding> {
    let uid = node.host.comparison.other_babel_uid?;
    let seen = format!("another program of user {uid} shares babeld's UDP port 6696");
    Some(Finding::new(FindingId::AnotherBabeld, seen))
}

/// Returns that another program undoes what the node does on the host, again and again.
pub(super) fn host_changed(node: &Snapshot, now: Uptime) -> Option<Finding> {
    let is_recent = |(at, _): &&(Uptime, Vec<Repair>)| now.since(*at) < REPAIR_SPAN;
    let mut recent = node.host.repairs.iter().filter(is_recent);
    let count = recent.clone().count();
    let last = recent
        .next_back()
        .and_then(|(_, repairs)| repairs.first())?;
    (count >= MANY_REPAIRS).then(|| {
        let time = span(REPAIR_SPAN);
        let object = &last.object;
        let seen = format!(
            "another program changed the node's part of this host {count} times within {time}, at last: {object}"
        );
        Finding::new(FindingId::HostChanged, seen).count(count)
    })
}

/// Returns that something on the host cannot be restored.
pub(super) fn host_not_restored(node: &Snapshot) -> Option<Finding> {
    let failure = node.host.comparison.failure.as_ref()?;
    Some(Finding::new(FindingId::HostNotRestored, failure.clone()))
}

/// Returns that rules of other programs come first.
pub(super) fn earlier_rules(node: &Snapshot) -> Option<Finding> {
    let priorities = &node.host.comparison.earlier_rules;
    let shown: Vec<_> = priorities.iter().map(ToString::to_string).collect();
    let shown = shown.join(", ");
    let seen = || format!("routing rules of other programs are consulted first: {shown}");
    (!priorities.is_empty())
        .then(|| Finding::new(FindingId::EarlierRules, seen()).count(priorities.len()))
}
