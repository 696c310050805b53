//! Measures how near the policy brings nodes that lie unequally far apart, beside chance.

use super::{dial, pause, prepare, start_whole, tell};
use crate::{
    Lab, Options, Pace,
    delays::{Delays, round_trips_ms},
    ping_record::LOST_AFTER,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::Duration;

/// Shorter than the shipped one, so that ten rounds take five minutes and not an hour.
const REFRESH: Duration = Duration::from_secs(24);
/// Twice the refresh, as shipped.
const MIN_AGE: Duration = Duration::from_secs(48);
/// How often every pair is pinged, and for how long.
const PACE: Pace = Pace::Every(Duration::from_millis(250));
/// Likewise.
const SPAN: Duration = Duration::from_secs(15);

/// Mean round trips over all ordered pairs, through the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Means {
    /// Once all pairs answer.
    pub before_ms: f64,
    /// After the rounds.
    pub after_ms: f64,
}

/// What `measure rtt` prints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RoundTrips {
    /// How many nodes.
    pub nodes: usize,
    /// Tunnels that each dialled.
    pub dial: u16,
    /// Refreshes between before and after.
    pub rounds: u32,
    /// What the round trips between the nodes were drawn by.
    pub seed: u64,
    /// The mean if every pair had a tunnel of its own.
    pub direct_ms: f64,
    /// With the policy as shipped.
    pub gain: Means,
    /// With the random rule.
    pub random: Means,
}

/// Measures once with each rule, between the same delays.
///
/// # Errors
/// Where the lab cannot be built, or a pair answers no ping.
pub fn measure(nodes: usize, rounds: u32, seed: u64) -> Result<RoundTrips> {
    let trips = round_trips_ms(nodes, seed);
    let direct = trips.iter().enumerate().flat_map(|(from, row)| {
        row.iter()
            .enumerate()
            .filter(move |(to, _)| *to != from)
            .map(|(_, trip)| *trip)
    });
    let direct_ms = mean(direct).context("one node has nobody to ping")?;
    let gain = by_rule(&trips, rounds, "gain")?;
    let random = by_rule(&trips, rounds, "random")?;
    Ok(RoundTrips {
        nodes,
        dial: dial(nodes),
        rounds,
        seed,
        direct_ms,
        gain,
        random,
    })
}

fn by_rule(trips: &[Vec<f64>], rounds: u32, rule: &str) -> Result<Means> {
    let nodes = trips.len();
    let lab = prepare(Options {
        nodes,
        dial: Some(dial(nodes)),
        refresh: Some(REFRESH),
        min_age: Some(MIN_AGE),
        ..Options::default()
    })?;
    for node in lab.nodes() {
        node.configure("policy", rule)?;
        // Only datagrams are delayed.
        node.configure("listen", "{ udp: 1194, tcp: 0 }")?;
    }
    let _delays = Delays::start(&lab, trips)?;
    start_whole(&lab)?;
    let before_ms = measured(&lab)?;
    tell(format!(
        "policy {rule}: mean round trip {before_ms} ms; {rounds} rounds now"
    ));
    // The first comes after one refresh at the least and two at the most, one and a half on the average.
    pause(
        REFRESH
            .saturating_mul(rounds)
            .saturating_add(REFRESH / 2)
            .saturating_sub(SPAN),
    );
    let after_ms = measured(&lab)?;
    tell(format!("policy {rule}: mean round trip {after_ms} ms"));
    lab.stop_all();
    Ok(Means {
        before_ms,
        after_ms,
    })
}

fn measured(lab: &Lab) -> Result<f64> {
    let pinger = lab.ping(PACE)?;
    pause(SPAN.saturating_add(LOST_AFTER));
    let trips = pinger.ask(
        |_, _| true,
        |pair| pair.mean_round_trip(Duration::ZERO, SPAN),
    );
    let trips: Option<Vec<_>> = trips.into_iter().map(|(.., trip)| trip).collect();
    let trips = trips.context("a pair answered no ping")?;
    mean(trips.into_iter().map(|trip| trip.as_secs_f64() * 1_000.0)).context("there are no pairs")
}

/// Rounded to a tenth; `None` of nothing.
fn mean(all: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = all.fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
    (count > 0.0).then(|| (sum / count * 10.0).round() / 10.0)
}
