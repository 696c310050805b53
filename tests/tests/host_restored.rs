//! What a node changes of its host is there again after it: after an orderly stop, and after a sudden death and
//! another start.

use anyhow::{Context, Result};
use lab::{
    Lab, Options, Pace, Pinger, host_snapshot::Host, is_left_out, measure::start_whole,
    process::wait_until,
};
use std::time::Duration;

#[test]
fn a_host_is_as_before_after_a_stop_and_after_a_kill_a_start_and_a_stop() -> Result<()> {
    if is_left_out("leaves_nothing_behind") {
        return Ok(());
    }
    let lab = Lab::joined(Options {
        nodes: 3,
        ..Options::default()
    })?;
    let node = lab.node(0)?;
    let before = Host::of(node.namespace())?;
    start_whole(&lab)?;
    assert!(!before.changes(&Host::of(node.namespace())?).is_empty());
    assert!(
        node.stop().is_some_and(|status| status.success()),
        "{}",
        node.log_tail(20)
    );
    assert_eq!(before.changes(&Host::of(node.namespace())?), [""; 0]);

    node.start()?;
    is_back(&lab)?;
    node.kill();
    wait_until(Duration::from_secs(2), || {
        node.processes().is_empty().then_some(())
    })
    .context("children outlived their daemon by 2 s")?;
    node.start()?;
    is_back(&lab)?;
    assert!(
        node.stop().is_some_and(|status| status.success()),
        "{}",
        node.log_tail(20)
    );
    assert_eq!(before.changes(&Host::of(node.namespace())?), [""; 0]);
    Ok(())
}

fn is_back(lab: &Lab) -> Result<()> {
    let pinger = Pinger::start(
        &lab.places()?,
        Pace::UntilAnswered(Duration::from_millis(50)),
    )?;
    let back = wait_until(Duration::from_secs(60), || {
        pinger.all_answered(Duration::ZERO, |_, _| true)
    });
    back.context("the node did not come back within a minute")
        .map(drop)
}

#[test]
fn a_host_that_lives_on_router_advertisements_keeps_its_default_route() -> Result<()> {
    if is_left_out("leaves_nothing_behind: router advertisements") {
        return Ok(());
    }
    let lab = Lab::joined(Options {
        nodes: 2,
        ..Options::default()
    })?;
    let node = lab.node(0)?;
    let default_route = || {
        let routes = node
            .command("ip", &["-6", "route", "show", "default", "proto", "ra"])
            .ok()?;
        (!routes.trim().is_empty()).then_some(routes)
    };
    wait_until(Duration::from_secs(10), || {
        lab.advertise_router().ok()?;
        default_route()
    })
    .context("the advertisement made no default route")?;
    start_whole(&lab)?;
    let accept = node.command(
        "sysctl",
        &[
            "net.ipv6.conf.eth0.accept_ra",
            "net.ipv6.conf.all.forwarding",
        ],
    )?;
    default_route()
        .with_context(|| format!("the default route is gone once warren runs: {accept}"))?;
    // It must go on to take advertisements, too: the route is made anew.
    node.command("ip", &["-6", "route", "del", "default"])?;
    wait_until(Duration::from_secs(10), || {
        lab.advertise_router().ok()?;
        default_route()
    })
    .context("advertisements are not taken any more while warren runs")?;
    assert!(
        node.stop().is_some_and(|status| status.success()),
        "{}",
        node.log_tail(20)
    );
    default_route().context("the default route is gone after the stop")?;
    Ok(())
}
