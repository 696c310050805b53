//! A DNS server for one node of a lab, which knows one name and answers well or badly.

use crate::netns;
use anyhow::{Context, Result};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// The address at which the server answers, in the namespace of its node.
const ADDRESS: &str = "127.0.0.1:53";
/// Longest time for which the server waits for a query before it looks for connections and late answers.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Longest wait for one read or write of a TCP connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a message's header (RFC 1035, section 4.1.1).
const HEADER_BYTES: usize = 12;
/// Most bytes of an answer over UDP (RFC 1035, section 4.2.1).
const MAX_UDP_BYTES: usize = 512;
/// Flags of an answer of a resolver: it is a response, and recursion was desired and is available.
const RESPONSE: u16 = 0x8180;
/// The flag of an answer that is truncated.
const TRUNCATED: u16 = 0x0200;
/// The response code of a name that does not exist.
const NO_SUCH_NAME: u16 = 3;
/// The type of a record with an IPv4 address.
const TYPE_A: u16 = 1;

/// How the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsAnswer {
    /// Every name has these addresses.
    Addresses(Vec<Ipv4Addr>),
    /// No name exists.
    NoSuchName,
    /// Every name has this address, and each answer is delayed so long.
    Late(Ipv4Addr, Duration),
}

/// A server over UDP and TCP. Dropping it closes its sockets.
#[derive(Debug)]
pub struct DnsServer {
    queries: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// Lets the processes of a namespace that start later ask the server of this namespace.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn use_in(namespace: &str) -> Result<()> {
        netns::write_etc(namespace, "resolv.conf", "nameserver 127.0.0.1\n")
    }

    /// Starts a server in a namespace.
    ///
    /// # Errors
    /// Fails if the namespace cannot be entered or another server runs there.
    pub fn start(namespace: &str, answer: DnsAnswer) -> Result<Self> {
        let (udp, tcp) = netns::run_inside(namespace, || {
            Ok((UdpSocket::bind(ADDRESS)?, TcpListener::bind(ADDRESS)?))
        })
        .with_context(|| format!("no DNS server can be started in {namespace}"))?;
        udp.set_read_timeout(Some(POLL_INTERVAL))?;
        tcp.set_nonblocking(true)?;
        let queries = Arc::<AtomicU64>::default();
        let stop = Arc::<AtomicBool>::default();
        let (counted, stopped) = (Arc::clone(&queries), Arc::clone(&stop));
        let thread = thread::spawn(move || serve(&udp, &tcp, &answer, &counted, &stopped));
        Ok(Self {
            queries,
            stop,
            thread: Some(thread),
        })
    }

    /// The number of queries that have arrived.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(
    udp: &UdpSocket,
    tcp: &TcpListener,
    answer: &DnsAnswer,
    queries: &AtomicU64,
    stop: &AtomicBool,
) {
    let mut late: Vec<(Instant, SocketAddr, Vec<u8>)> = Vec::new();
    let mut buffer = [0; MAX_UDP_BYTES];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, client)) = udp.recv_from(&mut buffer)
            && let Some(response) = buffer
                .get(..length)
                .and_then(|query| response(query, answer, MAX_UDP_BYTES))
        {
            queries.fetch_add(1, Ordering::Relaxed);
            let delay = match answer {
                DnsAnswer::Late(_, delay) => *delay,
                DnsAnswer::Addresses(_) | DnsAnswer::NoSuchName => Duration::ZERO,
            };
            late.push((Instant::now() + delay, client, response));
        }
        late.retain(|(due, client, response)| {
            let is_due = *due <= Instant::now();
            if is_due {
                // A client that has gone does not get the answer.
                drop(udp.send_to(response, client));
            }
            !is_due
        });
        if let Ok((stream, _)) = tcp.accept() {
            // So does one that closes its connection.
            drop(serve_connection(stream, answer));
        }
    }
}

/// Answers one query over TCP, which has its length in front.
fn serve_connection(mut stream: TcpStream, answer: &DnsAnswer) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TCP_TIMEOUT))?;
    stream.set_write_timeout(Some(TCP_TIMEOUT))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query)?;
    let response = response(&query, answer, usize::from(u16::MAX)).context("no query")?;
    let length = u16::try_from(response.len())?.to_be_bytes();
    Ok(stream.write_all(&[&length, response.as_slice()].concat())?)
}

/// The response to a query for one name; `None` if the bytes are no such query. One that is longer than `max_bytes` is truncated.
fn response(query: &[u8], answer: &DnsAnswer, max_bytes: usize) -> Option<Vec<u8>> {
    let mut end = HEADER_BYTES;
    loop {
        let length = usize::from(*query.get(end)?);
        end += length + 1;
        if length == 0 {
            break;
        }
    }
    let question = query.get(HEADER_BYTES..end + 4)?;
    let kind = u16::from_be_bytes(query.get(end..end + 2)?.try_into().ok()?);
    let (code, addresses) = match answer {
        DnsAnswer::Addresses(addresses) => (0, addresses.as_slice()),
        DnsAnswer::NoSuchName => (NO_SUCH_NAME, &[][..]),
        DnsAnswer::Late(address, _) => (0, std::slice::from_ref(address)),
    };
    let addresses = if kind == TYPE_A { addresses } else { &[] };
    let message = |flags: u16, addresses: &[Ipv4Addr]| {
        let count = u16::try_from(addresses.len()).ok()?;
        let mut message = query.get(..2)?.to_vec();
        for number in [RESPONSE | flags | code, 1, count, 0, 0] {
            message.extend(number.to_be_bytes());
        }
        message.extend(question);
        for address in addresses {
            // The name of the question, an IPv4 address of the internet, for 0 s, 4 bytes.
            message.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            message.extend(address.octets());
        }
        Some(message)
    };
    let whole = message(0, addresses)?;
    if whole.len() <= max_bytes {
        return Some(whole);
    }
    message(TRUNCATED, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for an address of `a.b`.
    const QUERY: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x01b\x00\x00\x01\x00\x01";

    #[test]
    fn an_answer_repeats_the_question_and_is_truncated_if_it_is_too_long() {
        let some = DnsAnswer::Addresses(vec![Ipv4Addr::new(45, 67, 0, 2)]);
        let expected = [
            &b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x01b\x00\x00\x01\x00\x01"[..],
            b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x2d\x43\x00\x02",
        ];
        assert_eq!(response(QUERY, &some, 512).unwrap(), expected.concat());
        let many = DnsAnswer::Addresses(vec![Ipv4Addr::LOCALHOST; 1_000]);
        let truncated = response(QUERY, &many, 512).unwrap();
        assert_eq!(
            (truncated.len(), truncated.get(2..4)),
            (QUERY.len(), Some(&[0x83, 0x80][..]))
        );
        assert_eq!(
            response(QUERY, &many, 65_535).unwrap().len(),
            QUERY.len() + 16_000
        );
        let none = response(QUERY, &DnsAnswer::NoSuchName, 512).unwrap();
        assert_eq!(none.get(3), Some(&0x83));
        assert_eq!(response(QUERY.get(..16).unwrap(), &some, 512), None);
    }
}
