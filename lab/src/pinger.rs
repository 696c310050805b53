//! Pings all ordered pairs of nodes at once and keeps what became of each ping.
//!
//! One thread a node, in the node's namespace, with one ping socket bound to the node's address (the kernel
//! hands such a socket the answers to its own pings only). The answers are matched by a number in the payload, so
//! that losses, duplicates and reordering are told apart.

use crate::{
    ip,
    ping_record::{Pair, Summary},
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
/// Room for the answers of all pairs while the thread waits for its turn, in bytes.
const BUFFER: usize = 8 << 20;

/// When each pair is pinged.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// At this interval, until the pinger is dropped.
    Every(Duration),
    /// At this interval, until the pair has answered once.
    UntilAnswered(Duration),
}

impl Pace {
    fn interval(self) -> Duration {
        match self {
            Self::Every(interval) | Self::UntilAnswered(interval) => interval,
        }
    }
}

/// Who is pinged from where: a namespace and the node's address.
pub type Place = (String, Ipv6Addr);

/// Pings until it is dropped.
#[derive(Debug)]
pub struct Pinger {
    epoch: Instant,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// By source; in it by destination, the source's own entry stays empty.
    pairs: Vec<Arc<Mutex<Vec<Pair>>>>,
}

impl Pinger {
    /// Begins to ping between all `places`. The addresses need not exist yet.
    ///
    /// # Errors
    /// Where a namespace cannot be entered or gives no ping socket.
    pub fn start(places: &[Place], pace: Pace) -> Result<Self> {
        let epoch = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let mut pinger = Self {
            epoch,
            stop,
            threads: Vec::new(),
            pairs: Vec::new(),
        };
        let (opened, openings) = channel();
        let addresses: Vec<Ipv6Addr> = places.iter().map(|(_, address)| *address).collect();
        let count = u32::try_from(places.len()).unwrap_or(u32::MAX).max(1);
        let mut delay = Duration::ZERO;
        for (source, (namespace, _)) in places.iter().enumerate() {
            let pairs = Arc::new(Mutex::new(vec![Pair::default(); places.len()]));
            let stop = Arc::clone(&pinger.stop);
            let worker = Worker {
                source,
                addresses: addresses.clone(),
                epoch,
                pace,
                stop,
                pairs: Arc::clone(&pairs),
            };
            let (namespace, opened) = (namespace.clone(), opened.clone());
            pinger.pairs.push(pairs);
            pinger.threads.push(thread::spawn(move || {
                worker.run(&namespace, delay, &opened)
            }));
            // The sources take turns, so that not all pings of an interval go out at once.
            delay += pace.interval() / count;
        }
        drop(opened);
        openings.iter().take(places.len()).collect::<Result<()>>()?;
        Ok(pinger)
    }

    /// Time since the start: the clock of all that is asked below.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// What moment of this pinger's clock that was.
    pub fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.epoch)
    }

    /// What moment of this pinger's clock that was by the wall clock.
    pub fn at_wall(&self, moment: SystemTime) -> Duration {
        let ago = SystemTime::now().duration_since(moment).unwrap_or_default();
        self.now().saturating_sub(ago)
    }

    fn source(&self, from: usize) -> Option<MutexGuard<'_, Vec<Pair>>> {
        self.pairs
            .get(from)
            .map(|pairs| pairs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks each ordered pair of those that `wanted` lets in.
    pub fn ask<T>(
        &self,
        wanted: impl Fn(usize, usize) -> bool,
        mut question: impl FnMut(&Pair) -> T,
    ) -> Vec<(usize, usize, T)> {
        let mut answers = Vec::new();
        for from in 0..self.pairs.len() {
            let Some(pairs) = self.source(from) else {
                continue;
            };
            for (to, pair) in pairs
                .iter()
                .enumerate()
                .filter(|(to, _)| *to != from && wanted(from, *to))
            {
                answers.push((from, to, question(pair)));
            }
        }
        answers
    }

    /// When the last of the wanted pairs got its first answer to a ping sent at `from` or later; `None` while
    /// one has none.
    pub fn all_answered(
        &self,
        from: Duration,
        wanted: impl Fn(usize, usize) -> bool,
    ) -> Option<Duration> {
        let firsts = self.ask(wanted, |pair| pair.first_answer(from));
        firsts
            .into_iter()
            .map(|(.., first)| first)
            .try_fold(Duration::ZERO, |last, first| Some(last.max(first?)))
    }

    /// Sums up the wanted pairs' pings sent from `from` on and before `to`.
    pub fn sum_up(
        &self,
        from: Duration,
        to: Duration,
        wanted: impl Fn(usize, usize) -> bool,
    ) -> Summary {
        let now = self.now();
        let mut total = Summary::default();
        self.ask(wanted, |pair| total.add(pair.sum_up(from, to, now)));
        total
    }
}

