//! Sends as much as possible, or so many bytes, from one namespace to another, and measures the rate.

use crate::netns;
use anyhow::{Context, Result, anyhow, ensure};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// Size of each write and read, in bytes.
const CHUNK_BYTES: usize = 128 << 10;
/// Size of a datagram, in bytes.
const DATAGRAM_BYTES: usize = 1_200;
/// Longest wait for a connection, and for the receiver to get more bytes.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One end of a transfer: a namespace, and an address in it.
pub type End<'a> = (&'a str, Ipv6Addr);

/// Sends for `span` from one end to the other; returns the rate at which bytes arrived, in Mbit/s.
///
/// A connection that cannot be opened, or that delivers nothing for five seconds, counts as 0 Mbit/s.
///
/// # Errors
/// Fails if a namespace cannot be entered or the receiver cannot listen.
pub fn measure_rate(from: End<'_>, to: End<'_>, span: Duration) -> Result<f64> {
    let listener = netns::run_inside(to.0, || {
        TcpListener::bind(SocketAddr::from((to.1, 0))).context("cannot listen")
    })?;
    let target = listener.local_addr().context("no local address")?;
    let stream = netns::run_inside(from.0, || {
        Ok(TcpStream::connect_timeout(&target, TIMEOUT).ok())
    })?;
    let Some(stream) = stream else {
        return Ok(0.0);
    };
    let (received, _) = listener.accept().context("cannot accept")?;
    received
        .set_read_timeout(Some(TIMEOUT))
        .context("cannot set a timeout")?;
    stream
        .set_write_timeout(Some(TIMEOUT))
        .context("cannot set a timeout")?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(received));
        send(stream, span);
        receiver
            .join()
            .map_err(|_| anyhow!("the receiver panicked"))
    })
}

/// Sends so many bytes by one TCP connection, and waits until all have arrived.
///
/// # Errors
/// Fails if the connection cannot be opened, or delivers nothing for five seconds.
pub fn send_stream(from: End<'_>, to: End<'_>, bytes: u64) -> Result<()> {
    let listener = netns::run_inside(to.0, || {
        TcpListener::bind(SocketAddr::from((to.1, 0))).context("cannot listen")
    })?;
    let target = listener.local_addr().context("no local address")?;
    let mut stream = netns::run_inside(from.0, || {
        TcpStream::connect_timeout(&target, TIMEOUT).context("cannot connect")
    })?;
    let (mut received, _) = listener.accept().context("cannot accept")?;
    received.set_read_timeout(Some(TIMEOUT))?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            io::copy(&mut io::repeat(0x5a).take(bytes), &mut stream)?;
            stream.shutdown(Shutdown::Write)
        });
        let count = io::copy(&mut received, &mut io::sink()).context("the transfer stalled")?;
        ensure!(count == bytes, "only {count} of {bytes} bytes arrived");
        let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        sent.context("cannot send")
    })
}

/// Sends so many bytes in UDP datagrams of 1,200 bytes, as fast as the sender's kernel takes them.
///
/// # Errors
/// Fails if a namespace cannot be entered, or a socket cannot be opened.
pub fn send_datagrams(from: End<'_>, to: End<'_>, bytes: u64) -> Result<()> {
    // Without a receiver each datagram would be answered by an ICMP message.
    let receiver = netns::run_inside(to.0, || {
        UdpSocket::bind(SocketAddr::from((to.1, 0))).context("cannot open a socket")
    })?;
    let target = receiver.local_addr().context("no local address")?;
    let sender = netns::run_inside(from.0, || {
        UdpSocket::bind(SocketAddr::from((from.1, 0))).context("cannot open a socket")
    })?;
    let datagram = [0x5a; DATAGRAM_BYTES];
    for _ in 0..bytes / u64::try_from(DATAGRAM_BYTES)? {
        // A full buffer of the sender is part of what is measured.
        sender.send_to(&datagram, target).ok();
    }
    Ok(())
}

fn send(mut stream: TcpStream, span: Duration) {
    let start = Instant::now();
    let chunk = vec![0x5a; CHUNK_BYTES];
    // The receiver sees how far it came.
    while start.elapsed() < span && stream.write(&chunk).is_ok() {}
    stream.shutdown(Shutdown::Write).ok();
}

/// Receives until the sender is done or the connection stalls; returns the rate in Mbit/s.
fn receive(mut stream: TcpStream) -> f64 {
    let start = Instant::now();
    let mut last = start;
    let mut bytes = 0_u64;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                bytes += u64::try_from(count).unwrap_or(u64::MAX);
                last = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => {
                last = Instant::now();
                break;
            }
        }
    }
    let seconds = last.duration_since(start).as_secs_f64();
    let bits = f64::from(u32::try_from(bytes / 1_000).unwrap_or(u32::MAX)) * 8_000.0;
    if seconds > 0.0 {
        bits / seconds / 1e6
    } else {
        0.0
    }
}
