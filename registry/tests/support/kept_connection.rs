//! A connection to a registry on which a test makes many calls.

use super::{Identity, Registry};
use rustls::{ClientConnection, StreamOwned};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// A connection that is opened again whenever the registry has closed it.
pub struct KeptConnection<'a> {
    registry: &'a Registry,
    identity: Option<&'a Identity>,
    stream: Option<StreamOwned<ClientConnection, TcpStream>>,
}

impl<'a> KeptConnection<'a> {
    pub fn new(registry: &'a Registry, identity: Option<&'a Identity>) -> Self {
        Self {
            registry,
            identity,
            stream: None,
        }
    }

    /// Makes a call; returns the status and the body.
    pub fn call(&mut self, method: &str, call: &str, body: &str) -> (u16, String) {
        loop {
            let fresh = self.stream.is_none();
            if let Some(answer) = self.try_call(method, call, body) {
                return answer;
            }
            assert!(!fresh, "no answer on a new connection");
            self.stream = None;
        }
    }

    fn try_call(&mut self, method: &str, call: &str, body: &str) -> Option<(u16, String)> {
        let ca = self.registry.trusted();
        let stream = self
            .stream
            .get_or_insert_with(|| self.registry.connect(self.identity, &ca));
        let length = body.len();
        let text = format!(
            "{method} {call} HTTP/1.1\r\nhost: registry\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).ok()?;
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    return Some((
                        head.split(' ').nth(1).unwrap().parse().unwrap(),
                        body.to_owned(),
                    ));
                }
            }
            let mut part = [0; 4096];
            let count = stream.read(&mut part).ok().filter(|count| *count > 0)?;
            answer.extend_from_slice(&part[..count]);
        }
    }
}
