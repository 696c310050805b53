//! Clients that hold connections and send almost nothing: half of them within the TLS handshake, half within the head of
//! a request.

use crate::registry_connection::{RegistryConnection, RegistryConnector, connect_tcp};
use std::{
    io::Write,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// The start of a client's first TLS record, which announces 500 bytes.
const CLIENT_HELLO: &[u8] = &[22, 3, 1, 1, 244, 1, 0, 1, 240, 3, 3];
/// Bytes of the handshake after which the client starts over, before the announced record is complete.
const MAX_HANDSHAKE_BYTES: usize = 400;
/// The start of a request that never ends.
const REQUEST_HEAD: &[u8] = b"GET /v1/network HTTP/1.1\r\nhost: registry\r\nx-slow: ";
/// Interval between two bytes of a connection.
const BYTE_INTERVAL: Duration = Duration::from_millis(500);

/// One slow connection, with the number of bytes sent so far.
struct Slow<T> {
    connection: Option<T>,
    sent_bytes: usize,
}

impl<T> Slow<T> {
    fn new() -> Self {
        Self {
            connection: None,
            sent_bytes: 0,
        }
    }

    /// Sends one more byte, or opens a connection if there is none. Drops the connection if `send` returns `false`.
    fn advance(
        &mut self,
        connect: impl FnOnce() -> Option<T>,
        send: impl FnOnce(&mut T, usize) -> bool,
    ) {
        let Some(connection) = self.connection.as_mut() else {
            self.connection = connect();
            self.sent_bytes = 0;
            return;
        };
        let is_open = send(connection, self.sent_bytes);
        self.sent_bytes += 1;
        if !is_open {
            self.connection = None;
        }
    }
}

fn send_handshake_byte(stream: &mut TcpStream, position: usize) -> bool {
    let byte = CLIENT_HELLO.get(position).copied().unwrap_or(0);
    stream.write_all(&[byte]).is_ok() && position < MAX_HANDSHAKE_BYTES
}

fn send_head_byte(connection: &mut RegistryConnection, position: usize) -> bool {
    let byte = REQUEST_HEAD.get(position).copied().unwrap_or(b'x');
    connection.send_byte(byte).is_ok()
}

/// Keeps `count` slow connections open until `should_stop`.
pub(super) fn keep_slow_connections(
    connector: &RegistryConnector,
    count: usize,
    should_stop: &AtomicBool,
) {
    let heads = count / 2;
    let mut in_handshake: Vec<Slow<TcpStream>> = Vec::new();
    in_handshake.resize_with(count - heads, Slow::new);
    let mut in_head: Vec<Slow<RegistryConnection>> = Vec::new();
    in_head.resize_with(heads, Slow::new);
    while !should_stop.load(Ordering::Relaxed) {
        for slow in &mut in_handshake {
            slow.advance(|| connect_tcp(None).ok(), send_handshake_byte);
        }
        for slow in &mut in_head {
            slow.advance(|| connector.connect(None).ok(), send_head_byte);
        }
        thread::sleep(BYTE_INTERVAL);
    }
}
