//! The lab itself, tried on bare namespaces with static routes, without any daemon. Needs root.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, Pace, Pinger, host_snapshot::Host, ip, is_left_out, pinger::Place, process,
};
use std::{collections::BTreeSet, fs, time::Duration};

/// Three hosts in a line over their uplinks: 0 and 2 reach each other through 1.
fn line() -> Result<(Lab, Vec<Place>)> {
    let lab = Lab::new(Options {
        nodes: 3,
        ..Options::default()
    })?;
    let address = |n: usize| format!("fd97::{n}");
    let routes = [[(1, 1), (2, 1)], [(0, 0), (2, 2)], [(0, 1), (1, 1)]];
    for (node, routes) in lab.nodes().iter().zip(routes) {
        let n = node.index();
        let own = address(n);
        let mut lines =
            format!("addr add {own}/128 dev lo nodad\naddr add fe80::97:{n}/64 dev eth0 nodad\n");
        for (to, via) in routes {
            let to = address(to);
            lines.push_str(&format!(
                "route add {to}/128 via fe80::97:{via} dev eth0 src {own}\n"
            ));
        }
        ip::batch(Some(node.namespace()), &lines)?;
        ip::inside(node.namespace(), || {
            Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?)
        })?;
    }
    let place =
        |node: &lab::Node| Ok((node.namespace().to_owned(), address(node.index()).parse()?));
    let places = lab.nodes().iter().map(place).collect::<Result<_>>()?;
    Ok((lab, places))
}

fn patience<T>(what: &str, answer: impl FnMut() -> Option<T>) -> Result<T> {
    process::wait_until(Duration::from_secs(15), answer)
        .with_context(|| format!("no {what} within 15 s"))
}

#[test]
fn a_cut_through_the_middle_is_a_gap_for_the_pairs_that_need_it() {
    if is_left_out("a_cut_through_the_middle_is_a_gap_for_the_pairs_that_need_it") {
        return;
    }
    let (lab, places) = line().unwrap();
    let pinger = Pinger::start(&places, Pace::Every(Duration::from_millis(10))).unwrap();
    patience("answer of all pairs", || {
        pinger.all_answered(Duration::ZERO, |_, _| true)
    })
    .unwrap();
    let settled = pinger.now();
    let later = |span: u64| {
        patience("time", || {
            (pinger.now() > settled + Duration::from_millis(span)).then_some(())
        })
        .unwrap()
    };
    later(500);
    lab.cut(1).unwrap();
    let cut = pinger.now();
    later(1_000);
    lab.mend(1).unwrap();
    let mended = pinger.now();
    patience("answer of all pairs", || {
        pinger.all_answered(mended, |_, _| true)
    })
    .unwrap();
    let healed = pinger.now() + Duration::from_millis(300);
    patience("judgement", || {
        (pinger.now() > healed + Duration::from_millis(2_100)).then_some(())
    })
    .unwrap();

    let before = pinger.sum_up(
        settled,
        cut.saturating_sub(Duration::from_millis(50)),
        |_, _| true,
    );
    assert_eq!(before.lost, 0, "{before:?}");
    assert!(before.sent >= 6 * 30, "{before:?}");
    assert_eq!((before.duplicates, before.reordered), (0, 0));
    for (from, to, summary) in pinger.ask(
        |_, _| true,
        |pair| pair.sum_up(settled, healed, pinger.now()),
    ) {
        assert!(summary.lost > 20, "{from} to {to}: {summary:?}");
        assert!(
            summary.longest_gap >= mended - cut,
            "{from} to {to}: {summary:?}"
        );
        assert_eq!(summary.sent, summary.answered + summary.lost);
    }
}

#[test]
fn nothing_is_left_of_a_lab_that_was_dropped() {
    if is_left_out("nothing_is_left_of_a_lab_that_was_dropped") {
        return;
    }
    let (lab, _) = line().unwrap();
    let folder = lab.folder().to_owned();
    let name = folder
        .file_name()
        .unwrap()
        .to_string_lossy()
        .replace("warren-lab-", "wl-");
    let ours = || {
        ip::namespaces()
            .into_iter()
            .filter(|namespace| namespace.starts_with(&name))
            .count()
    };
    assert_eq!(ours(), 5);
    drop(lab);
    assert_eq!(ours(), 0);
    assert!(!folder.exists());
}

#[test]
fn a_process_of_the_lab_lives_in_its_namespace_and_ends_with_it() {
    if is_left_out("a_process_of_the_lab_lives_in_its_namespace_and_ends_with_it") {
        return;
    }
    let (lab, _) = line().unwrap();
    let namespace = lab.node(0).unwrap().namespace();
    let log = lab.folder().join("sleep.log");
    let before = Host::of(namespace).unwrap();
    let sleep = process::Process::start(namespace, "sleep".as_ref(), ["1000"], &log).unwrap();
    let name = || fs::read_to_string(format!("/proc/{}/comm", sleep.pid())).unwrap_or_default();
    patience("sleep", || (name() == "sleep\n").then_some(())).unwrap();
    let changes = before.changes(&Host::of(namespace).unwrap());
    assert_eq!(
        changes,
        [format!("processes: + {} sleep 1000", sleep.pid())]
    );
    drop(sleep);
    assert_eq!(before.changes(&Host::of(namespace).unwrap()), [""; 0]);
}

#[test]
fn a_router_maps_a_port_when_it_is_asked_and_the_node_is_reached_through_it() {
    if is_left_out("a_router_maps_a_port_when_it_is_asked_and_the_node_is_reached_through_it") {
        return;
    }
    let behind_nat = BTreeSet::from([1]);
    let lab = Lab::new(Options {
        nodes: 2,
        behind_nat,
        ..Options::default()
    })
    .unwrap();
    let outside = lab.node(0).unwrap();
    let inside = lab.node(1).unwrap();
    inside
        .command("ping", &["-c", "1", "-W", "2", "45.67.1.1"])
        .unwrap();
    let router = &lab.routers()[0];
    assert!(router.mappings().unwrap().is_empty());
    // NAT-PMP (RFC 6886): version 0, map TCP, reserved, inside 7000, outside 7000, 600 s.
    let request = r"\0\2\0\0\x1b\x58\x1b\x58\0\0\x02\x58";
    let ask = format!("exec 3<>/dev/udp/192.168.77.1/5351; printf '{request}' >&3");
    patience("mapping", || {
        inside.command("bash", &["-c", &ask]).unwrap();
        (router.mappings().unwrap().len() == 1).then_some(())
    })
    .unwrap();
    let address = "45.67.2.2:7000".parse().unwrap();
    let listener = ip::inside(inside.namespace(), || {
        Ok(std::net::TcpListener::bind("0.0.0.0:7000")?)
    })
    .unwrap();
    ip::inside(outside.namespace(), || {
        Ok(std::net::TcpStream::connect_timeout(
            &address,
            Duration::from_secs(5),
        )?)
    })
    .unwrap();
    listener.accept().unwrap();
}
