//! Too much of something: packets from the internet, packets that babeld logs, routes, connections.

use super::{
    Figure, Outcome,
    liar::{Announcement, Liar, with_header},
    square::{MIDDLE, NEIGHBOUR, Square},
};
use crate::{netns, ping_record::PingSummary, proc_files, progress::progress, wait::pause};
use anyhow::{Context, Result};
use policies::names::Prefix;
use std::{
    io::Write,
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};
use wire::peer;

/// Length of each flood.
const FLOOD_SPAN: Duration = Duration::from_secs(10);
/// Time after a flood in which pings are counted, too.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Pings that may be lost, in percent of all.
const MAX_LOST_PERCENT: f64 = 1.0;
/// Most memory that a daemon may take for false routes, in MiB.
const MAX_GROWTH_MIB: u64 = 64;
/// Packets a second from the internet.
const INTERNET_RATE: u32 = 10_000;
/// Packets a second with malformed TLVs, for each of which babeld writes many lines.
const MALFORMED_RATE: u32 = 60;
/// Routes that a member announces.
const ROUTES: u32 = 20_000;
/// The first of their nodes' numbers; the real nodes have lower ones.
const FIRST_FALSE_NODE: u32 = 1_000;
/// Connections that a member, or a local user, holds open.
const CONNECTIONS: usize = 200;
/// Promised longest time for which no request of another client is answered.
const MAX_ANSWER_GAP: Duration = Duration::from_secs(5);
/// Longest time in which a node must answer another client meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval between two requests of that client.
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// Where a node of the lab serves its metrics.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9197);

/// Runs each flood once.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let square = Square::build(2)?;
    Ok(vec![
        flood_from_internet(&square)?,
        flood_with_log_lines(&square)?,
        flood_with_routes(&square)?,
        hold_metrics_connections(&square)?,
        hold_peer_connections(&square)?,
    ])
}

/// Runs `flood`, and returns the pings of its time and how often the process was started meanwhile.
fn observe(
    square: &Square,
    process: &str,
    flood: impl FnOnce() -> Result<()>,
) -> Result<(PingSummary, u64)> {
    let before = square.starts(NEIGHBOUR, process)?;
    let start = square.pinger.now();
    flood()?;
    let end = square.pinger.now() + AFTERMATH;
    let pings = square.pings(start, end);
    let starts = square.starts(NEIGHBOUR, process)?.saturating_sub(before);
    progress(format!(
        "{process} was restarted {starts} times; lost {} of {} pings",
        pings.lost, pings.sent
    ));
    Ok((pings, starts))
}

/// Sends so many packets a second until the flood's end.
fn send_steadily(rate: u32, mut send: impl FnMut()) {
    let start = Instant::now();
    let mut sent = 0u32;
    while start.elapsed() < FLOOD_SPAN {
        let due = start.elapsed().as_secs_f64() * f64::from(rate);
        while f64::from(sent) < due {
            send();
            sent += 1;
        }
        pause(Duration::from_millis(1));
    }
}

fn flood_from_internet(square: &Square) -> Result<Outcome> {
    let fault = "10,000 packets a second from the internet, without the network's key";
    progress(fault);
    let to = (format!("45.67.1.{}", NEIGHBOUR + 1), 1194);
    let (pings, starts) = observe(square, "server-udp", || {
        netns::run_inside(&square.lab.internet_namespace(), || {
            let socket = UdpSocket::bind("45.67.0.1:0")?;
            socket.connect((to.0.as_str(), to.1))?;
            let mut packet = [0u8; 54];
            send_steadily(INTERNET_RATE, || {
                packet.fill_with(|| fastrand::u8(..));
                // The opcode of a client's first packet.
                if let Some(first) = packet.first_mut() {
                    *first = 0x38;
                }
                drop(socket.send(&packet));
            });
            Ok(())
        })
    })?;
    Ok(outcome("flood-internet", fault, (pings, starts)))
}

fn flood_with_log_lines(square: &Square) -> Result<Outcome> {
    let fault = "60 Babel packets a second from a member, with 660 malformed TLVs each";
    progress(fault);
    let liar = square.connect_liar()?;
    // Hellos without content.
    let packet = with_header([4, 0].repeat(660));
    let found = observe(square, "babeld", || {
        send_steadily(MALFORMED_RATE, || drop(liar.send(&packet)));
        Ok(())
    })?;
    Ok(outcome("flood-log", fault, found))
}

fn flood_with_routes(square: &Square) -> Result<Outcome> {
    let fault = "20,000 routes from a member, to nodes that do not exist";
    progress(fault);
    let liar = square.connect_liar()?;
    let pid = square.lab.node(NEIGHBOUR)?.pid();
    let pid = pid.context("the daemon has exited")?;
    let before = proc_files::private_kib(pid)?;
    let found = observe(square, "babeld", || announce_many(square, &liar))?;
    let mut outcome = outcome("flood-routes", fault, found);
    let growth = proc_files::private_kib(pid)?.saturating_sub(before);
    outcome.figures.push(Figure {
        unit: "MiB",
        ..Figure::count("memory growth", growth >> 10, MAX_GROWTH_MIB)
    });
    Ok(outcome)
}

