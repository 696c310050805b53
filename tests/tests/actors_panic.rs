//! Each actor of a running daemon panics once; the network carries on and no child is touched.

use anyhow::{Result, bail, ensure};
use lab::{
    Lab, Node, Options, is_left_out,
    measure::{PACE, pause, start_whole},
    ping_record::LOST_AFTER,
    process::wait_until,
};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

/// The counter that names all actors.
const RESTARTS: &str = "warren_actor_restarts_total{actor=\"";
/// Counts the restarts of others; nobody counts its own.
const COUNTS: &str = "telemetry";

/// Restarts by actor, as the node's metrics tell.
fn restarts(metrics: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (name, count) = line.strip_prefix(RESTARTS)?.split_once("\"} ")?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    metrics.lines().filter_map(line).collect()
}

fn panic_of(node: &Node, actor: &str) -> Result<()> {
    let mut stream = UnixStream::connect(node.root().join("run/warren/control.sock"))?;
    write!(
        stream,
        "POST /v1/panics/{actor} HTTP/1.0\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.0 202"), "{actor}: {answer}");
    Ok(())
}

#[test]
fn every_actor_may_panic_once_and_the_network_carries_on() -> Result<()> {
    if is_left_out("actors_panic") {
        return Ok(());
    }
    let lab = Lab::joined(Options {
        nodes: 4,
        dial: Some(2),
        ..Options::default()
    })?;
    start_whole(&lab)?;
    let pinger = lab.ping(PACE)?;
    let node = lab.node(0)?;
    // The policy may close and dial tunnels meanwhile; servers and babeld stay.
    let lasting = || {
        let client = |child: &String| child.contains("--client ");
        let children: Vec<u32> = node
            .children()
            .into_iter()
            .filter(|(_, child)| !client(child))
            .map(|(pid, _)| pid)
            .collect();
        (children, node.pid())
    };
    let before = lasting();
    let actors = restarts(&node.scrape()?);
    ensure!(actors.len() > 10, "only {actors:?} are known");
    let start = pinger.now();
    for (actor, _) in &actors {
        panic_of(node, actor)?;
        let line = format!("actor died and is made anew actor=\"{actor}\"");
        let remade = || {
            let told = fs::read_to_string(node.log()).ok()?.contains(&line);
            let counted = restarts(&node.scrape().ok()?).contains(&(actor.clone(), 1));
            (told && (counted || actor == COUNTS)).then_some(())
        };
        if wait_until(Duration::from_secs(10), remade).is_none() {
            bail!("{actor} was not made anew: {}", node.log_tail(20));
        }
    }
    // Probes, samples and tables of the new actors must have come by then.
    pause(Duration::from_secs(15));
    let end = pinger.now();
    pause(LOST_AFTER);
    let sum = pinger.sum_up(start, end, |_, _| true);
    assert_eq!(sum.lost, 0, "{sum:?}");
    assert_eq!(lasting(), before);
    assert_eq!(before.0.len(), 3, "two servers and babeld");
    for (actor, count) in restarts(&node.scrape()?) {
        assert_eq!(count, u64::from(actor != COUNTS), "{actor}");
    }
    assert_eq!(lab.stop_all(), [0; 0]);
    Ok(())
}
