//! Makes some nodes far from others: relays the datagrams between their servers and holds each back for a while.
//!
//! Each node gets an address in a part of the underlay of its own. What it sends to another node's server is led
//! to the relay, by a port for each pair, and goes on from there after half of the pair's round trip; so does
//! what comes back. The nodes know nothing of it. TCP is not delayed: who measures with delays lets nobody
//! listen there.

use crate::{Lab, ip, nat_router::load_rules};
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Where the relay listens on the lab's internet.
const RELAY: Ipv4Addr = Ipv4Addr::new(45, 67, 0, 1);
/// The first pair's port.
const FIRST_PORT: u16 = 20_000;
/// Where nodes accept tunnels.
const SERVER_PORT: u16 = 1194;
/// More nodes would need more sockets than a process has.
const MOST_NODES: usize = 24;
/// A sender that was silent for so long is forgotten.
const SILENT: Duration = Duration::from_secs(15);
/// Packets held back at once; what comes beyond is lost.
const MOST_HELD: usize = 20_000;
/// Senders known at once, all pairs together; another one's packets are lost.
const MOST_FLOWS: usize = 600;
/// Groups of nodes that are near each other.
const CLUSTERS: usize = 3;

/// Round trips between nodes, in milliseconds, symmetric: `CLUSTERS` clusters 40 to 160 ms from each other, an access of 1 to 8 ms
/// a node, and a tenth more or less for each pair.
pub fn round_trips_ms(nodes: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut between = |low: f64, high: f64| low + (high - low) * rng.f64();
    let access: Vec<f64> = (0..nodes).map(|_| between(1.0, 8.0)).collect();
    let far: Vec<f64> = (0..CLUSTERS).map(|_| between(40.0, 160.0)).collect();
    let mut all = vec![vec![0.0; nodes]; nodes];
    for (one, near) in access.iter().enumerate() {
        for (other, far_end) in access.iter().enumerate().take(one) {
            let (here, there) = (one % CLUSTERS, other % CLUSTERS);
            // Of three clusters each pair has a distance of its own.
            let apart = if here == there {
                0.0
            } else {
                far.get((here + there) % CLUSTERS).copied().unwrap_or(0.0)
            };
            let trip = (near + far_end + apart) * between(0.9, 1.1);
            for (from, to) in [(one, other), (other, one)] {
                if let Some(cell) = all.get_mut(from).and_then(|row| row.get_mut(to)) {
                    *cell = trip;
                }
            }
        }
    }
    all
}

