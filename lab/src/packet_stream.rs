//! Sends numbered UDP packets from one namespace to another at a fixed rate, and counts those that arrive.

use crate::netns;
use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Bytes of payload of each packet; with all headers it fits into a tunnel's MTU.
const PAYLOAD_BYTES: usize = 1_200;
/// Bits of a second's packets, headers not counted.
const BITS_PER_SECOND: u64 = 100_000_000;
/// Interval between two bursts.
const BURST_INTERVAL: Duration = Duration::from_millis(2);
/// Bytes of the receiver's buffer: half a second.
const BUFFER_BYTES: usize = 8 << 20;
/// Interval at which the receiver checks whether it is to end.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(100);

/// A stream of 100 Mbit/s, which ends when it is dropped.
#[derive(Debug)]
pub struct PacketStream {
    should_stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl PacketStream {
    /// Starts a stream between two addresses, each in its namespace.
    ///
    /// # Errors
    /// Fails if a namespace cannot be entered or a socket cannot be opened.
    pub fn start(from: (&str, Ipv6Addr), to: (&str, Ipv6Addr)) -> Result<Self> {
        let receiver = netns::run_inside(to.0, || open(to.1))?;
        let target = receiver.local_addr().context("no local address")?;
        let sender = netns::run_inside(from.0, || open(from.1))?;
        sender.connect(target).context("cannot connect")?;
        let mut stream = Self {
            should_stop: Arc::default(),
            sent: Arc::default(),
            received: Arc::default(),
            threads: Vec::new(),
        };
        let (stop, received) = (stream.should_stop.clone(), stream.received.clone());
        stream
            .threads
            .push(thread::spawn(move || receive(&receiver, &stop, &received)));
        let (stop, sent) = (stream.should_stop.clone(), stream.sent.clone());
        stream
            .threads
            .push(thread::spawn(move || send(&sender, &stop, &sent)));
        Ok(stream)
    }

    /// Ends the stream; returns how many packets were sent, and how many were lost.
    ///
    /// # Errors
    /// Fails if a thread panicked.
    pub fn finish(mut self) -> Result<(u64, u64)> {
        self.should_stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?;
        }
        let sent = self.sent.load(Ordering::Relaxed);
        Ok((
            sent,
            sent.saturating_sub(self.received.load(Ordering::Relaxed)),
        ))
    }
}

impl Drop for PacketStream {
    fn drop(&mut self) {
        self.should_stop.store(true, Ordering::Relaxed);
    }
}

fn open(address: Ipv6Addr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))
        .context("cannot open a socket")?;
    let force = nix::sys::socket::sockopt::RcvBufForce;
    nix::sys::socket::setsockopt(&socket, force, &BUFFER_BYTES)
        .context("cannot set the receive buffer")?;
    let address = SocketAddr::from((address, 0));
    socket
        .bind(&address.into())
        .with_context(|| format!("cannot bind to {address}"))?;
    let socket = UdpSocket::from(socket);
    socket
        .set_read_timeout(Some(RECEIVE_TIMEOUT))
        .context("cannot set a timeout")?;
    Ok(socket)
}

fn send(socket: &UdpSocket, should_stop: &AtomicBool, sent: &AtomicU64) {
    let packet = [0x5a; PAYLOAD_BYTES];
    let packet_bits = u64::try_from(PAYLOAD_BYTES * 8).unwrap_or(u64::MAX);
    let packets_per_second = BITS_PER_SECOND / packet_bits;
    let start = Instant::now();
    while !should_stop.load(Ordering::Relaxed) {
        let elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let due = elapsed_us.saturating_mul(packets_per_second) / 1_000_000;
        // After a delay of the sender itself, it does not catch up in one burst that no queue could hold.
        let most = packets_per_second / 50;
        for _ in 0..due.saturating_sub(sent.load(Ordering::Relaxed)).min(most) {
            // A packet that the kernel rejects counts as lost, too.
            socket.send(&packet).ok();
            sent.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(BURST_INTERVAL);
    }
}

/// Receives until nothing comes any more after the end.
fn receive(socket: &UdpSocket, should_stop: &AtomicBool, received: &AtomicU64) {
    let mut buffer = [0; PAYLOAD_BYTES];
    loop {
        match socket.recv(&mut buffer) {
            Ok(_) => drop(received.fetch_add(1, Ordering::Relaxed)),
            Err(_) if should_stop.load(Ordering::Relaxed) => return,
            Err(_) => {}
        }
    }
}
