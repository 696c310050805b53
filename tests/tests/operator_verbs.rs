//! Six nodes: the verbs with which an operator looks at the network and changes it say what really happens.

use anyhow::{Context, Result, bail};
use lab::{
    Lab, Node, Options, actor_panics::make_panic, is_skipped_without_root, wait::wait_until,
};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};
use wire::control::{
    ChangedNodes, ClosedTunnel, EVENTS_PATH, Event, EventEntry, EventsDocument, ROUTES_PATH,
    RouteEntry, RoutesDocument, STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelEntry,
    TunnelsDocument,
};

/// Nodes of the network. They dial twelve tunnels at most for fifteen pairs, so that some are no neighbours.
const NODES: usize = 6;
/// Longest time until a change is shown.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Most tunnels that are closed until a dial of this node is faster than one of the peer.
const MAX_ATTEMPTS: usize = 5;

/// The events that `warren events --json` prints.
fn printed_events(node: &Node) -> Result<Vec<EventEntry>> {
    let printed = node.warren_command(&["events", "--json", "-n", "1000"])?;
    let events = printed.lines().map(serde_json::from_str);
    events.collect::<Result<_, _>>().context(printed.clone())
}

/// A node by which this one does not reach others, so that only that node is lost if it is killed.
fn dispensable<'a>(lab: &'a Lab, watcher: &Node) -> Result<&'a Node> {
    let document: RoutesDocument = watcher.control_document(ROUTES_PATH)?;
    let leads_on = |node: &Node| {
        let mut routes = document.routes.iter().filter(|route| route.installed);
        routes.any(|route| {
            node.prefix()
                .is_ok_and(|prefix| route.via == prefix && route.node != prefix)
        })
    };
    let mut others = lab
        .nodes()
        .iter()
        .filter(|node| node.index() != watcher.index());
    others
        .find(|node| !leads_on(node))
        .context("each node leads to another one")
}

/// Kills a node, and checks that another one logs its loss, and the failed dials that follow as one event.
fn check_events(lab: &Lab, watcher: &Node) -> Result<()> {
    lab.wait_for_settled_tunnels()?;
    let killed = dispensable(lab, watcher)?;
    let newest = printed_events(watcher)?.last().context("no event")?.number;
    let address = format!("{EVENTS_PATH}?after={newest}&wait_seconds=3");
    killed.kill();
    let next = || {
        let document: EventsDocument = watcher.control_document(&address).ok()?;
        (!document.events.is_empty()).then_some(())
    };
    wait_until(CHANGE_TIMEOUT, next).context("no request ends with an event")?;
    let lost = ChangedNodes {
        count: 1,
        reachable: u64::try_from(NODES - 2)?,
    };
    let prefix = killed.prefix()?;
    wait_for_event(watcher, newest, "loss of a node", |entry| {
        entry.event == Event::NodesLost(lost) && entry.node.as_deref() == Some(prefix)
    })?;
    let text = watcher.warren_command(&["events", prefix])?;
    let expected = format!("1 node became unreachable; {} left", NODES - 2);
    assert!(text.contains(&expected), "{text}");
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
        && is("/hops/0/link/tunnel", &route.slot)
        && is("/hops/1/node", &route.node)
        // What the neighbour says of its own tunnel.
        && is("/hops/1/link/prefix", &route.via)
        && is("/hops/1/link/neighbour", &route.node)
        && trace.pointer("/hops/1/link/tunnel").is_some())
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

/// Waits until a node has logged an event that `is_wanted` about the tunnel or node, after the event `newest`.
fn wait_for_event(
    node: &Node,
    newest: u64,
    what: &str,
    is_wanted: impl Fn(&EventEntry) -> bool,
) -> Result<()> {
    let is_logged = || {
        let events = printed_events(node).ok()?;
        let mut later = events.iter().filter(|entry| entry.number > newest);
        later.find(|entry| is_wanted(entry)).map(|_| ())
    };
    wait_until(CHANGE_TIMEOUT, is_logged).with_context(|| node.describe(&format!("has no {what}")))
}

fn newest_event(node: &Node) -> Result<u64> {
    Ok(printed_events(node)?.last().context("no event")?.number)
}

