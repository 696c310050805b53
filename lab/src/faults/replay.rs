//! A member's first packet to an OpenVPN server, recorded once and sent again and again: can a new node still come in?

use super::{Figure, Outcome, liar::client_arguments, square::separate};
use crate::{
    Lab, Options, PingSchedule, Pinger, netns,
    pinger::all_pairs,
    process::Process,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use std::{
    net::UdpSocket,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The node that is attacked, a member whose first packet was recorded, and the nodes that come meanwhile.
const TARGET: usize = 0;
const MEMBER: usize = 1;
const NEWCOMERS: [usize; 2] = [2, 3];
/// Copies a second, one rate for each node that comes.
const RATES: [u32; 2] = [100, 1_000];
/// Promised time until a node that starts reaches the attacked one.
const COMES_IN: Duration = Duration::from_secs(15);
/// Longest time that is waited for it.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for which the server is attacked before the node starts: the server counts first packets over ten seconds.
const LEAD_TIME: Duration = Duration::from_secs(12);
/// Sockets, and so source ports, from which the copies come.
const SOCKETS: usize = 50;
/// Longest wait for the packet that is recorded.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// Tries each rate once.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let lab = Lab::build_joined(Options {
        nodes: 4,
        ..Options::default()
    })?;
    // Each newcomer can dial the attacked node only.
    separate(&lab, NEWCOMERS[0], NEWCOMERS[1])?;
    lab.node(TARGET)?.start()?;
    let packet = record_first_packet(&lab)?;
    progress(format!("recorded a first packet of {} bytes", packet.len()));
    let names = [
        ("replay-100", "a member's first packet, 100 times a second"),
        (
            "replay-1000",
            "a member's first packet, 1,000 times a second",
        ),
    ];
    let tries = names.into_iter().zip(NEWCOMERS.into_iter().zip(RATES));
    tries
        .map(|((id, fault), (newcomer, rate))| {
            progress(fault);
            let came_in = come_in_meanwhile(&lab, newcomer, (&packet, rate))?;
            Ok(Outcome {
                id,
                fault,
                tries: 1,
                figures: vec![Figure::time(
                    "a new node reaches the attacked one",
                    came_in,
                    COMES_IN,
                )],
            })
        })
        .collect()
}

/// Lets the member dial a socket of ours at the bridge, and returns what it sent first.
fn record_first_packet(lab: &Lab) -> Result<Vec<u8>> {
    let node = lab.node(MEMBER)?;
    let socket = netns::run_inside(&lab.internet_namespace(), || {
        let socket = UdpSocket::bind("45.67.0.1:1194")?;
        socket.set_read_timeout(Some(RECORD_TIMEOUT))?;
        Ok(socket)
    })?;
    let arguments = client_arguments(node, "45.67.0.1", "null");
    let log = node.root().join("recorded.log");
    let _openvpn = Process::start(node.namespace(), Path::new("openvpn"), arguments, &log)?;
    let mut buffer = vec![0; 2048];
    let length = socket
        .recv(&mut buffer)
        .context("the member sent nothing")?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Starts the node during the attack; returns how long it took until it reached the attacked one.
fn come_in_meanwhile(
    lab: &Lab,
    newcomer: usize,
    (packet, rate): (&[u8], u32),
) -> Result<Option<Duration>> {
    let is_over = AtomicBool::new(false);
    let internet = lab.internet_namespace();
    thread::scope(|scope| {
        let attacker =
            scope.spawn(|| netns::run_inside(&internet, || send_copies(packet, rate, &is_over)));
        pause(LEAD_TIME);
        let hosts = [
            lab.ping_hosts(TARGET..TARGET + 1)?,
            lab.ping_hosts(newcomer..newcomer + 1)?,
        ];
        let pinger = Pinger::start(&hosts.concat(), PingSchedule::UNTIL_ANSWERED)?;
        let start = pinger.now();
        lab.node(newcomer)?.start()?;
        let came_in = wait_until(WAIT_TIMEOUT, || pinger.all_answered(start, all_pairs));
        is_over.store(true, Ordering::Relaxed);
        attacker.join().ok().context("the attacker panicked")??;
        lab.node(newcomer)?.stop_cleanly()?;
        Ok(came_in.map(|moment| moment.saturating_sub(start)))
    })
}

fn send_copies(packet: &[u8], rate: u32, is_over: &AtomicBool) -> Result<()> {
    let sockets: Vec<_> = (0..SOCKETS)
        .map(|_| UdpSocket::bind("45.67.0.1:0"))
        .collect::<Result<_, _>>()?;
    let to = (format!("45.67.1.{}", TARGET + 1), 1194);
    let (start, mut sent) = (Instant::now(), 0);
    for socket in sockets.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        while f64::from(sent) >= start.elapsed().as_secs_f64() * f64::from(rate) {
            pause(Duration::from_millis(1));
        }
        drop(socket.send_to(packet, (to.0.as_str(), to.1)));
        sent += 1;
    }
    Ok(())
}
