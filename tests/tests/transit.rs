//! A leaf carries no traffic of others, a node with `transit: avoid` announces others at its transit cost, and the policy
//! recognises routes that lead back.

use anyhow::{Context, Result};
use lab::{Lab, Options, is_skipped_without_root, wait::wait_until};
use policies::routes::leads_back;
use std::time::Duration;
use wire::control::{ROUTES_PATH, RouteEntry, RoutesDocument};

/// Nodes of each network.
const NODES: usize = 6;
/// The metric that `transit: avoid` adds.
const TRANSIT_COST: u16 = 10_000;
/// The metric of a route that cannot be used (RFC 8966, section 3.5.5).
const INFINITY: u16 = u16::MAX;
/// Longest wait until routes are as expected.
const ROUTES_TIMEOUT: Duration = Duration::from_secs(60);

fn routes_of(lab: &Lab, index: usize) -> Result<Vec<RouteEntry>> {
    let document: RoutesDocument = lab.node(index)?.control_document(ROUTES_PATH)?;
    Ok(document.routes)
}

/// Finite metrics of the routes to third nodes that other nodes have received from `announcer`.
fn metrics_announced_by(lab: &Lab, announcer: usize) -> Result<Vec<u16>> {
    let announcer = lab.node(announcer)?.prefix()?;
    let mut metrics = Vec::new();
    for node in lab.nodes() {
        let own_prefix = node.prefix()?;
        let routes = routes_of(lab, node.index())?.into_iter();
        let announced = routes.filter(|route| {
            let is_third_node = route.node != announcer && route.node != own_prefix;
            route.via == announcer && is_third_node && route.metric != INFINITY
        });
        metrics.extend(announced.map(|route| route.metric));
    }
    Ok(metrics)
}

#[test]
fn a_leaf_announces_no_route_and_a_node_to_be_avoided_only_expensive_ones() -> Result<()> {
    if is_skipped_without_root("transit") {
        return Ok(());
    }
    let (leaf, avoided, ordinary) = (0, 1, 2);
    let lab = Lab::build_joined(Options::with_nodes(NODES))?;
    lab.node(leaf)?.configure("transit", "leaf")?;
    lab.node(avoided)?.configure("transit", "avoid")?;
    lab.start_and_converge()?;
    let announced_by = |index: usize| {
        wait_until(ROUTES_TIMEOUT, || {
            let metrics = metrics_announced_by(&lab, index).ok()?;
            (!metrics.is_empty()).then_some(metrics)
        })
        .with_context(|| format!("node {index} announced no route to a third node"))
    };
    let ordinary_metrics = announced_by(ordinary)?;
    assert!(
        ordinary_metrics.iter().any(|metric| *metric < TRANSIT_COST),
        "{ordinary_metrics:?}"
    );
    let avoided_metrics = announced_by(avoided)?;
    assert!(
        avoided_metrics.iter().all(|metric| *metric >= TRANSIT_COST),
        "{avoided_metrics:?}"
    );
    assert_eq!(metrics_announced_by(&lab, leaf)?, [0; 0]);
    Ok(())
}

/// Routes of neighbours that lead through one node or several nodes.
#[derive(Clone, Copy, Debug, Default)]
struct RoutesThrough {
    /// All such routes.
    count: usize,
    /// Those that the neighbour announces to the node, and that the policy recognises as leading back to it.
    recognised: usize,
}

impl RoutesThrough {
    fn add(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            recognised: self.recognised + other.recognised,
        }
    }
}

fn routes_through(lab: &Lab, index: usize) -> Result<RoutesThrough> {
    let own_prefix = lab.node(index)?.prefix()?;
    let own_routes = routes_of(lab, index)?;
    let is_recognised = |neighbour: &str, destination: &str| {
        let routes = || own_routes.iter().filter(|route| route.node == destination);
        let metric = routes().find(|route| route.installed)?.metric;
        let back = routes().find(|route| route.via == neighbour)?;
        Some(leads_back(back.metric, back.refmetric, metric))
    };
    let mut through = RoutesThrough::default();
    for neighbour in lab.nodes() {
        for route in routes_of(lab, neighbour.index())? {
            if route.via == own_prefix && route.installed && route.node != own_prefix {
                let recognised = is_recognised(neighbour.prefix()?, &route.node);
                through.count += 1;
                through.recognised += usize::from(recognised.unwrap_or_default());
            }
        }
    }
    Ok(through)
}

#[test]
fn a_neighbour_announces_routes_that_lead_back_so_that_the_policy_recognises_them() -> Result<()> {
    if is_skipped_without_root("transit") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options {
        nodes: NODES,
        tunnels_to_dial: Some(1),
        ..Options::default()
    })?;
    let mut last_reading = RoutesThrough::default();
    let all_recognised = wait_until(ROUTES_TIMEOUT, || {
        let readings: Result<Vec<_>> = (0..NODES)
            .map(|index| routes_through(&lab, index))
            .collect();
        last_reading = readings
            .ok()?
            .into_iter()
            .fold(RoutesThrough::default(), RoutesThrough::add);
        (last_reading.count > 0 && last_reading.count == last_reading.recognised).then_some(())
    });
    assert!(all_recognised.is_some(), "{last_reading:?}");
    Ok(())
}
