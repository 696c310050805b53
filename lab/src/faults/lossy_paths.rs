//! Paths that lose up to half of the packets in each direction, and delay them by up to half a second.

use super::{Figure, Outcome, square::LogWatch};
use crate::{
    Lab, Node, Options, PingSchedule,
    delays::Delays,
    pinger::all_pairs,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::Result;
use std::time::Duration;

/// Round trips between three nodes, in milliseconds; half of each passes in either direction.
const ROUND_TRIPS_MS: [[f64; 3]; 3] = [
    [0.0, 1_000.0, 200.0],
    [1_000.0, 0.0, 400.0],
    [200.0, 400.0, 0.0],
];
/// Losses in each direction, in percent, one after the other, and the seconds for which each lasts.
const LOSSES: [(u8, u64); 5] = [(10, 6), (20, 6), (30, 6), (40, 6), (50, 15)];
/// Time after the start in which the second of two tunnels between the same nodes is closed.
const SETTLING_TIME: Duration = Duration::from_secs(10);
/// Promised time until all pairs reach each other once nothing is lost any more.
const WHOLE_AGAIN: Duration = Duration::from_secs(15);
/// Longest wait for it.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Why tunnels are closed that nobody takes for dead. A node whose peer closed a tunnel is not counted, since the peer is.
const HARMLESS: [&str; 3] = ["dial_failed", "duplicate", "peer_closed"];
/// Why tunnels are closed whose peer, or its OpenVPN, is taken for dead.
const DEATHS: [&str; 2] = ["peer_dead", "process_died"];

pub(super) fn run() -> Result<Vec<Outcome>> {
    let fault = "the paths between three nodes delay packets by 100, 200 and 500 ms in each direction, and lose 10, 20, 30, 40 and 50 % of them";
    progress(fault);
    let lab = Lab::build_joined(Options::with_nodes(ROUND_TRIPS_MS.len()))?;
    for node in lab.nodes() {
        // Only datagrams are delayed.
        node.configure("listen", "{ udp: 1194, tcp: 0 }")?;
    }
    let _relay = Delays::start(&lab, &ROUND_TRIPS_MS.map(Vec::from))?;
    lab.start_and_converge()?;
    pause(SETTLING_TIME);
    let pinger = lab.start_pings(PingSchedule::Every(Duration::from_millis(100)))?;
    let logs: Vec<_> = lab.nodes().iter().map(LogWatch::start).collect();
    for (percent, seconds) in LOSSES {
        lab.nodes()
            .iter()
            .try_for_each(|node| node.lose_packets(percent))?;
        let start = pinger.now();
        pause(Duration::from_secs(seconds));
        let pings = pinger.summarize(start, pinger.now(), all_pairs);
        progress(format!(
            "{percent} % of packets: {} of {} pings are lost",
            pings.lost, pings.sent
        ));
        lab.nodes()
            .iter()
            .try_for_each(|node| node.lose_packets(0))?;
    }
    let start = pinger.now();
    let whole = wait_until(WHOLE_TIMEOUT, || pinger.all_answered(start, all_pairs));
    let count = |reasons: &[&str]| {
        let lines = reasons.iter().flat_map(|reason| {
            let word = format!("reason={reason}");
            logs.iter()
                .map(move |log| log.count(&["tunnel closed", &word]))
                .collect::<Vec<_>>()
        });
        u64::try_from(lines.sum::<usize>())
    };
    for log in &logs {
        log.lines(&["tunnel closed"]).iter().for_each(progress);
    }
    let closed = count(&[""])? - count(&HARMLESS)?;
    lab.nodes().iter().try_for_each(Node::stop_cleanly)?;
    Ok(vec![Outcome {
        id: "lossy-paths",
        fault,
        tries: LOSSES.len(),
        figures: vec![
            Figure::count("false deaths", count(&DEATHS)?, 0),
            Figure::count("tunnels closed", closed, 0),
            Figure::time(
                "all pairs reach each other without losses",
                whole.map(|at| at.saturating_sub(start)),
                WHOLE_AGAIN,
            ),
        ],
    }])
}
