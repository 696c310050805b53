//! `warren cleanup` restores a host whose daemon was killed, and changes nothing while the daemon runs.

use anyhow::{Context, Result, bail, ensure};
use lab::{
    Lab, Node, Options, host_snapshot::HostSnapshot, is_skipped_without_root, progress::progress,
    wait::wait_until,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use wire::control::{TUNNELS_PATH, TunnelsDocument};

/// Most links of a node in a network of three: a server's TAP for each transport, four free dialling slots, and slots of tunnels
/// that were open at the same time or rest.
const MAX_LINKS: usize = 12;
/// Time within which all children of a killed daemon must be gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait until the node behind NAT has a port mapping.
const MAPPING_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until the document of tunnels shows a tunnel that was opened or closed.
const SHOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a cleanup is tried beside a running daemon whose tunnels change meanwhile.
const MAX_TRIES: usize = 3;

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
    check_that_a_running_daemon_is_left_alone(&lab, node)?;

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

/// Requires that `warren cleanup` fails, names the daemon's pid, and changes nothing. If the node itself opens or closes a tunnel
/// meanwhile, this is checked again.
fn check_that_a_running_daemon_is_left_alone(lab: &Lab, node: &Node) -> Result<()> {
    for _ in 0..MAX_TRIES {
        lab.wait_for_settled_tunnels()?;
        let tunnels = read_tunnels(node)?;
        let before = Running::read(node)?;
        report("while the daemon runs", &before.traces);
        let Traces {
            links,
            addresses,
            routes,
            rules,
        } = before.traces;
        ensure!((1..=MAX_LINKS).contains(&links), "there are {links} links");
        ensure!(routes > 0 && rules == 3 && addresses > 0);
        check_rejected_cleanup(node)?;
        let later = Running::read(node)?;
        assert!(later.traces.routes > 0);
        if later.is_like(&before) {
            return Ok(());
        }
        let has_changed = || (read_tunnels(node).ok()? != tunnels).then_some(());
        wait_until(SHOWN_TIMEOUT, has_changed).with_context(|| {
            format!("the cleanup changed {before:?} to {later:?}, and the tunnels are the same")
        })?;
    }
    bail!("the tunnels changed during each of {MAX_TRIES} cleanups")
}

/// Requires that `warren cleanup` fails with one line that names the daemon's pid.
fn check_rejected_cleanup(node: &Node) -> Result<()> {
    let pid = node.pid().context("the daemon has exited")?;
    let error = node.warren_command(&["cleanup"]).err();
    let error = error.context("warren cleanup worked while the daemon runs")?;
    let error = error.to_string();
    for part in ["exit status: 1", &format!("warren runs here (pid {pid})")] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(error.trim().lines().count(), 1, "{error}");
    Ok(())
}

/// The slot and the peer of each tunnel of a node.
fn read_tunnels(node: &Node) -> Result<BTreeSet<(String, String)>> {
    let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    let tunnels = document.tunnels.into_iter();
    Ok(tunnels.map(|tunnel| (tunnel.slot, tunnel.peer)).collect())
}

/// What a running daemon has.
#[derive(Debug)]
struct Running {
    traces: Traces,
    /// Process ids and command lines of its children.
    children: BTreeMap<u32, String>,
}

impl Running {
    fn read(node: &Node) -> Result<Self> {
        Ok(Self {
            traces: Traces::read(node)?,
            children: node.children(),
        })
    }

    /// Whether the daemon has the same; the number of its routes may change by itself.
    fn is_like(&self, other: &Self) -> bool {
        let routes = other.traces.routes;
        let traces = Traces {
            routes,
            ..self.traces
        };
        traces == other.traces && self.children == other.children
    }
}

/// The numbers of things in a node's namespace that only warren creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