/// Relays until it is dropped.
#[derive(Debug)]
pub struct Delays {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delays {
    /// Puts these round trips between the lab's nodes, none of which runs yet.
    ///
    /// # Errors
    /// Where the lab has too many nodes, or the kernel refuses addresses, rules or sockets.
    pub fn start(lab: &Lab, round_trips_ms: &[Vec<f64>]) -> Result<Self> {
        let count = lab.nodes().len();
        anyhow::ensure!(
            count <= MOST_NODES,
            "delays can be had between at most {MOST_NODES} nodes"
        );
        let everything = "route add 45.0.0.0/8 dev";
        ip::batch(
            Some(&lab.internet_namespace()),
            &format!("{everything} internet\n"),
        )?;
        ip::batch(
            Some(&lab.registry_namespace()),
            &format!("{everything} eth0\n"),
        )?;
        let mut doors = Vec::new();
        for node in lab.nodes() {
            let own = address(node.index())?;
            let lines = format!(
                "addr flush dev eth0 scope global\naddr add {own}/8 dev eth0\nroute add default via {RELAY}\n"
            );
            ip::batch(Some(node.namespace()), &lines)?;
            let mut rules = String::new();
            for (to, trip) in round_trips_ms
                .get(node.index())
                .into_iter()
                .flatten()
                .enumerate()
                .take(count)
            {
                let (target, port) = (address(to)?, door_port(node.index(), to, count)?);
                rules.push_str(&format!(
                    "        ip daddr {target} udp dport {SERVER_PORT} dnat to {RELAY}:{port}\n"
                ));
                let delay = Duration::try_from_secs_f64(trip / 2_000.0).context("a round trip")?;
                doors.push((port, SocketAddr::from((target, SERVER_PORT)), delay));
            }
            let chain = "type nat hook output priority -100\n        policy accept\n";
            load_rules(
                node.namespace(),
                &format!(
                    "table ip delay {{\n    chain output {{\n        {chain}{rules}    }}\n}}\n"
                ),
            )?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (opened, opening) = channel();
        let (namespace, stopped) = (lab.internet_namespace(), Arc::clone(&stop));
        let thread = thread::spawn(move || run(&namespace, &doors, &stopped, &opened));
        opening.recv().context("the relay's thread is gone")??;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Delays {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A relay that panicked has said so on stderr.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn address(index: usize) -> Result<Ipv4Addr> {
    let part = u8::try_from(100 + index).context("more nodes than parts of the underlay")?;
    Ok(Ipv4Addr::new(45, part, 1, 1))
}

fn door_port(from: usize, to: usize, count: usize) -> Result<u16> {
    let place = u16::try_from(from * count + to).context("more pairs than ports")?;
    FIRST_PORT
        .checked_add(place)
        .context("more pairs than ports")
}

fn run(
    namespace: &str,
    doors: &[(u16, SocketAddr, Duration)],
    stop: &AtomicBool,
    opened: &Sender<Result<()>>,
) {
    let relay = ip::enter(namespace).and_then(|()| Relay::open(doors));
    match relay {
        Ok(mut relay) => {
            drop(opened.send(Ok(())));
            while !stop.load(Ordering::Relaxed) {
                relay.turn();
            }
        }
        Err(error) => drop(opened.send(Err(error))),
    }
}

/// Where what one node sends to another's server comes in.
struct Door {
    socket: UdpSocket,
    server: SocketAddr,
    delay: Duration,
}

/// One sender at one door.
type Flow = (usize, SocketAddr);

/// A packet that is held back.
struct Held {
    flow: Flow,
    to_server: bool,
    bytes: Vec<u8>,
}

struct Relay {
    doors: Vec<Door>,
    /// By which socket a sender's packets go on, and when it was heard last.
    flows: BTreeMap<Flow, (UdpSocket, Instant)>,
    /// By when they are due, and in the order of coming.
    held: BTreeMap<(Instant, u64), Held>,
    number: u64,
}

impl Relay {
    fn open(doors: &[(u16, SocketAddr, Duration)]) -> Result<Self> {
        let open = |(port, server, delay): &(u16, SocketAddr, Duration)| {
            let socket = bound(*port)?;
            Ok(Door {
                socket,
                server: *server,
                delay: *delay,
            })
        };
        let doors = doors.iter().map(open).collect::<Result<_>>()?;
        Ok(Self {
            doors,
            flows: BTreeMap::new(),
            held: BTreeMap::new(),
            number: 0,
        })
    }

    /// Waits until something comes or is due, and passes it on.
    fn turn(&mut self) {
        let now = Instant::now();
        let rest = self.held.keys().next().map_or(100, |(due, _)| {
            // A whole millisecond is the least that poll(2) waits.
            u16::try_from(
                due.saturating_duration_since(now)
                    .as_micros()
                    .div_ceil(1_000),
            )
            .unwrap_or(100)
            .min(100)
        });
        let sockets = self.doors.iter().map(|door| &door.socket);
        let sockets = sockets.chain(self.flows.values().map(|(socket, _)| socket));
        let mut fds: Vec<_> = sockets
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        // Interrupted: nothing is readable, and the next turn polls again.
        poll(&mut fds, PollTimeout::from(rest)).ok();
        let readable: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        let (doors, flows) = readable.split_at(self.doors.len().min(readable.len()));
        let flows: Vec<Flow> = self
            .flows
            .keys()
            .zip(flows)
            .filter(|(_, readable)| **readable)
            .map(|(flow, _)| *flow)
            .collect();
        for (place, _) in doors.iter().enumerate().filter(|(_, readable)| **readable) {
            self.take_in(place);
        }
        flows.into_iter().for_each(|flow| self.take_back(flow));
        self.pass_on();
        self.flows.retain(|_, (_, heard)| heard.elapsed() < SILENT);
    }

    fn take_in(&mut self, place: usize) {
        let mut buffer = [0; 2_048];
        loop {
            let Some(door) = self.doors.get(place) else {
                return;
            };
            let Ok((length, sender)) = door.socket.recv_from(&mut buffer) else {
                return;
            };
            let flow = (place, sender);
            if !self.flows.contains_key(&flow) && self.flows.len() < MOST_FLOWS {
                let Ok(socket) = bound(0) else { continue };
                self.flows.insert(flow, (socket, Instant::now()));
            }
            if let Some((_, heard)) = self.flows.get_mut(&flow) {
                *heard = Instant::now();
                self.hold(flow, true, buffer.get(..length).unwrap_or_default());
            }
        }
    }

    fn take_back(&mut self, flow: Flow) {
        let mut buffer = [0; 2_048];
        loop {
            let Some((socket, _)) = self.flows.get(&flow) else {
                return;
            };
            let Ok((length, _)) = socket.recv_from(&mut buffer) else {
                return;
            };
            self.hold(flow, false, buffer.get(..length).unwrap_or_default());
        }
    }

    fn hold(&mut self, flow: Flow, to_server: bool, bytes: &[u8]) {
        let Some(door) = self
            .doors
            .get(flow.0)
            .filter(|_| self.held.len() < MOST_HELD)
        else {
            return;
        };
        self.number += 1;
        let due = Instant::now() + door.delay;
        self.held.insert(
            (due, self.number),
            Held {
                flow,
                to_server,
                bytes: bytes.to_owned(),
            },
        );
    }

    fn pass_on(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= now) {
            let Held {
                flow,
                to_server,
                bytes,
            } = entry.remove();
            let (Some(door), Some((socket, _))) = (self.doors.get(flow.0), self.flows.get(&flow))
            else {
                continue;
            };
            // What the kernel refuses is lost, as on any network.
            drop(if to_server {
                socket.send_to(&bytes, door.server)
            } else {
                door.socket.send_to(&bytes, flow.1)
            });
        }
    }
}

fn bound(port: u16) -> Result<UdpSocket> {
    let context = || format!("cannot open the relay's port {port}");
    let socket = UdpSocket::bind((RELAY, port)).with_context(context)?;
    socket.set_nonblocking(true).with_context(context)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_the_same_for_a_seed_and_symmetric_and_clusters_lie_apart() {
        let all = round_trips_ms(12, 1);
        assert_eq!(all, round_trips_ms(12, 1));
        assert_ne!(all, round_trips_ms(12, 2));
        for (one, row) in all.iter().enumerate() {
            for (other, trip) in row.iter().enumerate() {
                assert_eq!(*trip, all[other][one]);
                let near = one % CLUSTERS == other % CLUSTERS;
                assert!(
                    if near { *trip < 20.0 } else { *trip > 36.0 },
                    "{one} {other} {trip}"
                );
            }
        }
    }
}
