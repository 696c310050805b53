//! Compares warren's tunnels with plain OpenVPN in the same namespaces: rates of one TCP connection, processor time, and round
//! trips, over one hop and over two.
//!
//! The machine's load changes from second to second. So short runs through both tunnels alternate, and only the ratios of
//! neighbouring runs count. The processor time of a megabyte hardly depends on the load.

use crate::{
    Lab, Options,
    bulk_transfer::{End, measure_rate},
    proc_files::cpu_seconds,
    progress::{progress, round},
    raw_openvpn::RawPath,
    wait::pause,
};
use anyhow::{Context, Result};
use policies::names::Transport;
use serde::Serialize;
use std::{fs, time::Duration};

/// Length of one run through one tunnel.
const RUN: Duration = Duration::from_secs(1);
/// Time for the new tunnel's own probes.
const SETTLING_TIME: Duration = Duration::from_secs(3);

/// The rates in one direction.
#[derive(Clone, Debug, Serialize)]
pub struct Direction {
    /// Median of the ratios of neighbouring runs: warren's rate divided by that of plain OpenVPN.
    ratio: f64,
    /// The lowest and the highest of these ratios.
    ratio_range: [f64; 2],
    /// Median of the ratios of the processor times that the OpenVPN processes of the path needed for as many bytes.
    cpu_ratio: f64,
    /// Median rate through warren's tunnel.
    warren_mbit_per_second: f64,
    /// Median rate through plain OpenVPN.
    plain_mbit_per_second: f64,
}

/// The comparison for one transport and number of hops.
#[derive(Clone, Debug, Serialize)]
pub struct PathThroughput {
    transport: String,
    /// Tunnels of the path. Over two, both ends have dialled the node between them.
    hops: usize,
    /// From the first node, which dialled, to the last one.
    forth: Direction,
    back: Direction,
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
    paths: Vec<PathThroughput>,
}

/// Measures both transports over one hop and over two, each with this number of pairs in both directions; a pair takes two seconds.
///
/// # Errors
/// Fails if the lab cannot be built, a tunnel does not come up, or nothing passes it.
pub fn measure(pairs: usize, transports: &[Transport], hops: &[usize]) -> Result<Throughput> {
    let mut paths = Vec::new();
    for transport in transports {
        for hops in hops {
            paths.push(measure_path(*transport, *hops, pairs)?);
        }
    }
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    Ok(Throughput {
        load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        pairs,
        paths,
    })
}

/// A path to send by, and the OpenVPN processes that carry it.
struct Carried<'lab> {
    ends: [End<'lab>; 2],
    pids: Vec<u32>,
}

impl Carried<'_> {
    /// Sends for a while, and returns the rate in Mbit/s and the processor time for as many bytes.
    fn run(&self, is_back: bool) -> Result<(f64, f64)> {
        let used = || self.pids.iter().copied().map(cpu_seconds).sum::<f64>();
        let [first, last] = self.ends;
        let (from, to) = if is_back {
            (last, first)
        } else {
            (first, last)
        };
        let before = used();
        let rate = measure_rate(from, to, RUN)?;
        Ok((rate, (used() - before) / rate.max(1.0)))
    }
}

fn measure_path(transport: Transport, hops: usize, pairs: usize) -> Result<PathThroughput> {
    let lab = Lab::build_joined(Options::with_nodes(hops + 1))?;
    // Only the second node accepts, so that the others dial it.
    for node in lab.nodes() {
        let listen = match (node.index(), transport) {
            (1, Transport::Tcp) => "{ udp: 0, tcp: 1194 }",
            (1, Transport::Udp) => "{ udp: 1194, tcp: 0 }",
            _ => "{ udp: 0, tcp: 0 }",
        };
        node.configure("listen", listen)?;
    }
    lab.start_and_converge()?;
    let raw = RawPath::start(&lab, transport == Transport::Tcp)?;
    pause(SETTLING_TIME);
    let (first, last) = (lab.node(0)?, lab.node(hops)?);
    let plain = Carried {
        ends: raw.ends()?,
        pids: raw.pids(),
    };
    let processes = lab.nodes().iter().flat_map(|node| node.children());
    let warren = Carried {
        ends: [
            (first.namespace(), first.identity()?.address),
            (last.namespace(), last.identity()?.address),
        ],
        pids: processes
            .filter(|(_, line)| line.contains("openvpn"))
            .map(|(pid, _)| pid)
            .collect(),
    };
    let forth = compare(&warren, &plain, pairs, false)?;
    let back = compare(&warren, &plain, pairs, true)?;
    let mut round_trips = [Vec::new(), Vec::new()];
    for _ in 0..pairs {
        for (path, found) in [&warren, &plain].iter().zip(&mut round_trips) {
            let [_, (_, target)] = path.ends;
            found.push(mean_round_trip_ms(&lab, &target.to_string())?);
        }
    }
    let [warren_round_trip_ms, plain_round_trip_ms] =
        round_trips.map(|found| round(median(found), 3));
    drop(raw);
    lab.stop_nodes();
    Ok(PathThroughput {
        transport: transport.to_string(),
        hops,
        forth,
        back,
        warren_round_trip_ms,
        plain_round_trip_ms,
    })
}

/// Alternates runs through both paths; each second pair begins with the other one.
fn compare(
    warren: &Carried<'_>,
    plain: &Carried<'_>,
    pairs: usize,
    is_back: bool,
) -> Result<Direction> {
    let (mut ratios, mut cpu_ratios) = (Vec::new(), Vec::new());
    let (mut warren_rates, mut plain_rates) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        let (of_warren, of_plain) = if pair % 2 == 0 {
            let of_warren = warren.run(is_back)?;
            (of_warren, plain.run(is_back)?)
        } else {
            let of_plain = plain.run(is_back)?;
            (warren.run(is_back)?, of_plain)
        };
        let ((warren_rate, warren_cpu), (plain_rate, plain_cpu)) = (of_warren, of_plain);
        let cpu_ratio = warren_cpu / plain_cpu.max(f64::EPSILON);
        progress(format!(
            "warren {warren_rate:.0}, plain {plain_rate:.0} Mbit/s; processor time {cpu_ratio:.2}"
        ));
        ratios.push(warren_rate / plain_rate.max(1.0));
        cpu_ratios.push(cpu_ratio);
        warren_rates.push(warren_rate);
        plain_rates.push(plain_rate);
    }
    let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = ratios.iter().copied().fold(0.0, f64::max);
    Ok(Direction {
        ratio: round(median(ratios), 2),
        ratio_range: [round(lowest, 2), round(highest, 2)],
        cpu_ratio: round(median(cpu_ratios), 2),
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
