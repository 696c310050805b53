//! Tests the lab itself, on bare namespaces with static routes, without any daemon. Needs root.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, PingSchedule, Pinger,
    host_snapshot::HostSnapshot,
    ip, is_skipped_without_root, netns,
    pinger::{PingHost, all_pairs},
    process::Process,
    wait::{pause, wait_until},
};
use std::{
    collections::BTreeSet,
    fs,
    net::{TcpListener, TcpStream},
    time::Duration,
};

/// The outside of a port mapping on the router of node 1.
const MAPPED_ADDRESS: &str = "45.67.2.2:7000";
/// A NAT-PMP request (RFC 6886) for `printf`: version 0, map TCP, reserved, inside 7000, outside 7000, 600 s.
const NAT_PMP_REQUEST: &str = r"\0\2\0\0\x1b\x58\x1b\x58\0\0\x02\x58";

/// Three hosts in a line over their uplinks: 0 and 2 reach each other through 1.
fn build_line() -> Result<(Lab, Vec<PingHost>)> {
    let lab = Lab::build(Options {
        nodes: 3,
        ..Options::default()
    })?;
    let address = |index: usize| format!("fd97::{index}");
    let next_hops = [[(1, 1), (2, 1)], [(0, 0), (2, 2)], [(0, 1), (1, 1)]];
    let mut hosts = Vec::new();
    for (node, next_hops) in lab.nodes().iter().zip(next_hops) {
        let index = node.index();
        let own_address = address(index);
        let mut lines = format!(
            "addr add {own_address}/128 dev lo nodad\naddr add fe80::97:{index}/64 dev eth0 nodad\n"
        );
        for (to, via) in next_hops {
            let to = address(to);
            lines.push_str(&format!(
                "route add {to}/128 via fe80::97:{via} dev eth0 src {own_address}\n"
            ));
        }
        ip::batch(Some(node.namespace()), &lines)?;
        netns::write_sysctl(node.namespace(), "net/ipv6/conf/all/forwarding", "1")?;
        hosts.push(PingHost {
            namespace: node.namespace().to_owned(),
            address: own_address.parse()?,
        });
    }
    Ok((lab, hosts))
}

fn wait_for<T>(what: &str, check: impl FnMut() -> Option<T>) -> Result<T> {
    wait_until(Duration::from_secs(15), check).with_context(|| format!("no {what} within 15 s"))
}

#[test]
fn an_unplugged_host_in_the_middle_is_a_gap_for_the_pairs_that_need_it() -> Result<()> {
    if is_skipped_without_root("an_unplugged_host_in_the_middle") {
        return Ok(());
    }
    let (lab, hosts) = build_line()?;
    let pinger = Pinger::start(&hosts, PingSchedule::STEADY)?;
    wait_for("reply for every pair", || {
        pinger.all_answered(Duration::ZERO, all_pairs)
    })?;
    let settled_at = pinger.now();
    pause(Duration::from_millis(500));
    lab.unplug(1)?;
    let unplugged_at = pinger.now();
    pause(Duration::from_secs(1));
    lab.plug_in(1)?;
    let plugged_in_at = pinger.now();
    wait_for("reply for every pair", || {
        pinger.all_answered(plugged_in_at, all_pairs)
    })?;
    pause(Duration::from_millis(300));
    let end = pinger.now();
    // Until all pings are old enough to be judged.
    pause(Duration::from_millis(2_100));

    let just_before = unplugged_at.saturating_sub(Duration::from_millis(50));
    let before = pinger.summarize(settled_at, just_before, all_pairs);
    assert_eq!(before.lost, 0, "{before:?}");
    assert!(before.sent >= 6 * 30, "{before:?}");
    assert_eq!((before.duplicates, before.reordered), (0, 0));
    let now = pinger.now();
    let summaries = pinger.read_records(all_pairs, |record| record.summarize(settled_at, end, now));
    for (from, to, summary) in summaries {
        assert!(summary.lost > 20, "{from} to {to}: {summary:?}");
        assert!(
            summary.longest_gap >= plugged_in_at - unplugged_at,
            "{from} to {to}: {summary:?}"
        );
        assert_eq!(summary.sent, summary.answered + summary.lost);
    }
    Ok(())
}

#[test]
fn nothing_is_left_of_a_dropped_lab() -> Result<()> {
    if is_skipped_without_root("nothing_is_left_of_a_dropped_lab") {
        return Ok(());
    }
    let (lab, _) = build_line()?;
    let folder = lab.folder().to_owned();
    let folder_name = folder.file_name().context("the folder has no name")?;
    let prefix = folder_name.to_string_lossy().replace("warren-lab-", "wl-");
    let count_namespaces = || {
        let namespaces = netns::list().into_iter();
        namespaces.filter(|name| name.starts_with(&prefix)).count()
    };
    assert_eq!(count_namespaces(), 5);
    drop(lab);
    assert_eq!(count_namespaces(), 0);
    assert!(!folder.exists());
    Ok(())
}

#[test]
fn a_process_lives_in_its_namespace_until_it_is_dropped() -> Result<()> {
    if is_skipped_without_root("a_process_lives_in_its_namespace") {
        return Ok(());
    }
    let (lab, _) = build_line()?;
    let namespace = lab.node(0)?.namespace();
    let log = lab.folder().join("sleep.log");
    let before = HostSnapshot::take(namespace)?;
    let sleep = Process::start(namespace, "sleep".as_ref(), ["1000"], &log)?;
    let name = || fs::read_to_string(format!("/proc/{}/comm", sleep.pid())).unwrap_or_default();
    wait_for("sleep", || (name() == "sleep\n").then_some(()))?;
    let changes = before.changes_to(&HostSnapshot::take(namespace)?);
    assert_eq!(
        changes,
        [format!("processes: + {} sleep 1000", sleep.pid())]
    );
    drop(sleep);
    let changes = before.changes_to(&HostSnapshot::take(namespace)?);
    assert_eq!(changes, [""; 0]);
    Ok(())
}

#[test]
fn a_router_maps_a_port_on_request_and_the_node_is_reached_through_it() -> Result<()> {
    if is_skipped_without_root("a_router_maps_a_port_on_request") {
        return Ok(());
    }
    let lab = Lab::build(Options {
        nodes: 2,
        nodes_behind_nat: BTreeSet::from([1]),
        ..Options::default()
    })?;
    let (outside, inside) = (lab.node(0)?, lab.node(1)?);
    inside.command("ping", &["-c", "1", "-W", "2", "45.67.1.1"])?;
    let router = lab.nat_routers().first().context("there is no router")?;
    assert!(router.mappings()?.is_empty());
    let script = format!("exec 3<>/dev/udp/192.168.77.1/5351; printf '{NAT_PMP_REQUEST}' >&3");
    wait_for("mapping", || {
        inside.command("bash", &["-c", &script]).ok()?;
        (router.mappings().ok()?.len() == 1).then_some(())
    })?;
    let listener = netns::run_inside(inside.namespace(), || {
        Ok(TcpListener::bind("0.0.0.0:7000")?)
    })?;
    let address = MAPPED_ADDRESS.parse()?;
    netns::run_inside(outside.namespace(), || {
        Ok(TcpStream::connect_timeout(
            &address,
            Duration::from_secs(5),
        )?)
    })?;
    listener.accept()?;
    Ok(())
}
