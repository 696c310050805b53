//! A member with plain OpenVPN announces the range of another node: its neighbour closes the tunnel before others lose a packet.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, PingSchedule, Pinger,
    faults::liar::{Announcement, Liar, network_of},
    is_skipped_without_root,
    pinger::all_pairs,
    wait::{pause, wait_until},
};
use std::time::Duration;
use wire::{
    control::{TUNNELS_PATH, TunnelsDocument},
    overlay,
};

/// The neighbour of the liar, the node whose range is announced, and the liar.
const NEIGHBOUR: usize = 0;
const VICTIM: usize = 1;
const LIAR: usize = 3;
/// Time from the first lie after which the tunnel must be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which the liar tries to come back.
const RETURN_ATTEMPTS: Duration = Duration::from_secs(30);

/// Pings that may be lost until the tunnel is closed: those of one pair, 50 ms apart, in half a second. Without the check a pair loses all.
const MAX_LOST: u64 = 10;

#[test]
fn a_node_that_announces_the_range_of_another_loses_its_tunnel_at_once_and_takes_no_packet()
-> Result<()> {
    if is_skipped_without_root("false_routes") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options::with_nodes(4))?;
    lab.nodes()[..LIAR].iter().try_for_each(Node::start)?;
    let pinger = Pinger::start(
        &lab.ping_hosts(0..LIAR)?,
        PingSchedule::Every(Duration::from_millis(50)),
    )?;
    wait_until(Duration::from_secs(30), || {
        pinger.all_answered(Duration::ZERO, all_pairs)
    })
    .context("some pair has had no reply within 30 s")?;
    let liar = Liar::connect(&lab, LIAR, NEIGHBOUR)?;
    let victim = lab.node(VICTIM)?.prefix()?.parse()?;
    let victims_id = Announcement::own(network_of(&lab)?, victim);
    let own_id = Announcement {
        router_id: overlay::router_id(liar.prefix()),
        ..victims_id
    };
    let start = pinger.now();
    for _ in 0..3 {
        liar.announce(&[])?;
        pause(Duration::from_millis(500));
    }
    ensure!(
        has_tunnel(&lab, &liar)?,
        "an honest announcement closed the tunnel"
    );
    wait_until(CLOSE_TIMEOUT, || {
        liar.announce(&[victims_id]).ok()?;
        pause(Duration::from_millis(200));
        (!has_tunnel(&lab, &liar).ok()?).then_some(())
    })
    .context("the liar still has its tunnel after 5 s")?;
    wait_until(RETURN_ATTEMPTS, || liar.was_rejected().then_some(()))
        .context("the liar was admitted again, or did not try")?;
    liar.announce(&[own_id])?;
    let pings = pinger.summarize(start, pinger.now(), all_pairs);
    assert!(
        pings.lost <= MAX_LOST,
        "{:?}",
        pinger.describe_losses(start, pinger.now(), all_pairs)
    );
    let count = "warren_suspicious_routes_total{kind=\"origin\"}";
    assert_eq!(lab.node(NEIGHBOUR)?.metric(count)?, 1);
    assert_eq!(lab.node(VICTIM)?.metric(count)?, 0);
    Ok(())
}

/// Returns whether the neighbour has a tunnel to the liar that is up.
fn has_tunnel(lab: &Lab, liar: &Liar) -> Result<bool> {
    let document: TunnelsDocument = lab.node(NEIGHBOUR)?.control_document(TUNNELS_PATH)?;
    let peer = liar.prefix().to_string();
    let mut tunnels = document.tunnels.iter();
    Ok(tunnels.any(|tunnel| tunnel.peer == peer && tunnel.phase == "up"))
}
