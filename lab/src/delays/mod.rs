//! Makes some nodes distant from others: a relay delays the datagrams between their servers.
//!
//! Each node gets an address in a part of the underlay of its own. nftables redirects what a node sends to another
//! node's server to the relay, at one port for each pair. The relay forwards it after half of the pair's round trip,
//! and does the same with the replies. The nodes do not notice. TCP is not delayed, so no node may listen for TCP in
//! a measurement with delays.

mod relay;

use crate::{Lab, ip, nat_router::load_nft_rules, netns};
use anyhow::{Context, Result, ensure};
use relay::Relay;
use std::{
    fmt::Write,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// The relay's address on the lab's internet.
const RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(45, 67, 0, 1);
/// The relay's port for the first pair.
const FIRST_PORT: u16 = 20_000;
/// The port at which nodes accept tunnels over UDP.
const SERVER_PORT: u16 = 1194;
/// Nodes that can have delays between them; for more, a process could not open enough sockets.
const MAX_NODES: usize = 24;
/// Groups of nodes that are near each other.
const CLUSTERS: usize = 3;
/// Range of the round trip between two clusters, in milliseconds.
const BETWEEN_CLUSTERS_MS: (f64, f64) = (40.0, 160.0);
/// Range of the round trip between a node and its cluster, in milliseconds.
const ACCESS_MS: (f64, f64) = (1.0, 8.0);
/// Range of the factor by which each pair's round trip differs from the sum of its parts.
const PAIR_FACTOR: (f64, f64) = (0.9, 1.1);

/// One direction of one pair: what arrives at the relay's `port` goes to `server` after `delay`.
#[derive(Clone, Copy, Debug)]
struct Forwarding {
    port: u16,
    server: SocketAddr,
    delay: Duration,
}

/// Draws symmetric round trips between nodes, in milliseconds, from a seed.
///
/// There are three clusters, 40 to 160 ms from each other. Each node adds an access of 1 to 8 ms, and each pair differs
/// by up to a tenth.
pub fn round_trips_ms(nodes: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut draw = |(low, high): (f64, f64)| low + (high - low) * rng.f64();
    let access: Vec<f64> = (0..nodes).map(|_| draw(ACCESS_MS)).collect();
    let between_clusters: Vec<f64> = (0..CLUSTERS).map(|_| draw(BETWEEN_CLUSTERS_MS)).collect();
    let mut round_trips = vec![vec![0.0; nodes]; nodes];
    for (one, one_access) in access.iter().enumerate() {
        for (other, other_access) in access.iter().enumerate().take(one) {
            let clusters = (one % CLUSTERS, other % CLUSTERS);
            // With three clusters, the sum of two numbers names their pair.
            let distance = if clusters.0 == clusters.1 {
                0.0
            } else {
                let pair = (clusters.0 + clusters.1) % CLUSTERS;
                between_clusters.get(pair).copied().unwrap_or(0.0)
            };
            let round_trip = (one_access + other_access + distance) * draw(PAIR_FACTOR);
            for (from, to) in [(one, other), (other, one)] {
                if let Some(cell) = round_trips.get_mut(from).and_then(|row| row.get_mut(to)) {
                    *cell = round_trip;
                }
            }
        }
    }
    round_trips
}

/// The running relay; dropping it stops it.
#[derive(Debug)]
pub struct Delays {
    should_stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delays {
    /// Puts these round trips between the lab's nodes, none of which may run yet.
    ///
    /// # Errors
    /// Fails if the lab has more than 24 nodes, or if the kernel rejects addresses, rules or sockets.
    pub fn start(lab: &Lab, round_trips_ms: &[Vec<f64>]) -> Result<Self> {
        let count = lab.nodes().len();
        ensure!(
            count <= MAX_NODES,
            "delays are possible between at most {MAX_NODES} nodes, not {count}"
        );
        for (namespace, link) in [
            (lab.internet_namespace(), "internet"),
            (lab.registry_namespace(), "eth0"),
        ] {
            let route = format!("route add 45.0.0.0/8 dev {link}\n");
            ip::batch(Some(&namespace), &route)?;
        }
        let mut forwardings = Vec::new();
        for (node, round_trips) in lab.nodes().iter().zip(round_trips_ms) {
            let of_node = forwardings_of(node.index(), round_trips, count)?;
            redirect(node.namespace(), node.index(), &of_node)?;
            forwardings.extend(of_node);
        }
        let should_stop = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&should_stop);
        let (opened, opening) = channel();
        let namespace = lab.internet_namespace();
        let thread = thread::spawn(move || run_relay(&namespace, &forwardings, &stop, &opened));
        opening
            .recv()
            .context("the relay's thread exited at once")??;
        Ok(Self {
            should_stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Delays {
    fn drop(&mut self) {
        self.should_stop.store(true, Ordering::Relaxed);
        // A relay that panicked has printed its panic already.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The forwardings of all that this node sends to other nodes' servers.
fn forwardings_of(from: usize, round_trips_ms: &[f64], count: usize) -> Result<Vec<Forwarding>> {
    let forwarding = |(to, round_trip): (usize, &f64)| {
        let pair = u16::try_from(from * count + to).context("there are more pairs than ports")?;
        let port = FIRST_PORT
            .checked_add(pair)
            .context("there are more pairs than ports")?;
        // Milliseconds to seconds, and half of the round trip for one direction.
        let delay = Duration::try_from_secs_f64(round_trip / 2_000.0)
            .with_context(|| format!("{round_trip} ms is no round trip"))?;
        let server = SocketAddr::from((node_address(to)?, SERVER_PORT));
        Ok(Forwarding {
            port,
            server,
            delay,
        })
    };
    round_trips_ms
        .iter()
        .enumerate()
        .take(count)
        .map(forwarding)
        .collect()
}

/// Gives the node its address, and redirects what it sends to other nodes' servers to the relay.
fn redirect(namespace: &str, index: usize, forwardings: &[Forwarding]) -> Result<()> {
    let address = node_address(index)?;
    let lines = format!(
        "addr flush dev eth0 scope global\naddr add {address}/8 dev eth0\nroute add default via {RELAY_ADDRESS}\n"
    );
    ip::batch(Some(namespace), &lines)?;
    let mut rules = String::new();
    for forwarding in forwardings {
        writeln!(
            rules,
            "        ip daddr {} udp dport {SERVER_PORT} dnat to {RELAY_ADDRESS}:{}",
            forwarding.server.ip(),
            forwarding.port
        )?;
    }
    load_nft_rules(
        namespace,
        &format!(
            "table ip delay {{
    chain output {{
        type nat hook output priority -100
        policy accept
{rules}    }}
}}
"
        ),
    )
}

fn node_address(index: usize) -> Result<Ipv4Addr> {
    let part =
        u8::try_from(100 + index).context("there are more nodes than parts of the underlay")?;
    Ok(Ipv4Addr::new(45, part, 1, 1))
}

fn run_relay(
    namespace: &str,
    forwardings: &[Forwarding],
    should_stop: &AtomicBool,
    opened: &Sender<Result<()>>,
) {
    match netns::enter(namespace).and_then(|()| Relay::open(forwardings)) {
        Ok(mut relay) => {
            drop(opened.send(Ok(())));
            while !should_stop.load(Ordering::Relaxed) {
                relay.process_packets();
            }
        }
        Err(error) => drop(opened.send(Err(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_depend_on_the_seed_are_symmetric_and_longer_between_clusters() {
        let round_trips = round_trips_ms(12, 1);
        assert_eq!(round_trips, round_trips_ms(12, 1));
        assert_ne!(round_trips, round_trips_ms(12, 2));
        for (one, row) in round_trips.iter().enumerate() {
            for (other, round_trip) in row.iter().enumerate() {
                assert_eq!(*round_trip, round_trips[other][one]);
                let is_near = one % CLUSTERS == other % CLUSTERS;
                let has_distance = *round_trip > 36.0;
                assert_eq!(has_distance, !is_near, "{one} {other} {round_trip}");
                assert!(!is_near || *round_trip < 20.0, "{one} {other} {round_trip}");
            }
        }
    }
}