fn announce_many(square: &Square, liar: &Liar) -> Result<()> {
    let routes: Vec<Announcement> = (FIRST_FALSE_NODE..FIRST_FALSE_NODE + ROUTES)
        .filter_map(|number| Prefix::new(number, 16))
        .map(|node| Announcement {
            metric: 96,
            ..Announcement::own(square.network, node)
        })
        .collect();
    let start = Instant::now();
    // A second flood refreshes the routes that were lost on the path.
    while start.elapsed() < FLOOD_SPAN {
        for part in routes.chunks(500) {
            liar.announce(part)?;
            pause(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn outcome(id: &'static str, fault: &'static str, (pings, starts): (PingSummary, u64)) -> Outcome {
    Outcome {
        id,
        fault,
        tries: 1,
        figures: vec![
            Figure::count("children killed", starts, 0),
            Figure::lost(pings, MAX_LOST_PERCENT),
        ],
    }
}

fn hold_metrics_connections(square: &Square) -> Result<Outcome> {
    let fault = "200 connections of a local user to the metrics, which send half a request";
    progress(fault);
    let node = square.lab.node(NEIGHBOUR)?;
    let to = SocketAddr::from(METRICS);
    let answers = hold_connections(node.namespace(), to, || {
        let start = Instant::now();
        node.scrape().is_ok() && start.elapsed() <= ANSWER_TIMEOUT
    })?;
    Ok(unanswered("connections-metrics", fault, answers))
}

fn hold_peer_connections(square: &Square) -> Result<Outcome> {
    let fault = "200 connections of a member to the API of another, without TLS";
    progress(fault);
    let address = square.lab.node(NEIGHBOUR)?.identity()?.address;
    let to = SocketAddr::from((address, peer::PORT));
    let attacker = square.lab.node(MIDDLE)?;
    let client = square.lab.node(3)?;
    let url = format!("https://[{address}]:{}/v1/node", peer::PORT);
    let state = client.root().join("var/lib/warren");
    let file = |name: &str| state.join(name).display().to_string();
    let (certificate, key) = (file("node.crt"), file("node.key"));
    let own = client.identity()?.address.to_string();
    let timeout = ANSWER_TIMEOUT.as_secs().to_string();
    let options = ["-sfk", "-m", &timeout, "--interface", &own];
    let files = ["--cert", &certificate, "--key", &key, &url];
    let arguments = [options, files].concat();
    let answers = hold_connections(attacker.namespace(), to, || {
        client.command("curl", &arguments).is_ok()
    })?;
    Ok(unanswered("connections-peer-api", fault, answers))
}

/// The requests that were made during an attack.
struct Answers {
    asked: u32,
    answered: u32,
    /// The longest time between the start of the attack, two answered requests, and its end.
    longest_gap: Duration,
}

fn unanswered(id: &'static str, fault: &'static str, answers: Answers) -> Outcome {
    let (asked, answered) = (answers.asked, answers.answered);
    progress(format!("{answered} of {asked} requests were answered"));
    let gap = Some(answers.longest_gap);
    Outcome {
        id,
        fault,
        tries: usize::try_from(asked).unwrap_or_default(),
        figures: vec![Figure::time(
            "longest time without an answer",
            gap,
            MAX_ANSWER_GAP,
        )],
    }
}

/// Holds connections open during the flood, and lets a request be made each second meanwhile.
fn hold_connections(
    namespace: &str,
    to: SocketAddr,
    request: impl Fn() -> bool,
) -> Result<Answers> {
    thread::scope(|scope| {
        let holder = scope.spawn(|| netns::run_inside(namespace, || open_again_and_again(to)));
        pause(REQUEST_INTERVAL);
        let start = Instant::now();
        let (mut asked, mut answered) = (0, 0);
        let (mut last, mut longest_gap) = (start, Duration::ZERO);
        while start.elapsed() + REQUEST_INTERVAL < FLOOD_SPAN {
            asked += 1;
            if request() {
                answered += 1;
                longest_gap = longest_gap.max(last.elapsed());
                last = Instant::now();
            }
            pause(REQUEST_INTERVAL);
        }
        longest_gap = longest_gap.max(last.elapsed());
        let outcome = holder.join().ok().context("the attacker panicked")?;
        outcome.map(|()| Answers {
            asked,
            answered,
            longest_gap,
        })
    })
}

fn open_again_and_again(to: SocketAddr) -> Result<()> {
    let start = Instant::now();
    let mut connections: Vec<TcpStream> = Vec::new();
    while start.elapsed() < FLOOD_SPAN {
        connections.retain(|connection| {
            let is_open = |peeked: std::io::Result<usize>| match peeked {
                Ok(length) => length > 0,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            };
            is_open(connection.peek(&mut [0]))
        });
        while connections.len() < CONNECTIONS {
            let Ok(mut connection) = TcpStream::connect_timeout(&to, REQUEST_INTERVAL) else {
                break;
            };
            drop(connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n"));
            connection.set_nonblocking(true)?;
            connections.push(connection);
        }
        pause(Duration::from_millis(100));
    }
    Ok(())
}
