//! Five nodes: the verbs with which an operator looks at the network and changes it say what really happens.

use anyhow::{Context, Result};
use lab::{Lab, Node, Options, is_skipped_without_root, wait::wait_until};
use std::time::Duration;
use wire::control::{ChangedNodes, EVENTS_PATH, Event, EventEntry, EventsDocument};

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

#[test]
fn the_verbs_of_an_operator_say_what_happens() -> Result<()> {
    if is_skipped_without_root("operator_verbs") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options::with_nodes(NODES))?;
    check_events(&lab, lab.node(0)?, lab.node(NODES - 1)?)
}