/// A tunnel that a node of the network dialled, and that is up and no duplicate.
/// The node has another one to dial beside the peer of this tunnel.
fn dialled_tunnel(lab: &Lab) -> Result<(&Node, TunnelEntry)> {
    let find = || {
        lab.nodes().iter().find_map(|node| {
            let document: TunnelsDocument = node.control_document(TUNNELS_PATH).ok()?;
            let tunnels = document.tunnels;
            let peers: BTreeSet<_> = tunnels.iter().map(|tunnel| &tunnel.peer).collect();
            if peers.len() >= NODES - 1 {
                return None;
            }
            let is_wanted = |tunnel: &&TunnelEntry| {
                let same_peer = tunnels.iter().filter(|other| other.peer == tunnel.peer);
                tunnel.role == "dialled" && tunnel.phase == "up" && same_peer.count() == 1
            };
            let found = tunnels.iter().find(is_wanted).cloned();
            found.map(|tunnel| (node, tunnel))
        })
    };
    wait_until(CHANGE_TIMEOUT, find).context("no node has a dialled tunnel")
}

fn pinned_nodes(node: &Node) -> Result<Vec<String>> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    Ok(status.pins.into_iter().map(|pin| pin.prefix).collect())
}

fn wait_for_pins(node: &Node, expected: &[&str]) -> Result<()> {
    wait_until(CHANGE_TIMEOUT, || {
        (pinned_nodes(node).ok()? == expected).then_some(())
    })
    .with_context(|| format!("pinned are {:?}, not {expected:?}", pinned_nodes(node)))
}

/// Pins the peer of a tunnel, which outlives the policy actor and protects the tunnel from an operator's own close.
fn check_pins(lab: &Lab) -> Result<()> {
    let (node, tunnel) = dialled_tunnel(lab)?;
    let (slot, peer) = (tunnel.slot.as_str(), tunnel.peer.as_str());
    node.warren_command(&["pin", slot])?;
    wait_for_pins(node, &[peer])?;
    let refused = node.warren_command(&["close", slot]).err();
    let refused = refused.context("a pinned tunnel was closed")?;
    assert!(format!("{refused:#}").contains("is pinned"), "{refused:#}");
    make_panic(node, "policy")?;
    let is_spared = || {
        let why = node.warren_command(&["why", peer]).ok()?;
        why.contains("an operator pinned the peer").then_some(())
    };
    wait_until(CHANGE_TIMEOUT, is_spared).context("the restarted policy does not know the pin")?;
    assert_eq!(pinned_nodes(node)?, [peer]);
    node.warren_command(&["unpin", peer])?;
    wait_for_pins(node, &[])
}

/// Closes a tunnel, and dials its peer again; returns `false` if the peer was faster and dialled this node.
fn close_and_dial(lab: &Lab) -> Result<bool> {
    let (node, tunnel) = dialled_tunnel(lab)?;
    let (slot, peer) = (tunnel.slot.as_str(), tunnel.peer.as_str());
    let newest = newest_event(node)?;
    let closing = node.warren_command(&["close", slot])?;
    assert!(closing.contains("traffic moves away"), "{closing}");
    wait_for_event(node, newest, "closed tunnel", |entry| {
        let is_operator = |closed: &ClosedTunnel| closed.reason == "operator";
        matches!(&entry.event, Event::TunnelClosed(closed) if is_operator(closed))
            && entry.tunnel.as_deref() == Some(slot)
    })?;
    match node.warren_command(&["dial", peer]) {
        Ok(_) => {}
        Err(error) if format!("{error:#}").contains("a tunnel to") => return Ok(false),
        Err(error) => return Err(error),
    }
    wait_for_event(node, newest, "new tunnel", |entry| {
        entry.event == Event::TunnelUp && entry.node.as_deref() == Some(peer)
    })?;
    Ok(true)
}

fn check_orders(lab: &Lab) -> Result<()> {
    check_pins(lab)?;
    for _ in 0..MAX_ATTEMPTS {
        if close_and_dial(lab)? {
            return Ok(());
        }
    }
    bail!("the peers of {MAX_ATTEMPTS} closed tunnels dialled first");
}

#[test]
fn the_verbs_of_an_operator_say_what_happens() -> Result<()> {
    if is_skipped_without_root("operator_verbs") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    let watcher = lab.node(0)?;
    check_paths(&lab)?;
    check_orders(&lab)?;
    check_events(&lab, watcher)
}
