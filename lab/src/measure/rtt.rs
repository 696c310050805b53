//! Measures how far the policy shortens round trips between nodes that are unequally distant, compared with chance.

use crate::{
    Lab, Options,
    delays::{Delays, round_trips_ms},
    network::tunnels_to_dial,
    ping_record::LOST_AFTER,
    pinger::{PingSchedule, all_pairs},
    progress::{progress, round},
    wait::pause,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::Duration;

/// Shorter than the shipped refresh, so that ten rounds take five minutes and not an hour.
const REFRESH: Duration = Duration::from_secs(24);
/// Twice the refresh, as shipped.
const MIN_AGE: Duration = Duration::from_secs(48);
/// Interval between two pings of a pair.
const PING_INTERVAL: Duration = Duration::from_millis(250);
/// Length of each measurement of the round trips.
const PING_SPAN: Duration = Duration::from_secs(15);

/// Mean round trips over all ordered pairs, through the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanRoundTrips {
    /// The mean once the network has converged.
    pub before_ms: f64,
    /// The mean after the rounds.
    pub after_ms: f64,
}

/// The output of `measure rtt`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RttComparison {
    /// Nodes of the lab.
    pub nodes: usize,
    /// Tunnels that each node dialled.
    pub tunnels_to_dial: u16,
    /// Refreshes between the two measurements.
    pub rounds: u32,
    /// The seed from which the round trips between the nodes were drawn.
    pub seed: u64,
    /// The mean if every pair had a tunnel of its own.
    pub direct_ms: f64,
    /// The means with the policy `gain`, as shipped.
    pub gain: MeanRoundTrips,
    /// The means with the policy `random`.
    pub random: MeanRoundTrips,
}

/// Measures once with each policy, between the same delays.
///
/// # Errors
/// Fails if the lab cannot be built, or if a pair answers no ping.
pub fn measure(nodes: usize, rounds: u32, seed: u64) -> Result<RttComparison> {
    let delays = round_trips_ms(nodes, seed);
    let direct = delays.iter().enumerate().flat_map(|(from, row)| {
        let others = row.iter().enumerate().filter(move |(to, _)| *to != from);
        others.map(|(_, round_trip)| *round_trip)
    });
    Ok(RttComparison {
        nodes,
        tunnels_to_dial: tunnels_to_dial(nodes),
        rounds,
        seed,
        direct_ms: mean(direct).context("a single node has no pairs")?,
        gain: measure_policy(&delays, rounds, "gain")?,
        random: measure_policy(&delays, rounds, "random")?,
    })
}

fn measure_policy(delays: &[Vec<f64>], rounds: u32, policy: &str) -> Result<MeanRoundTrips> {
    let lab = Lab::build_joined(Options {
        refresh: Some(REFRESH),
        min_age: Some(MIN_AGE),
        ..Options::with_nodes(delays.len())
    })?;
    for node in lab.nodes() {
        node.configure("policy", policy)?;
        // Only datagrams are delayed.
        node.configure("listen", "{ udp: 1194, tcp: 0 }")?;
    }
    let _relay = Delays::start(&lab, delays)?;
    lab.start_and_converge()?;
    let before_ms = measure_mean_round_trip(&lab)?;
    progress(format!(
        "policy {policy}: mean round trip {before_ms} ms, waiting for {rounds} refreshes"
    ));
    // The first refresh comes after one to two intervals, one and a half on average.
    let waiting_time = REFRESH.saturating_mul(rounds).saturating_add(REFRESH / 2);
    pause(waiting_time.saturating_sub(PING_SPAN));
    let after_ms = measure_mean_round_trip(&lab)?;
    progress(format!("policy {policy}: mean round trip {after_ms} ms"));
    lab.stop_nodes();
    Ok(MeanRoundTrips {
        before_ms,
        after_ms,
    })
}

fn measure_mean_round_trip(lab: &Lab) -> Result<f64> {
    let pinger = lab.start_pings(PingSchedule::Every(PING_INTERVAL))?;
    pause(PING_SPAN.saturating_add(LOST_AFTER));
    let round_trips = pinger.read_records(all_pairs, |record| {
        record.mean_round_trip(Duration::ZERO, PING_SPAN)
    });
    let round_trips: Option<Vec<_>> = round_trips
        .into_iter()
        .map(|(.., round_trip)| round_trip)
        .collect();
    let round_trips = round_trips.context("a pair answered no ping")?;
    let milliseconds = round_trips
        .into_iter()
        .map(|round_trip| round_trip.as_secs_f64() * 1_000.0);
    mean(milliseconds).context("a single node has no pairs")
}

/// The mean, rounded to one decimal place; `None` if there are no numbers.
fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = numbers.fold((0.0, 0.0), |(sum, count), number| {
        (sum + number, count + 1.0)
    });
    (count > 0.0).then(|| round(sum / count, 1))
}
