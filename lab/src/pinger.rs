//! Pings all ordered pairs of nodes at once, and records what became of each ping.
//!
//! Each node has one thread in its namespace, with one ping socket bound to the node's address. The kernel passes
//! such a socket the replies to its own requests only. A number in the payload matches replies to requests, so
//! that losses, duplicates and reordering are counted apart.
//!
//! All moments are spans since the pinger's start, as [`Pinger::now`] returns them.

use crate::{
    netns,
    ping_record::{PingRecord, PingSummary},
};
use anyhow::{Context, Result, anyhow};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

/// Type of an ICMPv6 echo request (RFC 4443).
const ECHO_REQUEST: u8 = 128;
/// Bytes of each socket's buffers: room for the replies of all pairs while the thread is not scheduled.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Longest wait of poll(2) if the time until the next ping does not fit into its argument, in milliseconds.
const POLL_TIMEOUT_MS: u8 = 10;

/// The least time between two pings of all pairs that wait for their first reply, so that the pings of many nodes do not take the
/// processor that the nodes need: 2,000 pings a second.
const MIN_SPACING: Duration = Duration::from_micros(500);

/// The moments at which each pair is pinged.
#[derive(Clone, Copy, Debug)]
pub enum PingSchedule {
    /// Pings go out at this interval until the pinger is dropped.
    Every(Duration),
    /// Pings go out at this interval, or at a longer one if there are many pairs, until the pair has had one reply.
    UntilAnswered(Duration),
}

impl PingSchedule {
    /// The schedule for measuring losses and gaps: every pair every 10 ms.
    pub const STEADY: Self = Self::Every(Duration::from_millis(10));
    /// The schedule for waiting until every pair has answered once.
    pub const UNTIL_ANSWERED: Self = Self::UntilAnswered(Duration::from_millis(50));

    fn interval(self) -> Duration {
        match self {
            Self::Every(interval) | Self::UntilAnswered(interval) => interval,
        }
    }

    /// The schedule for all ordered pairs of so many nodes.
    fn for_nodes(self, nodes: u32) -> Self {
        let pairs = nodes.saturating_mul(nodes.saturating_sub(1));
        match self {
            Self::Every(interval) => Self::Every(interval),
            Self::UntilAnswered(interval) => Self::UntilAnswered(interval.max(MIN_SPACING * pairs)),
        }
    }
}

/// A node that takes part in the pings.
#[derive(Clone, Debug)]
pub struct PingHost {
    /// The network namespace that the node lives in.
    pub namespace: String,
    /// The address that it pings from and is pinged at.
    pub address: Ipv6Addr,
}

/// Selects all ordered pairs.
pub fn all_pairs(_from: usize, _to: usize) -> bool {
    true
}

/// Selects the pairs that this node is an end of.
pub fn pairs_with(node: usize) -> impl Fn(usize, usize) -> bool + Copy {
    move |from, to| from == node || to == node
}

/// Selects the pairs that this node is no end of.
pub fn pairs_without(node: usize) -> impl Fn(usize, usize) -> bool + Copy {
    move |from, to| from != node && to != node
}

/// Pings until it is dropped.
#[derive(Debug)]
pub struct Pinger {
    start: Instant,
    should_stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// By source, and in it by destination; the source's own record stays empty.
    records: Vec<Arc<Mutex<Vec<PingRecord>>>>,
}

impl Pinger {
    /// Starts to ping between all `hosts`. Their addresses need not exist yet.
    ///
    /// # Errors
    /// Fails if a namespace cannot be entered or provides no ping socket.
    pub fn start(hosts: &[PingHost], schedule: PingSchedule) -> Result<Self> {
        let mut pinger = Self {
            start: Instant::now(),
            should_stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
            records: Vec::new(),
        };
        let (opened, openings) = channel();
        let addresses: Vec<Ipv6Addr> = hosts.iter().map(|host| host.address).collect();
        let count = u32::try_from(hosts.len()).unwrap_or(u32::MAX).max(1);
        let schedule = schedule.for_nodes(count);
        let mut delay = Duration::ZERO;
        for (source, host) in hosts.iter().enumerate() {
            let records = Arc::new(Mutex::new(vec![PingRecord::default(); hosts.len()]));
            let worker = Worker {
                source,
                addresses: addresses.clone(),
                start: pinger.start,
                schedule,
                should_stop: Arc::clone(&pinger.should_stop),
                records: Arc::clone(&records),
            };
            let (namespace, opened) = (host.namespace.clone(), opened.clone());
            pinger.records.push(records);
            pinger.threads.push(thread::spawn(move || {
                worker.run(&namespace, delay, &opened)
            }));
            // The sources start one after the other, so that not all pings of an interval leave at once.
            delay += schedule.interval() / count;
        }
        drop(opened);
        openings.iter().take(hosts.len()).collect::<Result<()>>()?;
        Ok(pinger)
    }

