//! Says by which tunnel packets to another node leave this one, and what the probes of that tunnel measure.

use crate::sinks::telemetry::Snapshot;
use policies::{
    names::Prefix,
    observation::{INFINITY, Route},
};
use wire::peer::{NextHopDocument, VERSION};

/// The installed route to a node that leads somewhere.
pub fn route_to(snapshot: &Snapshot, node: Prefix) -> Option<&Route> {
    let mut routes = snapshot.babel.iter().flat_map(|table| &table.routes);
    routes.find(|route| route.node == node && route.installed && route.metric != INFINITY)
}

/// The tunnel by which packets to a node leave; `None` if there is no route.
pub fn next_hop(snapshot: &Snapshot, to: Prefix) -> Option<NextHopDocument> {
    let route = route_to(snapshot, to)?;
    let probe = snapshot.probes.get(&route.slot);
    Some(NextHopDocument {
        version: VERSION,
        prefix: snapshot.identity.prefix,
        to,
        tunnel: route.slot,
        neighbour: route.via,
        rtt_seconds: probe.and_then(|probe| Some(probe.rtt?.as_secs_f64())),
        loss_ratio: probe.and_then(|probe| probe.loss_ratio()),
    })
}
