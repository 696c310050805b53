//! A host forwards packets for others, but its firewall drops those of the network.

use super::{Extent, Scenario, TIMEOUT, finding, reaches, time_until};
use crate::{Lab, Options, network::underlay::bridge_port, node::Node, process::run_with_input};
use anyhow::{Context, Result};
use std::{process::Command, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument};

/// The nodes that have no direct path to each other.
const SEPARATED: (usize, usize) = (0, 2);
/// The node whose firewall drops what it should forward, as Docker's does.
const BLOCKED: usize = 1;
/// Longest wait until babeld has restarted with another role, for which nodes spread over half a minute.
const ROLE_TIMEOUT: Duration = Duration::from_secs(100);
/// Longest wait until a node changes what it believes of its host: after twenty seconds of probes, and a minute after the last change.
const BELIEF_TIMEOUT: Duration = Duration::from_secs(120);
/// Pings between the separated nodes.
const PINGS: usize = 20;

/// The table that drops, and the one that separates two nodes.
const DROP: &str = "add table inet docker\nadd chain inet docker forward { type filter hook forward priority 0; policy drop; }\n";

pub(super) fn measure(extent: Extent) -> Result<Vec<Scenario>> {
    let lab = Lab::build_joined(Options::with_nodes(4))?;
    separate(&lab)?;
    let blocked = lab.node(BLOCKED)?;
    nft(blocked.namespace(), DROP)?;
    lab.start_nodes()?;
    let (from, to) = (lab.node(SEPARATED.0)?, lab.node(SEPARATED.1)?);
    let whole = time_until(ROLE_TIMEOUT, || reaches(from, to) && reaches(to, from));
    let report = finding(blocked, "transit_blocked", TIMEOUT);
    let answered = (0..PINGS).filter(|_| reaches(from, to)).count();
    let passed = whole.is_some() && report.is_some() && answered == PINGS;
    let name = format!(
        "a firewall drops forwarded packets from the start; {answered} of {PINGS} pings around it"
    );
    let mut scenarios = vec![Scenario::new(name, whole, report, passed)];
    if extent == Extent::Full {
        nft(blocked.namespace(), "delete table inet docker\n")?;
        let gone = time_until(BELIEF_TIMEOUT, || !has_finding(blocked).unwrap_or(true));
        let name = "the firewall lets forwarded packets pass again";
        scenarios.push(Scenario::new(name, gone, None, gone.is_some()));
        nft(blocked.namespace(), DROP)?;
        let report = finding(blocked, "transit_blocked", BELIEF_TIMEOUT);
        let whole = time_until(ROLE_TIMEOUT, || {
            let answered = (0..PINGS).filter(|_| reaches(from, to)).count();
            answered == PINGS
        });
        let passed = report.is_some() && whole.is_some();
        let name = "a firewall drops forwarded packets while the node runs";
        scenarios.push(Scenario::new(name, whole, report, passed));
    }
    lab.stop_nodes();
    Ok(scenarios)
}

fn has_finding(node: &Node) -> Result<bool> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    let mut findings = status.health.findings.iter();
    Ok(findings.any(|finding| finding.id == "transit_blocked"))
}

/// Drops what two nodes send to each other on the lab's internet.
fn separate(lab: &Lab) -> Result<()> {
    let (one, other) = (bridge_port(SEPARATED.0), bridge_port(SEPARATED.1));
    let rules = format!(
        "add table bridge apart\nadd chain bridge apart forward {{ type filter hook forward priority 0; }}\nadd rule bridge apart forward iifname \"{one}\" oifname \"{other}\" drop\nadd rule bridge apart forward iifname \"{other}\" oifname \"{one}\" drop\n"
    );
    nft(&lab.internet_namespace(), &rules)
}

fn nft(namespace: &str, rules: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "nft", "-f", "-"]);
    run_with_input(&mut command, rules).context("nft failed (package nftables)")
}