    /// The present moment, as the time since the pinger's start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Converts a moment of the wall clock, which must not be in the future.
    pub fn at_wall_clock(&self, moment: SystemTime) -> Duration {
        let age = SystemTime::now().duration_since(moment).unwrap_or_default();
        self.now().saturating_sub(age)
    }

    fn records_of(&self, source: usize) -> Option<MutexGuard<'_, Vec<PingRecord>>> {
        self.records
            .get(source)
            .map(|records| records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Evaluates `read` on the record of each selected pair; returns source, destination and value.
    pub fn read_records<T>(
        &self,
        is_selected: impl Fn(usize, usize) -> bool,
        mut read: impl FnMut(&PingRecord) -> T,
    ) -> Vec<(usize, usize, T)> {
        let mut values = Vec::new();
        for from in 0..self.records.len() {
            let Some(records) = self.records_of(from) else {
                continue;
            };
            let pairs = records.iter().enumerate();
            for (to, record) in pairs.filter(|(to, _)| *to != from && is_selected(from, *to)) {
                values.push((from, to, read(record)));
            }
        }
        values
    }

    /// When the last of the selected pairs got its first reply to a ping sent at `from` or later; `None` while a pair
    /// has none.
    pub fn all_answered(
        &self,
        from: Duration,
        is_selected: impl Fn(usize, usize) -> bool,
    ) -> Option<Duration> {
        self.read_records(is_selected, |record| record.first_reply(from))
            .into_iter()
            .try_fold(Duration::ZERO, |last, (.., first)| Some(last.max(first?)))
    }

    /// The selected pairs without a reply to any ping that was sent within the last `span`.
    pub fn silent_pairs(
        &self,
        span: Duration,
        is_selected: impl Fn(usize, usize) -> bool,
    ) -> Vec<(usize, usize)> {
        let since = self.now().saturating_sub(span);
        self.read_records(is_selected, |record| record.last_answered() >= Some(since))
            .into_iter()
            .filter(|(.., is_answered)| !is_answered)
            .map(|(from, to, _)| (from, to))
            .collect()
    }

    /// Sums up the selected pairs' pings sent from `from` on and before `to`.
    pub fn summarize(
        &self,
        from: Duration,
        to: Duration,
        is_selected: impl Fn(usize, usize) -> bool,
    ) -> PingSummary {
        let now = self.now();
        let mut total = PingSummary::default();
        self.read_records(is_selected, |record| {
            total.add(record.summarize(from, to, now))
        });
        total
    }

    /// One line for each second in which selected pairs lost pings: how many, and which pair lost most.
    pub fn describe_losses(
        &self,
        from: Duration,
        to: Duration,
        is_selected: impl Fn(usize, usize) -> bool,
    ) -> Vec<String> {
        let now = self.now();
        let mut seconds = BTreeMap::<u64, BTreeMap<(usize, usize), usize>>::new();
        let lost = self.read_records(is_selected, |record| record.lost_pings(from, to, now));
        for (source, target, moments) in lost {
            for moment in moments {
                let pairs = seconds.entry(moment.as_secs()).or_default();
                *pairs.entry((source, target)).or_default() += 1;
            }
        }
        seconds.into_iter().map(describe_second).collect()
    }
}

fn describe_second((second, pairs): (u64, BTreeMap<(usize, usize), usize>)) -> String {
    let total: usize = pairs.values().sum();
    let worst_pair = pairs.iter().max_by_key(|(_, lost)| **lost);
    let worst = worst_pair.map_or_else(String::new, |((from, to), lost)| {
        format!(", most by {from} to {to}: {lost}")
    });
    format!(
        "  second {second} of the pings: {total} lost by {} pairs{worst}",
        pairs.len()
    )
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.should_stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A worker that panicked has printed its panic already.
            drop(thread.join());
        }
    }
}

/// The state of one source's thread.
struct Worker {
    source: usize,
    addresses: Vec<Ipv6Addr>,
    start: Instant,
    schedule: PingSchedule,
    should_stop: Arc<AtomicBool>,
    records: Arc<Mutex<Vec<PingRecord>>>,
}