impl Pinger {
    /// In which seconds of this pinger's clock the wanted pairs lost pings, how many, and which pair most.
    pub fn losses(
        &self,
        from: Duration,
        to: Duration,
        wanted: impl Fn(usize, usize) -> bool,
    ) -> Vec<String> {
        let now = self.now();
        let mut seconds = BTreeMap::<u64, BTreeMap<(usize, usize), usize>>::new();
        for (source, target, losses) in self.ask(wanted, |pair| pair.losses(from, to, now)) {
            for loss in losses {
                *seconds
                    .entry(loss.as_secs())
                    .or_default()
                    .entry((source, target))
                    .or_default() += 1;
            }
        }
        let describe = |(second, pairs): (u64, BTreeMap<(usize, usize), usize>)| {
            let lost: usize = pairs.values().sum();
            let most = pairs
                .iter()
                .max_by_key(|(_, lost)| **lost)
                .map(|(pair, lost)| (*pair, *lost));
            format!(
                "second {second}: {lost} lost by {} pairs, most {most:?}",
                pairs.len()
            )
        };
        seconds.into_iter().map(describe).collect()
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so on stderr.
            drop(thread.join());
        }
    }
}

/// The thread of one source.
struct Worker {
    source: usize,
    addresses: Vec<Ipv6Addr>,
    epoch: Instant,
    pace: Pace,
    stop: Arc<AtomicBool>,
    pairs: Arc<Mutex<Vec<Pair>>>,
}

impl Worker {
    fn run(self, namespace: &str, delay: Duration, opened: &Sender<Result<()>>) {
        let socket = match self.open(namespace) {
            Ok(socket) => socket,
            Err(error) => return drop(opened.send(Err(error))),
        };
        drop(opened.send(Ok(())));
        let mut next = Instant::now() + delay;
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= next {
                self.send(&socket);
                // Where we came late, the missed turns are left out, not made up for.
                next = (next + self.pace.interval()).max(now);
            }
            let rest = next.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::from(10u8));
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            // Interrupted: the next turn polls again.
            poll(&mut fds, timeout).ok();
            self.receive(&socket);
        }
    }

    fn open(&self, namespace: &str) -> Result<UdpSocket> {
        ip::enter(namespace)?;
        let own = self
            .addresses
            .get(self.source)
            .ok_or_else(|| anyhow!("no such source"))?;
        let context = || format!("cannot open a ping socket in {namespace}");
        let socket =
            Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::ICMPV6)).with_context(context)?;
        // The node's address comes and goes with its daemon; the socket stays.
        socket.set_freebind_v6(true).with_context(context)?;
        socket
            .bind(&SocketAddr::from((*own, 0)).into())
            .with_context(context)?;
        socket.set_nonblocking(true).with_context(context)?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).with_context(context)?;
        setsockopt(&socket, sockopt::SndBufForce, &BUFFER).with_context(context)?;
        Ok(UdpSocket::from(socket))
    }

    fn pairs(&self) -> MutexGuard<'_, Vec<Pair>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, socket: &UdpSocket) {
        let mut pairs = self.pairs();
        let targets = self.addresses.iter().zip(pairs.iter_mut()).enumerate();
        for (target, (address, pair)) in targets.filter(|(target, _)| *target != self.source) {
            if matches!(self.pace, Pace::UntilAnswered(_)) && pair.is_answered() {
                continue;
            }
            let number = pair.send(self.epoch.elapsed());
            // What the kernel refuses (no route, no address yet) stays without an answer, and so is lost.
            drop(socket.send_to(
                &request(target, number),
                SocketAddrV6::new(*address, 0, 0, 0),
            ));
        }
    }

    fn receive(&self, socket: &UdpSocket) {
        let mut buffer = [0; 128];
        let mut pairs = None;
        while let Ok(length) = socket.recv(&mut buffer) {
            let now = self.epoch.elapsed();
            let Some((target, number)) = buffer.get(..length).and_then(read) else {
                continue;
            };
            let pairs = pairs.get_or_insert_with(|| self.pairs());
            if let Some(pair) = pairs.get_mut(target) {
                pair.answer(number, now);
            }
        }
    }
}

/// An echo request; the kernel fills in checksum and identifier.
fn request(target: usize, number: usize) -> [u8; 24] {
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

/// Target and number of the request that this answers.
fn read(packet: &[u8]) -> Option<(usize, usize)> {
    let (target, rest) = packet.get(8..)?.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    let whole = |bytes: [u8; 8]| usize::try_from(u64::from_be_bytes(bytes)).ok();
    Some((whole(*target)?, whole(*number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_request() {
        assert_eq!(read(&request(7, 123_456)), Some((7, 123_456)));
        assert_eq!(read(&request(7, 123_456)[..23]), None);
        assert_eq!(read(&[]), None);
    }
}
