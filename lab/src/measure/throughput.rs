//! Compares warren's tunnels with plain OpenVPN in the same namespaces: rates of one TCP connection, and round trips.
//!
//! The machine's load changes from second to second. So short runs through both tunnels alternate, and only the ratios of
//! neighbouring runs count.

use crate::{
    Lab, Options,
    bulk_transfer::{End, measure_rate},
    progress::{progress, round},
    raw_openvpn::RawTunnel,
    wait::pause,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{fs, time::Duration};

/// Length of one run through one tunnel.
const RUN: Duration = Duration::from_secs(1);
/// Time for the new tunnel's own probes.
const SETTLING_TIME: Duration = Duration::from_secs(3);
/// The transports of the tunnels.
const TRANSPORTS: [&str; 2] = ["udp", "tcp"];

/// The rates in one direction.
#[derive(Clone, Debug, Serialize)]
pub struct Direction {
    /// Median of the ratios of neighbouring runs: warren's rate divided by that of plain OpenVPN.
    ratio: f64,
    /// The lowest and the highest of these ratios.
    ratio_range: [f64; 2],
    /// Median rate through warren's tunnel.
    warren_mbit_per_second: f64,
    /// Median rate through plain OpenVPN.
    plain_mbit_per_second: f64,
}

/// The comparison for one transport.
#[derive(Clone, Debug, Serialize)]
pub struct TransportThroughput {
    transport: String,
    /// From the node that dialled to the one that accepted.
    dialling_to_accepting: Direction,
    accepting_to_dialling: Direction,
    /// Median of the mean round trips, in milliseconds.
    warren_round_trip_ms: f64,
    plain_round_trip_ms: f64,
}

/// The output of `measure throughput`.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// Load of the machine over the last minute, after the measurement.
    load_average: String,
    /// Pairs of runs for each figure.
    pairs: usize,
    transports: Vec<TransportThroughput>,
}

/// Measures both transports, each with this number of pairs in both directions; a pair takes two seconds.
///
/// # Errors
/// Fails if the lab cannot be built, a tunnel does not come up, or nothing passes it.
pub fn measure(pairs: usize) -> Result<Throughput> {
    let transports = TRANSPORTS
        .into_iter()
        .map(|transport| measure_transport(transport, pairs))
        .collect::<Result<_>>()?;
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    Ok(Throughput {
        load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        pairs,
        transports,
    })
}

fn measure_transport(transport: &str, pairs: usize) -> Result<TransportThroughput> {
    let is_tcp = transport == "tcp";
    let lab = Lab::build_joined(Options::with_nodes(2))?;
    // The first node accepts nothing, so it dials.
    let (dialling, accepting) = (lab.node(0)?, lab.node(1)?);
    dialling.configure("listen", "{ udp: 0, tcp: 0 }")?;
    let listen = if is_tcp {
        "{ udp: 0, tcp: 1194 }"
    } else {
        "{ udp: 1194, tcp: 0 }"
    };
    accepting.configure("listen", listen)?;
    lab.start_and_converge()?;
    let plain = RawTunnel::start(&lab, is_tcp)?;
    pause(SETTLING_TIME);
    let warren_ends = [
        (dialling.namespace(), dialling.identity()?.address),
        (accepting.namespace(), accepting.identity()?.address),
    ];
    let plain_ends = [plain.end(0)?, plain.end(1)?];
    let forth = compare(warren_ends, plain_ends, pairs)?;
    let [warren_back, plain_back] = [warren_ends, plain_ends].map(|[from, to]| [to, from]);
    let back = compare(warren_back, plain_back, pairs)?;
    let mut round_trips = [Vec::new(), Vec::new()];
    for _ in 0..pairs {
        for (ends, found) in [warren_ends, plain_ends].iter().zip(&mut round_trips) {
            let [_, (_, target)] = ends;
            found.push(mean_round_trip_ms(&lab, &target.to_string())?);
        }
    }
    let [warren_round_trip_ms, plain_round_trip_ms] =
        round_trips.map(|found| round(median(found), 3));
    drop(plain);
    lab.stop_nodes();
    Ok(TransportThroughput {
        transport: transport.to_owned(),
        dialling_to_accepting: forth,
        accepting_to_dialling: back,
        warren_round_trip_ms,
        plain_round_trip_ms,
    })
}

/// Alternates runs through both tunnels; each second pair begins with the other tunnel.
fn compare(warren: [End<'_>; 2], plain: [End<'_>; 2], pairs: usize) -> Result<Direction> {
    let run = |[from, to]: [End<'_>; 2]| measure_rate(from, to, RUN);
    let (mut ratios, mut warren_rates, mut plain_rates) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        let (warren_rate, plain_rate) = if pair % 2 == 0 {
            let warren_rate = run(warren)?;
            (warren_rate, run(plain)?)
        } else {
            let plain_rate = run(plain)?;
            (run(warren)?, plain_rate)
        };
        progress(format!(
            "warren {warren_rate:.0}, plain {plain_rate:.0} Mbit/s"
        ));
        ratios.push(warren_rate / plain_rate.max(1.0));
        warren_rates.push(warren_rate);
        plain_rates.push(plain_rate);
    }
    let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = ratios.iter().copied().fold(0.0, f64::max);
    Ok(Direction {
        ratio: round(median(ratios), 2),
        ratio_range: [round(lowest, 2), round(highest, 2)],
        warren_mbit_per_second: round(median(warren_rates), 0),
        plain_mbit_per_second: round(median(plain_rates), 0),
    })
}

/// The mean of 50 round trips from the dialling node, as ping(8) reports it.
fn mean_round_trip_ms(lab: &Lab, target: &str) -> Result<f64> {
    let output = lab
        .node(0)?
        .command("ping", &["-6", "-q", "-c50", "-i0.01", target])?;
    let summary = output
        .lines()
        .rev()
        .find(|line| line.contains("min/avg/max"));
    summary
        .and_then(|line| line.split(" = ").nth(1)?.split('/').nth(1)?.parse().ok())
        .with_context(|| format!("ping to {target} printed no mean round trip"))
}

/// The median; of an even count the lower of the two in the middle, and 0 without numbers.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len().saturating_sub(1) / 2;
    numbers.get(middle).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_number_of_the_list() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