impl Worker {
    fn run(self, namespace: &str, delay: Duration, opened: &Sender<Result<()>>) {
        let socket = match self.open_socket(namespace) {
            Ok(socket) => socket,
            Err(error) => return drop(opened.send(Err(error))),
        };
        drop(opened.send(Ok(())));
        let mut next_round = Instant::now() + delay;
        while !self.should_stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= next_round {
                self.send_round(&socket);
                // After a delay the missed rounds are skipped, not made up for.
                next_round = (next_round + self.schedule.interval()).max(now);
            }
            let remaining = next_round.saturating_duration_since(Instant::now());
            let timeout =
                PollTimeout::try_from(remaining).unwrap_or(PollTimeout::from(POLL_TIMEOUT_MS));
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            // If a signal interrupts poll(2), the next iteration polls again.
            poll(&mut fds, timeout).ok();
            self.receive_replies(&socket);
        }
    }

    fn open_socket(&self, namespace: &str) -> Result<UdpSocket> {
        netns::enter(namespace)?;
        let address = self
            .addresses
            .get(self.source)
            .ok_or_else(|| anyhow!("there is no source {}", self.source))?;
        let open = || {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::ICMPV6))?;
            // The node's address comes and goes with its daemon; the socket stays.
            socket.set_freebind_v6(true)?;
            socket.bind(&SocketAddr::from((*address, 0)).into())?;
            socket.set_nonblocking(true)?;
            setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)?;
            setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER_BYTES)?;
            Ok::<UdpSocket, anyhow::Error>(UdpSocket::from(socket))
        };
        open().with_context(|| format!("cannot open a ping socket in {namespace}"))
    }

    fn records(&self) -> MutexGuard<'_, Vec<PingRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_round(&self, socket: &UdpSocket) {
        let mut records = self.records();
        let targets = self.addresses.iter().zip(records.iter_mut()).enumerate();
        for (target, (address, record)) in targets.filter(|(target, _)| *target != self.source) {
            if matches!(self.schedule, PingSchedule::UntilAnswered(_)) && record.is_answered() {
                continue;
            }
            let number = record.add_request(self.start.elapsed());
            // A request that the kernel rejects (no route, no address yet) gets no reply and so counts as lost.
            drop(socket.send_to(
                &echo_request(target, number),
                SocketAddrV6::new(*address, 0, 0, 0),
            ));
        }
    }

    fn receive_replies(&self, socket: &UdpSocket) {
        let mut buffer = [0; 128];
        let mut records = None;
        while let Ok(length) = socket.recv(&mut buffer) {
            let now = self.start.elapsed();
            let Some((target, number)) = buffer.get(..length).and_then(parse_reply) else {
                continue;
            };
            let records = records.get_or_insert_with(|| self.records());
            if let Some(record) = records.get_mut(target) {
                record.add_reply(number, now);
            }
        }
    }
}

/// An echo request whose payload is the target's and the request's number; the kernel fills in checksum and identifier.
fn echo_request(target: usize, number: usize) -> [u8; 24] {
    let mut packet = [0; 24];
    let (header, payload) = packet.split_at_mut(8);
    if let Some(kind) = header.first_mut() {
        *kind = ECHO_REQUEST;
    }
    let (left, right) = payload.split_at_mut(8);
    left.copy_from_slice(&u64::try_from(target).unwrap_or(u64::MAX).to_be_bytes());
    right.copy_from_slice(&u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes());
    packet
}

/// The target and the number of the request that this packet replies to.
fn parse_reply(packet: &[u8]) -> Option<(usize, usize)> {
    let (target, rest) = packet.get(8..)?.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    let to_usize = |bytes: [u8; 8]| usize::try_from(u64::from_be_bytes(bytes)).ok();
    Some((to_usize(*target)?, to_usize(*number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_names_its_request() {
        assert_eq!(parse_reply(&echo_request(7, 123_456)), Some((7, 123_456)));
        assert_eq!(parse_reply(&echo_request(7, 123_456)[..23]), None);
        assert_eq!(parse_reply(&[]), None);
    }

    #[test]
    fn the_pings_of_many_nodes_are_further_apart() {
        for (nodes, interval_ms) in [(1, 50), (11, 55), (64, 2_016)] {
            let schedule = PingSchedule::UNTIL_ANSWERED.for_nodes(nodes);
            assert_eq!(schedule.interval(), Duration::from_millis(interval_ms));
        }
        assert_eq!(
            PingSchedule::STEADY.for_nodes(64).interval(),
            PingSchedule::STEADY.interval()
        );
    }

    #[test]
    fn pairs_with_and_without_a_node_are_all_pairs() {
        for (from, to) in [(0, 1), (1, 0), (1, 2)] {
            assert!(all_pairs(from, to));
            assert_ne!(pairs_with(0)(from, to), pairs_without(0)(from, to));
        }
        assert!(pairs_with(0)(1, 0));
    }
}
