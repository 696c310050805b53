//! A leaf carries nobody's traffic, a node to be avoided tells of others at its price, and ways that lead back are known for it.

use anyhow::Result;
use lab::{Lab, Options, is_left_out, measure::start_whole, process::wait_until};
use policies::routes::leads_back;
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
    let lab = Lab::joined(Options {
        nodes: 6,
        dial: Some(2),
        ..Options::default()
    })?;
    lab.node(0)?.configure("transit", "leaf")?;
    lab.node(1)?.configure("transit", "avoid")?;
    start_whole(&lab)?;
    // Its neighbours hear of others by an ordinary node and by the dear one.
    let told = wait_until(Duration::from_secs(60), || {
        let all = [told_by(&lab, 2), told_by(&lab, 1)];
        let told = all.into_iter().collect::<Result<Vec<_>>>();
        told.map_or(None, |told| {
            told.iter().all(|one| !one.is_empty()).then_some(told)
        })
    });
    let told = told.unwrap_or_default();
    let [ordinary, dear] = told.as_slice() else {
        anyhow::bail!("nobody was told of others")
    };
    assert!(
        ordinary.iter().any(|metric| *metric < PRICE),
        "{ordinary:?}"
    );
    assert!(dear.iter().all(|metric| *metric >= PRICE), "{dear:?}");
    assert_eq!(
        told_by(&lab, 0)?,
        Vec::<u16>::new(),
        "the leaf told of others"
    );
    Ok(())
}

/// Routes that lead from a neighbour of this node through it, and how many of these the neighbour announces to it so
/// that the policy knows them for what they are.
fn led_back(lab: &Lab, node: usize) -> Result<(usize, usize)> {
    let node = lab.node(node)?;
    let own = node.identity()?.prefix.clone();
    let ours = node.ask::<RoutesDocument>(ROUTES_PATH)?.routes;
    let is_known = |by: &str, to: &str| {
        let to_it = || ours.iter().filter(|route| route.node == to);
        let metric = to_it().find(|route| route.installed)?.metric;
        let back = to_it().find(|route| route.via == by)?;
        Some(leads_back(back.metric, back.refmetric, metric))
    };
    let (mut through, mut known) = (0, 0);
    for neighbour in lab.nodes() {
        let name = neighbour.identity()?.prefix.clone();
        let routes = neighbour.ask::<RoutesDocument>(ROUTES_PATH)?.routes;
        for route in routes
            .iter()
            .filter(|route| route.via == own && route.installed && route.node != own)
        {
            through += 1;
            known += usize::from(is_known(&name, &route.node).unwrap_or_default());
        }
    }
    Ok((through, known))
}

#[test]
fn a_neighbour_announces_ways_that_lead_back_so_that_they_are_known_for_it() -> Result<()> {
    if is_left_out("transit") {
        return Ok(());
    }
    let lab = Lab::joined(Options {
        nodes: 6,
        dial: Some(1),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    let mut last = (0, 0);
    let all_known = wait_until(Duration::from_secs(60), || {
        let all: Result<Vec<_>> = (0..6).map(|node| led_back(&lab, node)).collect();
        last = all
            .ok()?
            .into_iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (last.0 > 0 && last.0 == last.1).then_some(())
    });
    assert!(
        all_known.is_some(),
        "ways through others, and known for it: {last:?}"
    );
    Ok(())
}
