//! Checks whether the host has a route to an address, without sending anything.
//!
//! A UDP socket can be connected to an address only if there is a route to it (ip(7), ipv6(7)).

use nix::unistd::{Uid, fchown};
use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// The discard port (RFC 863); nothing is sent to it.
pub(crate) const DISCARD: u16 = 9;

/// Returns a UDP socket whose routes to `peer` are those of packets of `uid`, connected to `peer`.
///
/// # Errors
///
/// There is no route to `peer`, or the process lacks CAP_CHOWN.
pub(crate) fn connect(peer: IpAddr, uid: u32) -> io::Result<Socket> {
    let domain = match peer {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    use_routes_of(&socket, uid)?;
    socket.connect(&SocketAddr::new(peer, DISCARD).into())?;
    Ok(socket)
}

/// Lets the packets of this socket take the routes of packets of `uid`.
///
/// # Errors
///
/// The process lacks CAP_CHOWN.
pub(crate) fn use_routes_of(socket: &Socket, uid: u32) -> io::Result<()> {
    Ok(fchown(socket, Some(Uid::from_raw(uid)), None)?)
}

/// Returns whether packets of `uid` have a route to `peer`. If that cannot be found out, there is one.
pub fn has_route(peer: IpAddr, uid: u32) -> bool {
    let is_missing = |error: io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::AddrNotAvailable
        )
    };
    !connect(peer.to_canonical(), uid).is_err_and(is_missing)
}
