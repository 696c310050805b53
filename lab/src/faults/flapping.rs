//! Members that connect to one node and leave without a word, ten times a second.

use super::{
    Figure, Outcome,
    liar::client_arguments,
    members::honest_closings,
    square::{LogWatch, NEIGHBOUR, Square},
};
use crate::{Node, proc_files::cpu_seconds, process::Process, progress::progress, wait::pause};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Members that connect and leave.
const FLAPPING: usize = 20;
/// Interval between two connections of one of them; together they make ten a second.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time for which each of their tunnels lives.
const LIFE: Duration = Duration::from_millis(700);
/// Time for which they do so.
const SPAN: Duration = Duration::from_secs(20);
/// Time after it in which pings are counted, too.
const AFTERMATH: Duration = Duration::from_secs(4);
/// Pings that may be lost, in percent of all.
const MAX_LOST_PERCENT: f64 = 1.0;
/// Promised processor time of the daemon, in percent of one processor.
const MAX_CPU_PERCENT: f64 = 25.0;
/// What OpenVPN writes once its tunnel is up.
const CONNECTED: &str = "Initialization Sequence Completed";

pub(super) fn run() -> Result<Vec<Outcome>> {
    let fault =
        "twenty members connect to one node, ten a second, and are killed after 0.7 s, for 20 s";
    let square = Square::build(FLAPPING)?;
    progress(fault);
    let logs: Vec<_> = square.running_nodes().map(LogWatch::start).collect();
    let pid = square.lab.node(NEIGHBOUR)?.pid();
    let pid = pid.context("the daemon has exited")?;
    let (server, cpu) = (square.starts(NEIGHBOUR, "server-udp")?, cpu_seconds(pid));
    let start = square.pinger.now();
    let members = square.take_liars(FLAPPING)?;
    let counts = thread::scope(|scope| {
        let members: Vec<_> = (0..)
            .zip(members)
            .map(|(number, member)| scope.spawn(move || connect_again_and_again(number, member)))
            .collect();
        let members = members.into_iter();
        let counts = members.map(|member| member.join().ok().context("a member panicked")?);
        counts.collect::<Result<Vec<_>>>()
    })?;
    let end = square.pinger.now();
    let cpu = (cpu_seconds(pid) - cpu) / end.saturating_sub(start).as_secs_f64();
    let pings = square.pings(start, end + AFTERMATH);
    let (tries, connected) = counts
        .into_iter()
        .fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    progress(format!("{connected} of {tries} tunnels came up"));
    ensure!(2 * connected > tries, "too few members got a tunnel");
    let server = square.starts(NEIGHBOUR, "server-udp")? - server;
    let closed = honest_closings(&square, &logs);
    Ok(vec![Outcome {
        id: "flapping-members",
        fault,
        tries,
        figures: vec![
            Figure::count("children killed", server, 0),
            Figure::count("honest tunnels closed", u64::try_from(closed)?, 0),
            Figure::lost(pings, MAX_LOST_PERCENT),
            Figure {
                name: "processor time of the daemon",
                value: 100.0 * cpu,
                limit: MAX_CPU_PERCENT,
                unit: "%",
            },
        ],
    }])
}

/// Returns how often the member started to connect, and how often it was connected.
fn connect_again_and_again(number: u32, member: &Node) -> Result<(usize, usize)> {
    let remote = format!("45.67.1.{}", NEIGHBOUR + 1);
    let arguments = client_arguments(member, &remote, "null");
    let log = member.root().join("flapping.log");
    let first = INTERVAL / u32::try_from(FLAPPING)? * number;
    let (start, mut count) = (Instant::now(), 0);
    loop {
        let due = first + INTERVAL * count;
        if due >= SPAN {
            break;
        }
        pause(due.saturating_sub(start.elapsed()));
        let openvpn = Process::start(member.namespace(), Path::new("openvpn"), &arguments, &log)?;
        pause(LIFE);
        drop(openvpn);
        count += 1;
    }
    let text = fs::read_to_string(&log)?;
    Ok((usize::try_from(count)?, text.matches(CONNECTED).count()))
}
