//! Other nodes try the endpoints that a node announces: those that answer are confirmed, and one that does not comes last.

use anyhow::{Context, Result, ensure};
use lab::{Lab, Options, is_skipped_without_root, wait::wait_until};
use std::time::Duration;
use wire::control::{OwnEndpointEntry, STATUS_PATH, StatusDocument};

/// The number of the node with an endpoint at which nothing listens.
const NODE: usize = 2;
/// That endpoint, which the configuration names.
const SILENT: &str = "udp:45.67.1.3:9999";
/// Longest wait until each endpoint was tried twice.
const CHECK_TIMEOUT: Duration = Duration::from_secs(90);

#[test]
fn endpoints_that_answer_others_are_confirmed_and_a_silent_one_comes_last() -> Result<()> {
    if is_skipped_without_root("endpoints_checked") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 3,
        ..Options::default()
    })?;
    let node = lab.node(NODE)?;
    node.configure("endpoints", &format!("[\"{SILENT}\"]"))?;
    lab.start_and_converge()?;
    let expected = [
        ("udp:45.67.1.3:1194", "confirmed"),
        ("tcp:45.67.1.3:1194", "confirmed"),
        (SILENT, "silent"),
    ];
    let seen = |entry: &OwnEndpointEntry| (entry.endpoint.clone(), entry.reachability.clone());
    let expected = expected.map(|(endpoint, state)| (endpoint.to_owned(), state.to_owned()));
    let mut last = Vec::new();
    let checked = wait_until(CHECK_TIMEOUT, || {
        let status: StatusDocument = node.control_document(STATUS_PATH).ok()?;
        last = status.endpoints.iter().map(seen).collect();
        (last == expected).then_some(())
    });
    checked.with_context(|| format!("{last:?}"))?;
    let silent = node.metric("warren_endpoints{state=\"silent\"}")?;
    ensure!(silent == 1, "{silent}");
    Ok(())
}
