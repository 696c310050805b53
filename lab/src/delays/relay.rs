//! The relay that delays datagrams: it forwards each after its pair's delay, in both directions.

use super::{Forwarding, RELAY_ADDRESS};
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// A sender's flow is forgotten after this time without a packet from the sender.
const FLOW_TIMEOUT: Duration = Duration::from_secs(15);
/// Packets that are delayed at the same time; the relay drops further ones.
const MAX_DELAYED_PACKETS: usize = 20_000;
/// Flows at the same time, over all pairs; the relay drops the packets of further senders.
const MAX_FLOWS: usize = 600;
/// Longest wait for a packet, in milliseconds; after it the relay may be stopped.
const MAX_POLL_MS: u16 = 100;
/// Bytes of the largest datagram that the relay forwards.
const MAX_DATAGRAM_BYTES: usize = 2_048;

/// The socket that receives what one node sends to another node's server.
struct Entrance {
    socket: UdpSocket,
    server: SocketAddr,
    delay: Duration,
}

/// The packets of one sender that arrive at one entrance: the entrance's number, and the sender's address.
type FlowId = (usize, SocketAddr);

/// The far side of a flow.
struct Flow {
    /// The socket that forwards the sender's packets to the server, and receives the replies.
    socket: UdpSocket,
    last_packet_at: Instant,
}

struct DelayedPacket {
    flow: FlowId,
    is_for_server: bool,
    bytes: Vec<u8>,
}

pub(super) struct Relay {
    entrances: Vec<Entrance>,
    flows: BTreeMap<FlowId, Flow>,
    /// By due time, and then in the order of arrival.
    delayed: BTreeMap<(Instant, u64), DelayedPacket>,
    /// The number of packets delayed so far.
    packet_count: u64,
}

impl Relay {
    pub(super) fn open(forwardings: &[Forwarding]) -> Result<Self> {
        let entrance = |forwarding: &Forwarding| {
            Ok(Entrance {
                socket: open_socket(forwarding.port)?,
                server: forwarding.server,
                delay: forwarding.delay,
            })
        };
        Ok(Self {
            entrances: forwardings.iter().map(entrance).collect::<Result<_>>()?,
            flows: BTreeMap::new(),
            delayed: BTreeMap::new(),
            packet_count: 0,
        })
    }

    /// Waits until a packet arrives or is due, for at most 100 ms, and processes it.
    pub(super) fn process_packets(&mut self) {
        let (entrances, flows) = self.wait_for_readable();
        for entrance in entrances {
            self.receive_from_senders(entrance);
        }
        for flow in flows {
            self.receive_from_server(flow);
        }
        self.send_due_packets();
        self.flows
            .retain(|_, flow| flow.last_packet_at.elapsed() < FLOW_TIMEOUT);
    }

    /// Waits until a socket is readable or a packet is due. Returns the readable entrances and flows.
    fn wait_for_readable(&self) -> (Vec<usize>, Vec<FlowId>) {
        let entrance_sockets = self.entrances.iter().map(|entrance| &entrance.socket);
        let flow_sockets = self.flows.values().map(|flow| &flow.socket);
        let mut fds: Vec<_> = entrance_sockets
            .chain(flow_sockets)
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        // If a signal interrupts poll(2), nothing is readable, and the next call polls again.
        poll(&mut fds, PollTimeout::from(self.poll_timeout_ms())).ok();
        let is_readable: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let (entrances, flows) = is_readable.split_at(self.entrances.len().min(is_readable.len()));
        let readable_entrances = (0..).zip(entrances).filter(|(_, readable)| **readable);
        let readable_flows = self.flows.keys().zip(flows);
        let readable_flows = readable_flows.filter(|(_, readable)| **readable);
        (
            readable_entrances.map(|(number, _)| number).collect(),
            readable_flows.map(|(flow, _)| *flow).collect(),
        )
    }

    /// Time until the next packet is due, rounded up, since poll(2) counts in whole milliseconds.
    fn poll_timeout_ms(&self) -> u16 {
        let Some((due, _)) = self.delayed.keys().next() else {
            return MAX_POLL_MS;
        };
        let remaining = due.saturating_duration_since(Instant::now());
        u16::try_from(remaining.as_micros().div_ceil(1_000))
            .unwrap_or(MAX_POLL_MS)
            .min(MAX_POLL_MS)
    }

    fn receive_from_senders(&mut self, number: usize) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        loop {
            let Some(entrance) = self.entrances.get(number) else {
                return;
            };
            let Ok((length, sender)) = entrance.socket.recv_from(&mut buffer) else {
                return;
            };
            let id = (number, sender);
            if !self.flows.contains_key(&id) && self.flows.len() < MAX_FLOWS {
                let Ok(socket) = open_socket(0) else { continue };
                let last_packet_at = Instant::now();
                let flow = Flow {
                    socket,
                    last_packet_at,
                };
                self.flows.insert(id, flow);
            }
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.last_packet_at = Instant::now();
                self.delay_packet(id, true, buffer.get(..length).unwrap_or_default());
            }
        }
    }

    fn receive_from_server(&mut self, id: FlowId) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        loop {
            let Some(flow) = self.flows.get(&id) else {
                return;
            };
            let Ok((length, _)) = flow.socket.recv_from(&mut buffer) else {
                return;
            };
            self.delay_packet(id, false, buffer.get(..length).unwrap_or_default());
        }
    }

    fn delay_packet(&mut self, flow: FlowId, is_for_server: bool, bytes: &[u8]) {
        let Some(entrance) = self.entrances.get(flow.0) else {
            return;
        };
        if self.delayed.len() >= MAX_DELAYED_PACKETS {
            return;
        }
        self.packet_count += 1;
        let due = Instant::now() + entrance.delay;
        self.delayed.insert(
            (due, self.packet_count),
            DelayedPacket {
                flow,
                is_for_server,
                bytes: bytes.to_owned(),
            },
        );
    }

    fn send_due_packets(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self
            .delayed
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            let packet = entry.remove();
            let (number, sender) = packet.flow;
            let entrance = self.entrances.get(number);
            let (Some(entrance), Some(flow)) = (entrance, self.flows.get(&packet.flow)) else {
                continue;
            };
            // A packet that the kernel rejects is lost, as on any network.
            drop(if packet.is_for_server {
                flow.socket.send_to(&packet.bytes, entrance.server)
            } else {
                entrance.socket.send_to(&packet.bytes, sender)
            });
        }
    }
}

fn open_socket(port: u16) -> Result<UdpSocket> {
    let context = || format!("cannot open UDP port {port} of the delay relay");
    let socket = UdpSocket::bind((RELAY_ADDRESS, port)).with_context(context)?;
    socket.set_nonblocking(true).with_context(context)?;
    Ok(socket)
}
