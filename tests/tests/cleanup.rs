//! `warren cleanup` restores a host whose daemon was killed, and changes nothing while the daemon runs.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, host_snapshot::HostSnapshot, is_skipped_without_root, progress::progress,
    wait::wait_until,
};
use std::{collections::BTreeSet, time::Duration};

/// Most links of a node in a network of three: a server's TAP for each transport, four free dialling slots, and slots of tunnels
/// that were open at the same time or rest.
const MAX_LINKS: usize = 12;
/// Time within which all children of a killed daemon must be gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait until the node behind NAT has a port mapping.
const MAPPING_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn a_host_is_as_before_after_a_kill_and_a_cleanup() -> Result<()> {
    if is_skipped_without_root("cleanup") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 3,
        ..Options::default()
    })?;
    let node = lab.node(0)?;
    let before = HostSnapshot::take(node.namespace())?;
    lab.start_and_converge()?;
    report("while the daemon runs", &Traces::read(node)?);
    check_that_a_running_daemon_is_left_alone(node)?;

    node.kill();
    report("after kill -9", &Traces::read(node)?);
    // The children may still be exiting.
    let removed = node.warren_command(&["cleanup"])?;
    progress(format!("warren cleanup: {}", removed.trim()));
    for part in [
        " links, ",
        " routes, ",
        " 1 address, ",
        " 3 rules, 1 packet filter, restored ",
    ] {
        assert!(removed.contains(part), "{removed}");
    }
    report("after warren cleanup", &Traces::read(node)?);
    assert_eq!(Traces::read(node)?, Traces::default());
    let all_gone = || node.processes().is_empty().then_some(());
    wait_until(EXIT_TIMEOUT, all_gone).with_context(|| node.describe("left children behind"))?;
    let changes = before.changes_to(&HostSnapshot::take(node.namespace())?);
    assert_eq!(changes, [""; 0]);
    assert_eq!(node.warren_command(&["cleanup"])?, "nothing to remove\n");

    node.start()?;
    lab.wait_for_convergence()?;
    node.stop_cleanly()?;
    assert_eq!(node.warren_command(&["cleanup"])?, "nothing to remove\n");
    Ok(())
}

#[test]
fn a_cleanup_removes_the_port_mappings_from_the_router() -> Result<()> {
    const INSIDE: usize = 1;
    if is_skipped_without_root("cleanup: port mappings") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 2,
        nodes_behind_nat: BTreeSet::from([INSIDE]),
        ..Options::default()
    })?;
    let node = lab.node(INSIDE)?;
    let router = lab.nat_routers().first().context("there is no router")?;
    node.start()?;
    let is_mapped = || (router.mappings().ok()?.len() == 2).then_some(());
    wait_until(MAPPING_TIMEOUT, is_mapped)
        .with_context(|| node.describe("has not two port mappings after a minute"))?;
    node.kill();
    let removed = node.warren_command(&["cleanup"])?;
    assert!(removed.contains(" 2 port mappings, "), "{removed}");
    assert_eq!(router.mappings()?, [""; 0]);
    assert_eq!(node.warren_command(&["cleanup"])?, "nothing to remove\n");
    Ok(())
}

/// Requires that `warren cleanup` fails, names the daemon's pid, and changes nothing.
fn check_that_a_running_daemon_is_left_alone(node: &Node) -> Result<()> {
    let traces = Traces::read(node)?;
    ensure!(
        (1..=MAX_LINKS).contains(&traces.links),
        "there are {} links",
        traces.links
    );
    ensure!(traces.routes > 0 && traces.rules == 3 && traces.addresses > 0);
    let children = node.children();
    let pid = node.pid().context("the daemon has exited")?;
    let error = node.warren_command(&["cleanup"]).err();
    let error = error.context("warren cleanup worked while the daemon runs")?;
    let error = error.to_string();
    for part in ["exit status: 1", &format!("warren runs here (pid {pid})")] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(error.trim().lines().count(), 1, "{error}");
    let later = Traces::read(node)?;
    assert_eq!(
        (later.links, later.rules, later.addresses),
        (traces.links, traces.rules, traces.addresses)
    );
    assert!(later.routes > 0);
    assert_eq!(node.children(), children);
    Ok(())
}

/// The numbers of things in a node's namespace that only warren creates.
#[derive(Debug, Default, PartialEq, Eq)]
struct Traces {
    links: usize,
    addresses: usize,
    routes: usize,
    rules: usize,
}

impl Traces {
    fn read(node: &Node) -> Result<Self> {
        let count = |arguments: &[&str], is_ours: &dyn Fn(&str) -> bool| {
            let listing = node.command("ip", arguments)?;
            Ok::<_, anyhow::Error>(listing.lines().filter(|line| is_ours(line)).count())
        };
        let own = format!("inet6 {}/", node.identity()?.address);
        let is_address = |line: &str| line.contains(" wrn") || line.contains(&own);
        let is_route = |line: &str| {
            line.contains(" dev wrn")
                || line.contains(" proto 197 ")
                || (197..=201).any(|table| line.contains(&format!(" table {table} ")))
        };
        let is_rule = |line: &str| line.starts_with("31999") || line.starts_with("3200");
        let routes = |family| count(&[family, "route", "show", "table", "all"], &is_route);
        Ok(Self {
            links: count(&["-o", "link"], &|line| line.contains(": wrn"))?,
            addresses: count(&["-o", "addr"], &is_address)?,
            routes: routes("-4")? + routes("-6")?,
            rules: count(&["-4", "rule"], &is_rule)? + count(&["-6", "rule"], &is_rule)?,
        })
    }
}

fn report(moment: &str, traces: &Traces) {
    let Traces {
        links,
        addresses,
        routes,
        rules,
    } = traces;
    progress(format!(
        "{moment}: {links} links, {addresses} addresses, {routes} routes, {rules} rules"
    ));
}
