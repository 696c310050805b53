//! What other programs have on the host beside the node: bridges, rules, a firewall, a babeld; and an uplink that goes away.

use super::{Extent, Scenario, TIMEOUT, finding, log_line, reaches, run_ip, time_until};
use crate::{
    Lab, Options, ip,
    network::underlay::bridge_port,
    node::Node,
    process::Process,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use std::{path::Path, time::Duration};
use wire::control::{STATUS_PATH, StatusDocument};

/// Number of bridges, as Docker makes one for each of its networks.
const BRIDGES: usize = 8;
/// The program of the other babeld.
const BABELD: &str = "/usr/sbin/babeld";
/// Longest wait until a node has IPv4, for which its babeld restarts within half a minute.
const RANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until the network is whole after an uplink has come back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn measure(extent: Extent) -> Result<Vec<Scenario>> {
    let lab = Lab::build_converged(Options::with_nodes(3))?;
    let (node, peer) = (lab.node(0)?, lab.node(1)?);
    let mut scenarios = vec![
        earlier_rule(node)?,
        diverting_rule(node, peer)?,
        other_babeld_after(&lab, node)?,
        late_uplink(node)?,
    ];
    // A test may run beside others, and OpenVPN sends a lost packet of its handshake again after seconds.
    let (away_s, max_return_s) = match extent {
        Extent::Full => (150, 5),
        Extent::Short => (30, 10),
    };
    let (away, max_return) = (
        Duration::from_secs(away_s),
        Duration::from_secs(max_return_s),
    );
    scenarios.push(uplink_away(&lab, away, max_return)?);
    lab.stop_nodes();
    scenarios.push(other_babeld_before(&lab, node)?);
    drop(lab);
    if extent == Extent::Full {
        scenarios.push(docker_bridges()?);
        scenarios.extend(overlapping_range()?);
    }
    Ok(scenarios)
}

/// Rules like those of Tailscale, which lead elsewhere only for other addresses.
fn earlier_rule(node: &Node) -> Result<Scenario> {
    let names_both = |seen: &String| seen.contains("5210, 5270");
    let lines = "-6 rule add pref 5210 fwmark 0x80000/0xff0000 lookup main\n-6 rule add pref 5270 lookup 52\n";
    run_ip(node.namespace(), lines)?;
    // The node may compare its host between the two rules.
    let has_both = || finding(node, "earlier_rules", Duration::ZERO).filter(names_both);
    let report =
        wait_until(TIMEOUT, has_both).or_else(|| finding(node, "earlier_rules", Duration::ZERO));
    run_ip(
        node.namespace(),
        "-6 rule del pref 5210\n-6 rule del pref 5270\n",
    )?;
    let passed = report.as_ref().is_some_and(names_both);
    Ok(Scenario::new(
        "rules like Tailscale's come before the node's",
        None,
        report,
        passed,
    ))
}

/// Rules like those of NetBird for an exit node, which take all packets.
fn diverting_rule(node: &Node, peer: &Node) -> Result<Scenario> {
    let lines = "link add vpn0 type veth peer name vpn1\nlink set vpn1 up\nlink set vpn0 up\n-6 route add default dev vpn0 table 7120\n-6 rule add pref 105 lookup main suppress_prefixlength 0\n-6 rule add pref 110 not fwmark 0x1bd00 lookup 7120\n";
    run_ip(node.namespace(), lines)?;
    let report = finding(node, "routes_diverted", TIMEOUT);
    run_ip(
        node.namespace(),
        "-6 rule del pref 105\n-6 rule del pref 110\nlink del vpn0\n",
    )?;
    let repaired = time_until(TIMEOUT, || reaches(node, peer));
    let passed = report.is_some() && repaired.is_some();
    Ok(Scenario::new(
        "rules like NetBird's divert the network's packets; then they are removed",
        repaired,
        report,
        passed,
    ))
}

/// Starts another babeld on a node's host.
pub(in crate::measure) fn start_babeld(lab: &Lab, node: &Node) -> Result<Process> {
    let file = |name: &str| lab.folder().join(name).display().to_string();
    let (pid, state) = (file("other-babeld.pid"), file("other-babeld.state"));
    let log = lab.folder().join("other-babeld.log");
    Process::start(
        node.namespace(),
        Path::new(BABELD),
        ["-I", &pid, "-S", &state, "eth0"],
        &log,
    )
}

fn other_babeld_after(lab: &Lab, node: &Node) -> Result<Scenario> {
    let other = start_babeld(lab, node)?;
    let report = finding(node, "another_babeld", TIMEOUT);
    other.stop(TIMEOUT);
    let passed = report.is_some();
    Ok(Scenario::new(
        "another babeld starts after the node",
        None,
        report,
        passed,
    ))
}

fn other_babeld_before(lab: &Lab, node: &Node) -> Result<Scenario> {
    let other = start_babeld(lab, node)?;
    pause(Duration::from_secs(1));
    node.start()?;
    wait_until(TIMEOUT, || node.exit_status());
    let report = log_line(node, &["another routing daemon holds UDP port 6696"]);
    node.kill();
    other.stop(TIMEOUT);
    let passed = report.is_some();
    Ok(Scenario::new(
        "another babeld runs when the node starts",
        None,
        report,
        passed,
    ))
}

/// An uplink that is plugged in while the node runs accepts router advertisements.
fn late_uplink(node: &Node) -> Result<Scenario> {
    let lines = "link add late0 type veth peer name late1\nlink set late0 up\nlink set late1 up\n";
    run_ip(node.namespace(), lines)?;
    let value = || {
        node.command("sysctl", &["-n", "net.ipv6.conf.late0.accept_ra"])
            .unwrap_or_default()
    };
    let repaired = time_until(TIMEOUT, || value().trim() == "2");
    run_ip(node.namespace(), "link del late0\n")?;
    Ok(Scenario::new(
        "an uplink appears later and must accept router advertisements",
        repaired,
        None,
        repaired.is_some(),
    ))
}

/// The uplink of a node loses its carrier, and gets it back. The network must be whole again within `max_return`.
fn uplink_away(lab: &Lab, away: Duration, max_return: Duration) -> Result<Scenario> {
    let (node, peer) = (lab.node(0)?, lab.node(1)?);
    let set = |state| {
        let line = format!("link set {} {state}\n", bridge_port(node.index()));
        ip::batch(Some(&lab.internet_namespace()), &line)
    };
    set("down")?;
    pause(away);
    set("up")?;
    let repaired = time_until(RETURN_TIMEOUT, || {
        reaches(node, peer) && reaches(peer, node)
    });
    let report = log_line(node, &["an uplink has come back"]);
    let passed = repaired.is_some_and(|time| time <= max_return);
    let name = format!("the uplink is away for {} s", away.as_secs());
    Ok(Scenario::new(name, repaired, report, passed))
}

/// The address of a host with many bridges is announced before those of the bridges.
fn docker_bridges() -> Result<Scenario> {
    let lab = Lab::build_joined(Options {
        has_private_addresses: true,
        ..Options::with_nodes(2)
    })?;
    let (node, peer) = (lab.node(0)?, lab.node(1)?);
    let lines: String = (0..BRIDGES)
        .map(|number| {
            let net = 17 + number;
            format!("link add br-{number} type bridge\naddr add 172.{net}.0.1/16 dev br-{number}\nlink set br-{number} up\n")
        })
        .collect();
    run_ip(node.namespace(), &lines)?;
    peer.configure("listen", "{ udp: 0, tcp: 0 }")?;
    lab.start_nodes()?;
    let repaired = time_until(TIMEOUT, || reaches(peer, node));
    let first = wait_until(TIMEOUT, || {
        let status: StatusDocument = node.control_document(STATUS_PATH).ok()?;
        let first = status.endpoints.first()?;
        Some(format!("{} ({})", first.endpoint, first.source))
    });
    let first = first.context("no endpoint is announced")?;
    lab.stop_nodes();
    let passed = repaired.is_some() && first.contains("192.168.1.1:");
    Ok(Scenario::new(
        "eight bridges beside the uplink",
        repaired,
        Some(format!("announced first: {first}")),
        passed,
    ))
}

/// The IPv4 range of the network overlaps the LAN of one node, which appears while the node runs.
fn overlapping_range() -> Result<Vec<Scenario>> {
    let lab = Lab::build_converged(Options::with_nodes(2))?;
    let (node, peer) = (lab.node(0)?, lab.node(1)?);
    let add = "link add lan0 type veth peer name lan1\nlink set lan1 up\naddr add 10.0.2.1/24 dev lan0\nlink set lan0 up\n";
    let has_ipv4 = |node: &Node| {
        let addresses = ip::output(node.namespace(), &["-4", "addr", "show", "lo"]);
        addresses.is_ok_and(|addresses| addresses.contains("inet 10."))
    };
    run_ip(node.namespace(), add)?;
    lab.registry_command("set", &["ipv4", "10.0.0.0/8"])?;
    let report = finding(node, "ipv4_overlap", TIMEOUT);
    let other = time_until(RANGE_TIMEOUT, || has_ipv4(peer));
    let passed = report.is_some() && other.is_some() && !has_ipv4(node);
    let name = "the IPv4 range of the network overlaps the LAN of one node";
    let mut scenarios = vec![Scenario::new(name, other, report, passed)];
    run_ip(node.namespace(), "link del lan0\n")?;
    let on = time_until(RANGE_TIMEOUT, || has_ipv4(node));
    let name = "the LAN that overlapped the IPv4 range is gone";
    scenarios.push(Scenario::new(name, on, None, on.is_some()));
    run_ip(node.namespace(), add)?;
    let off = time_until(TIMEOUT, || !has_ipv4(node));
    let report = finding(node, "ipv4_overlap", TIMEOUT);
    let passed = off.is_some() && report.is_some();
    let name = "a LAN appears that overlaps the IPv4 range: until IPv4 is off";
    scenarios.push(Scenario::new(name, off, report, passed));
    lab.stop_nodes();
    Ok(scenarios)
}
