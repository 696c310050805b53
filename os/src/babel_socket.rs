//! Sends the few Babel packets of our own, beside babeld's; receives none.
//!
//! babeld asks a new neighbour for its routes, and asks when a route is lost, once or a few times
//! each. A lost request or a lost answer then costs an update interval. babeld also has no message
//! for "prefer another route, this one still works". The reasons why the daemon may send packets
//! beside babeld are in `docs/decisions/0003-own-babel-packets.md`.

use crate::{echo_socket::NETWORK_CONTROL, kernel::link_index};
use ipnet::{IpNet, Ipv6Net};
use policies::names::{Prefix, Slot};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    rc::Rc,
};
use wire::{babel_packet, drain_notice::DRAIN_NOTICE, overlay, suspicion};

/// The socket. Its packets come from the link-local address of the slot that they leave by.
#[derive(Clone)]
pub struct BabelSocket(Rc<UdpSocket>);

impl BabelSocket {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// File descriptors are missing.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        socket.set_nonblocking(true)?;
        socket.set_tclass_v6(NETWORK_CONTROL)?;
        // Our own babeld would take ourselves for a neighbour.
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_hops_v6(1)?;
        Ok(Self(Rc::new(socket.into())))
    }

    /// Asks the neighbour at the other end of a slot for all its routes.
    pub fn request_all(&self, slot: Slot) {
        self.send(
            slot,
            babel_packet::GROUP,
            babel_packet::PORT,
            &babel_packet::request_all(),
        );
    }

    /// Requests the neighbour's routes to some destinations.
    pub fn request_some(&self, slot: Slot, destinations: &[IpNet]) {
        for part in destinations.chunks(babel_packet::MAX_REQUESTS) {
            self.send(
                slot,
                babel_packet::GROUP,
                babel_packet::PORT,
                &babel_packet::request_some(part),
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

    /// Retracts our default route at the neighbour.
    pub fn retract_default(&self, slot: Slot, network: Ipv6Net) {
        self.send(
            slot,
            babel_packet::GROUP,
            babel_packet::PORT,
            &babel_packet::retract_default(network),
        );
    }

    /// Announces to the babeld at the other end of a slot that sending to us has this cost.
    pub fn raise_cost(&self, slot: Slot, peer: Prefix, cost: u16) {
        self.send(
            slot,
            overlay::link_local(peer),
            babel_packet::PORT,
            &babel_packet::ihu(cost),
        );
    }

    /// Announces to the daemon at the other end that we drain, so that it raises the cost for our
    /// babeld.
    pub fn notify_drain(&self, slot: Slot, peer: Prefix) {
        self.send(
            slot,
            overlay::link_local(peer),
            suspicion::PORT,
            &DRAIN_NOTICE,
        );
    }

    /// What cannot be sent (the link is down, or silent) is not worth a word.
    fn send(&self, slot: Slot, to: Ipv6Addr, port: u16, packet: &[u8]) {
        let Some(link) = link_index(slot) else { return };
        let to = SocketAddr::V6(SocketAddrV6::new(to, port, 0, link));
        if let Err(error) = self.0.send_to(packet, to) {
            tracing::debug!(%slot, %error, "packet to a neighbour not sent");
        }
    }
}
