//! A leaf carries nobody's traffic, and a node to be avoided tells of others at its price.

use anyhow::Result;
use lab::{Lab, Options, is_left_out, measure::start_whole, spawn::wait_until};
use std::time::Duration;
use wire::control::{ROUTES_PATH, RoutesDocument};

/// What `transit: avoid` adds.
const PRICE: u16 = 10_000;

/// Metrics of the routes to third nodes that others have been told by `teller`, infinite ones left out.
fn told_by(lab: &Lab, teller: usize) -> Result<Vec<u16>> {
    let teller = lab.node(teller)?.identity()?.prefix.clone();
    let mut metrics = Vec::new();
    for node in lab.nodes() {
        let own = node.identity()?.prefix.clone();
        let routes = node.ask::<RoutesDocument>(ROUTES_PATH)?.routes;
        let told = routes.iter().filter(|route| {
            let third = route.node != teller && route.node != own;
            route.via == teller && third && route.metric != u16::MAX
        });
        metrics.extend(told.map(|route| route.metric));
    }
    Ok(metrics)
}

#[test]
fn a_leaf_is_no_way_and_a_node_to_be_avoided_a_dear_one() -> Result<()> {
    if is_left_out("transit") {
        return Ok(());
    }
    let lab = Lab::joined(Options { nodes: 6, dial: Some(2), ..Options::default() })?;
    lab.node(0)?.configure("transit", "leaf")?;
    lab.node(1)?.configure("transit", "avoid")?;
    start_whole(&lab)?;
    // Its neighbours hear of others by an ordinary node and by the dear one.
    let told = wait_until(Duration::from_secs(60), || {
        let all = [told_by(&lab, 2), told_by(&lab, 1)];
        let told = all.into_iter().collect::<Result<Vec<_>>>();
        told.map_or(None, |told| told.iter().all(|one| !one.is_empty()).then_some(told))
    });
    let told = told.unwrap_or_default();
    let [ordinary, dear] = told.as_slice() else { anyhow::bail!("nobody was told of others") };
    assert!(ordinary.iter().any(|metric| *metric < PRICE), "{ordinary:?}");
    assert!(dear.iter().all(|metric| *metric >= PRICE), "{dear:?}");
    assert_eq!(told_by(&lab, 0)?, Vec::<u16>::new(), "the leaf told of others");
    Ok(())
}
