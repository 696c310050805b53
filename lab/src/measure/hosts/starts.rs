//! A node starts on a host whose settings are unusual.

use super::{Extent, Scenario, TIMEOUT, log_line, reaches, time_until};
use crate::{
    Lab, Options, netns,
    node::Node,
    process::{Process, warren_program},
    wait::wait_until,
};
use anyhow::{Context, Result};
use std::{fs, path::Path, time::Duration};

/// Settings that a container's runtime makes before the daemon starts, below `net/ipv6/conf`.
const CONTAINER_SETTINGS: [(&str, &str); 8] = [
    ("all/forwarding", "1"),
    ("default/forwarding", "1"),
    ("default/accept_ra", "0"),
    ("default/accept_redirects", "0"),
    ("default/autoconf", "0"),
    ("default/accept_dad", "0"),
    ("default/dad_transmits", "0"),
    ("default/addr_gen_mode", "1"),
];
/// Longest wait for a daemon outside of [`Node`] to exit.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

pub(super) fn measure(extent: Extent) -> Result<Vec<Scenario>> {
    let lab = Lab::build_joined(Options::with_nodes(2))?;
    let (node, peer) = (lab.node(0)?, lab.node(1)?);
    peer.start()?;
    let disabled: &[&str] = match extent {
        Extent::Full => &["default", "lo", "all"],
        Extent::Short => &["all"],
    };
    let mut scenarios = Vec::new();
    for link in disabled {
        scenarios.push(start_without_ipv6(node, peer, link)?);
    }
    scenarios.push(start_read_only(&lab, node, peer)?);
    scenarios.push(start_with_few_open_files(&lab, node, peer)?);
    scenarios.push(start_without_open_files(&lab, node)?);
    lab.stop_nodes();
    Ok(scenarios)
}

fn start_without_ipv6(node: &Node, peer: &Node, link: &str) -> Result<Scenario> {
    let path = format!("net/ipv6/conf/{link}/disable_ipv6");
    fs::write(node.log_file(), "").context("cannot empty the log")?;
    netns::write_sysctl(node.namespace(), &path, "1")?;
    let before = settings(node)?;
    node.start()?;
    let works = time_until(TIMEOUT, || reaches(node, peer) && reaches(peer, node));
    let report = log_line(node, &["IPv6 is disabled on this host"]);
    node.stop_cleanly()?;
    let is_restored = settings(node)? == before;
    netns::write_sysctl(node.namespace(), &path, "0")?;
    let passed = works.is_some() && report.is_some() && is_restored;
    Ok(Scenario::new(
        format!("started with {path} = 1"),
        works,
        report,
        passed,
    ))
}

/// The settings that disable IPv6, of the host and of `lo`.
fn settings(node: &Node) -> Result<String> {
    let names =
        ["all", "default", "lo", "eth0"].map(|link| format!("net.ipv6.conf.{link}.disable_ipv6"));
    let mut arguments = vec!["-n"];
    arguments.extend(names.iter().map(String::as_str));
    node.command("sysctl", &arguments)
}

/// Starts the daemon where `/proc/sys` is read-only and its values are right.
fn start_read_only(lab: &Lab, node: &Node, peer: &Node) -> Result<Scenario> {
    for (name, value) in CONTAINER_SETTINGS {
        netns::write_sysctl(node.namespace(), &format!("net/ipv6/conf/{name}"), value)?;
    }
    let script =
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
    let words = ["-m", "sh", "-c", script, "-"];
    let daemon = start_by(lab, node, "unshare", &words, "read-only.log")?;
    let works = time_until(TIMEOUT, || reaches(node, peer) && reaches(peer, node));
    let report = works.is_none().then(|| daemon.log_tail(1));
    daemon.stop(STOP_TIMEOUT);
    for (name, value) in [("all/forwarding", "0"), ("default/addr_gen_mode", "0")] {
        netns::write_sysctl(node.namespace(), &format!("net/ipv6/conf/{name}"), value)?;
    }
    Ok(Scenario::new(
        "started with a read-only /proc/sys whose values are right",
        works,
        report,
        works.is_some(),
    ))
}

/// Starts the daemon with a low limit of open files, which it raises.
fn start_with_few_open_files(lab: &Lab, node: &Node, peer: &Node) -> Result<Scenario> {
    let daemon = start_by(lab, node, "prlimit", &["--nofile=24:4096"], "few-files.log")?;
    let works = time_until(TIMEOUT, || reaches(node, peer) && reaches(peer, node));
    let report = works.is_none().then(|| daemon.log_tail(1));
    daemon.stop(STOP_TIMEOUT);
    Ok(Scenario::new(
        "started with a soft limit of 24 open files",
        works,
        report,
        works.is_some(),
    ))
}

/// Starts the daemon with a low limit of open files, which it may not raise.
fn start_without_open_files(lab: &Lab, node: &Node) -> Result<Scenario> {
    let words = ["--bounding-set=-sys_resource", "prlimit", "--nofile=64:64"];
    let daemon = start_by(lab, node, "setpriv", &words, "no-files.log")?;
    let report = || {
        let last = daemon.log_tail(1);
        last.contains("the limit of open files is 64")
            .then_some(last)
    };
    let report = wait_until(TIMEOUT, report);
    daemon.stop(STOP_TIMEOUT);
    let passed = report.is_some();
    Ok(Scenario::new(
        "started with a limit of 64 open files, without CAP_SYS_RESOURCE",
        None,
        report,
        passed,
    ))
}

/// Starts the daemon of a node by another program, which replaces itself by it.
fn start_by(lab: &Lab, node: &Node, program: &str, words: &[&str], log: &str) -> Result<Process> {
    let warren = warren_program();
    let root = node.root().to_string_lossy().into_owned();
    let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    arguments.push(warren.to_string_lossy().into_owned());
    arguments.extend(["run".to_owned(), "--root".to_owned(), root]);
    Process::start(
        node.namespace(),
        Path::new(program),
        arguments,
        &lab.folder().join(log),
    )
}
