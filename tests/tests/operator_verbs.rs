//! Five nodes: the verbs with which an operator looks at the network and changes it say what really happens.

use anyhow::{Context, Result};
use lab::{Lab, Node, Options, is_skipped_without_root, wait::wait_until};
use serde_json::Value;
use std::time::Duration;
use wire::control::{
    ChangedNodes, EVENTS_PATH, Event, EventEntry, EventsDocument, ROUTES_PATH, RouteEntry,
    RoutesDocument,
};

/// Nodes of the network.
const NODES: usize = 5;
/// Longest time until a change is shown.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The events that `warren events --json` prints.
fn printed_events(node: &Node) -> Result<Vec<EventEntry>> {
    let printed = node.warren_command(&["events", "--json", "-n", "1000"])?;
    let events = printed.lines().map(serde_json::from_str);
    events.collect::<Result<_, _>>().context(printed.clone())
}

/// Kills a node, and checks that another one logs its loss, and the failed dials that follow as one event.
fn check_events(lab: &Lab, watcher: &Node, killed: &Node) -> Result<()> {
    let newest = printed_events(watcher)?.last().context("no event")?.number;
    let address = format!("{EVENTS_PATH}?after={newest}&wait_seconds=4");
    killed.kill();
    let next: EventsDocument = watcher.control_document(&address)?;
    assert!(!next.events.is_empty(), "the request did not wait");
    let lost = ChangedNodes {
        count: 1,
        reachable: u64::try_from(NODES - 2)?,
    };
    let prefix = killed.prefix()?;
    let is_logged = || {
        let events = printed_events(watcher).ok()?;
        let mut later = events.iter().filter(|entry| entry.number > newest);
        let is_loss = |entry: &&EventEntry| {
            entry.event == Event::NodesLost(lost) && entry.node.as_deref() == Some(prefix)
        };
        later.find(is_loss).map(|_| ())
    };
    wait_until(CHANGE_TIMEOUT, is_logged)
        .with_context(|| watcher.describe("does not log the loss of a node"))?;
    let text = watcher.warren_command(&["events", prefix])?;
    assert!(text.contains("1 node became unreachable; 3 left"), "{text}");
    killed.start()?;
    lab.wait_for_convergence()?;
    Ok(())
}

/// The installed route to a node that is no neighbour.
fn far_route(node: &Node) -> Result<Option<RouteEntry>> {
    let document: RoutesDocument = node.control_document(ROUTES_PATH)?;
    let mut routes = document.routes.into_iter();
    Ok(routes.find(|route| route.installed && route.via != route.node))
}

/// Whether `warren trace` shows the path of this route: over the neighbour by the tunnel, then to the node.
fn is_traced(node: &Node, route: &RouteEntry) -> Result<bool> {
    let trace = node.warren_command(&["trace", &route.node, "--json"])?;
    let trace: Value = serde_json::from_str(&trace)?;
    let is = |pointer: &str, expected: &str| {
        trace.pointer(pointer).and_then(Value::as_str) == Some(expected)
    };
    Ok(trace.get("reached") == Some(&Value::Bool(true))
        && is("/hops/0/node", &route.via)
        && is("/hops/0/tunnel", &route.slot)
        && is("/hops/1/node", &route.node))
}

/// Checks round trips and hops to a node that is no neighbour, and that a node which nobody knows is an error.
fn check_paths(lab: &Lab) -> Result<()> {
    let traced = || {
        lab.nodes().iter().find_map(|node| {
            let route = far_route(node).ok()??;
            is_traced(node, &route).ok()?.then_some((node, route))
        })
    };
    let (watcher, far) =
        wait_until(CHANGE_TIMEOUT, traced).context("no path is traced as babeld says")?;
    let ping = watcher.warren_command(&["ping", &far.node, "-c", "2"])?;
    assert!(ping.contains("2 of 2 answered, 0.0 % lost"), "{ping}");
    for verb in ["ping", "trace"] {
        let error = watcher.warren_command(&[verb, "99/16"]).err();
        let error = error.with_context(|| format!("{verb} 99/16 succeeded"))?;
        assert!(
            format!("{error:#}").contains("no node 99/16 is known"),
            "{error:#}"
        );
    }
    Ok(())
}

#[test]
fn the_verbs_of_an_operator_say_what_happens() -> Result<()> {
    if is_skipped_without_root("operator_verbs") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    let watcher = lab.node(0)?;
    check_paths(&lab)?;
    check_events(&lab, watcher, lab.node(NODES - 1)?)
}
