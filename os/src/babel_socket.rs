//! Sends the Babel packets that the daemon itself sends, in addition to those of babeld.
//!
//! babeld requests routes from a new neighbour, and when it lost a route, but only once or a few times.
//! If a request or an answer gets lost, the route is missing until the next periodic update. Also, babeld
//! cannot announce that a link still works but that another one should be preferred.
//! `docs/decisions/0003-own-babel-packets.md` explains why the daemon may send such packets.

use crate::{echo_socket::NETWORK_CONTROL, kernel::link_index};
use ipnet::{IpNet, Ipv6Net};
use policies::names::{Prefix, Slot};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    rc::Rc,
};
use wire::{
    babel_packet::{self, Urgency},
    drain_notice::DRAIN_NOTICE,
    overlay::{self, Network},
    suspicion,
};

/// A UDP socket for packets to neighbours. The source of a packet is the link-local address of the slot by which it leaves.
#[derive(Clone)]
pub struct BabelSocket {
    socket: Rc<UdpSocket>,
    network: Network,
    router_id: [u8; 8],
}

impl BabelSocket {
    /// Opens the socket for node `me`.
    ///
    /// # Errors
    ///
    /// Too many files are open.
    pub fn open(network: Network, me: Prefix) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        socket.set_nonblocking(true)?;
        socket.set_tclass_v6(NETWORK_CONTROL)?;
        // This node's own babeld would otherwise receive the packets, and take this node for a neighbour.
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_hops_v6(1)?;
        Ok(Self {
            socket: Rc::new(socket.into()),
            network,
            router_id: overlay::router_id(me),
        })
    }

    /// Returns the end of a packet of requests to this neighbour.
    fn urgency(&self, peer: Prefix) -> Urgency {
        Urgency {
            neighbour: self.network.node_range(peer),
            router_id: self.router_id,
        }
    }

    /// Sends a hello to the neighbour on a slot, and requests all its routes.
    ///
    /// babeld gives its hellos sequence numbers that the daemon does not know. A random one begins a new history of hellos at the
    /// neighbour, and so does babeld's next hello; the link costs four times its usual cost until then.
    pub fn greet_and_request_all(&self, slot: Slot, peer: Prefix) {
        self.send(
            slot,
            babel_packet::GROUP,
            babel_packet::PORT,
            &babel_packet::greet_and_request_all(fastrand::u16(..), self.urgency(peer)),
        );
    }

    /// Requests the neighbour's routes to these destinations.
    pub fn request_some(&self, slot: Slot, peer: Prefix, destinations: &[IpNet]) {
        for part in destinations.chunks(babel_packet::MAX_REQUESTS) {
            self.send(
                slot,
                babel_packet::GROUP,
                babel_packet::PORT,
                &babel_packet::request_some(part, self.urgency(peer)),
            );
        }
    }

    /// Requests the neighbour's default route for packets from the network's range.
    pub fn request_default(&self, slot: Slot, network: Ipv6Net) {
        self.send(
            slot,
            babel_packet::GROUP,
            babel_packet::PORT,
            &babel_packet::request_default(network),
        );
    }

    /// Retracts, at the neighbour, this node's default route for packets from the network's range.
    pub fn retract_default(&self, slot: Slot, network: Ipv6Net) {
        self.send(
            slot,
            babel_packet::GROUP,
            babel_packet::PORT,
            &babel_packet::retract_default(network),
        );
    }

    /// Announces to the babeld at the other end of a slot that sending to this node has this cost.
    pub fn raise_cost(&self, slot: Slot, peer: Prefix, cost: u16) {
        self.send(
            slot,
            overlay::link_local(peer),
            babel_packet::PORT,
            &babel_packet::ihu(cost),
        );
    }

    /// Announces to the daemon at the other end that this node drains the tunnel, so that the other end announces a
    /// higher cost to this node's babeld.
    pub fn notify_drain(&self, slot: Slot, peer: Prefix) {
        self.send(
            slot,
            overlay::link_local(peer),
            suspicion::PORT,
            &DRAIN_NOTICE,
        );
    }

    /// Makes this node's babeld send at once what it has buffered for the neighbour on a slot, by a request for an
    /// acknowledgment that seems to come from there. babeld otherwise waits for 0.14 to 0.39 hello intervals.
    ///
    /// # Errors
    ///
    /// The link does not exist, or is down.
    pub fn flush_requests(slot: Slot, me: Prefix, peer: Prefix) -> io::Result<()> {
        send_as_neighbour(slot, me, peer, &babel_packet::ack_request())
    }

    /// Makes this node's babeld send all updates that it has buffered for a slot within 0.15 s, by a request for its own range that seems to
    /// come from the neighbour there. babeld otherwise waits for about a hello interval.
    ///
    /// # Errors
    ///
    /// The link does not exist, or is down.
    pub fn flush_updates(slot: Slot, network: Network, me: Prefix, peer: Prefix) -> io::Result<()> {
        let urgency = Urgency {
            neighbour: network.node_range(me),
            router_id: overlay::router_id(peer),
        };
        send_as_neighbour(slot, me, peer, &babel_packet::request_urgently(urgency))
    }

    /// Sends a packet. A failure is logged at debug level only, since a link may well be down or silenced.
    fn send(&self, slot: Slot, to: Ipv6Addr, port: u16, packet: &[u8]) {
        let Some(link) = link_index(slot) else { return };
        let to = SocketAddr::V6(SocketAddrV6::new(to, port, 0, link));
        if let Err(error) = self.socket.send_to(packet, to) {
            tracing::debug!(%slot, %error, "packet to a neighbour not sent");
        }
    }
}

/// Sends a packet to this node's babeld whose source is the address of the neighbour on a slot.
fn send_as_neighbour(slot: Slot, me: Prefix, peer: Prefix, packet: &[u8]) -> io::Result<()> {
    let link = link_index(slot).ok_or(io::ErrorKind::NotFound)?;
    let address = |of, port| SocketAddrV6::new(overlay::link_local(of), port, 0, link);
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // The neighbour's address is none of this host's.
    socket.set_freebind_v6(true)?;
    socket.bind(&address(peer, 0).into())?;
    let to = address(me, babel_packet::PORT).into();
    socket.send_to(packet, &to).map(drop)
}
