//! Clients that hold connections and hardly say anything: half of them within the handshake of TLS, half
//! within the head of a request.

use crate::standalone_registry::{Clients, Connection, Desk, connect};
use anyhow::Result;
use std::{
    io::Write,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Begin of a client's first record of TLS, which says that 500 bytes will follow.
const HELLO: &[u8] = &[22, 3, 1, 1, 244, 1, 0, 1, 240, 3, 3];
/// Begin of a request that never ends.
const HEAD: &[u8] = b"GET /v1/network HTTP/1.1\r\nhost: registry\r\nx-slow: ";

/// One slow client; made anew when the registry has had enough of it.
enum Slow {
    Handshake(Option<TcpStream>, usize),
    Head(Option<Box<Connection>>, usize),
}

impl Slow {
    /// Says one more byte.
    fn dribble(&mut self, clients: &Clients) {
        match self {
            Self::Handshake(line @ None, said) => (*line, *said) = (connect(None).ok(), 0),
            Self::Handshake(Some(line), said) => {
                let byte = HELLO.get(*said).copied().unwrap_or(0);
                *said += 1;
                if line.write_all(&[byte]).is_err() || *said > 400 {
                    *self = Self::Handshake(None, 0);
                }
            }
            Self::Head(line @ None, said) => {
                (*line, *said) = (clients.connect(None).ok().map(Box::new), 0)
            }
            Self::Head(Some(line), said) => {
                let byte = HEAD.get(*said).copied().unwrap_or(b'x');
                *said += 1;
                if line.dribble(byte).is_err() {
                    *self = Self::Head(None, 0);
                }
            }
        }
    }
}

/// Keeps `count` slow connections until `over`.
///
/// # Errors
/// Where the registry's namespace cannot be entered.
pub(super) fn dribble(
    desk: &Desk,
    clients: &Clients,
    count: usize,
    over: &AtomicBool,
) -> Result<()> {
    desk.enter()?;
    let kind = |n| {
        if n % 2 == 0 {
            Slow::Handshake(None, 0)
        } else {
            Slow::Head(None, 0)
        }
    };
    let mut all: Vec<Slow> = (0..count).map(kind).collect();
    while !over.load(Ordering::Relaxed) {
        all.iter_mut().for_each(|slow| slow.dribble(clients));
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}
