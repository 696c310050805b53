//! Reserves the further ports of `listen`, packets to which the kernel redirects to a server.
//!
//! A redirect takes packets away from whoever listens on the port, so the daemon holds a socket of its own on it. A port that
//! another program has is left to that program.

use config::Settings;
use nix::libc;
use os::kernel::Redirect;
use policies::names::Transport;
use socket2::{Domain, Socket, Type};
use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// The further ports of the servers.
#[derive(Clone, Debug, Default)]
pub struct FurtherPorts {
    /// The ports that lead to a server.
    pub redirects: Vec<Redirect>,
    /// What keeps other configured ports from that, in words.
    pub unused: Vec<String>,
    /// The sockets that hold the ports.
    _sockets: Arc<[Socket]>,
}

impl FurtherPorts {
    /// Reserves the ports that the configuration lists after the first one of each transport.
    pub fn reserve(settings: &Settings) -> Self {
        let mut ports = Self::default();
        let mut sockets = Vec::new();
        for (transport, listed) in [
            (Transport::Udp, &settings.listen_udp),
            (Transport::Tcp, &settings.listen_tcp),
        ] {
            let Some((to, further)) = listed.split_first() else {
                continue;
            };
            for from in further {
                match reserve(transport, *from) {
                    Ok(reserved) => {
                        sockets.extend(reserved);
                        ports.redirects.push(Redirect {
                            transport,
                            from: *from,
                            to: *to,
                        });
                    }
                    Err(error) => ports.reject((transport, *from), error),
                }
            }
        }
        ports._sockets = sockets.into();
        ports
    }

    /// Gives all ports back, since the kernel does not redirect packets.
    pub fn give_back(&mut self, error: impl fmt::Display) {
        for redirect in std::mem::take(&mut self.redirects) {
            self.reject((redirect.transport, redirect.from), &error);
        }
        self._sockets = Arc::default();
    }

    fn reject(&mut self, (transport, port): (Transport, u16), error: impl fmt::Display) {
        tracing::warn!(%transport, port, %error, "listen: a further port is not used; the others are");
        self.unused
            .push(format!("{transport} port {port}: {error}"));
    }
}

/// Binds a socket of each address family that the host has.
fn reserve(transport: Transport, port: u16) -> io::Result<Vec<Socket>> {
    let ipv4 = bind(transport, (Ipv4Addr::UNSPECIFIED, port).into())?;
    match bind(transport, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Ok(ipv6) => Ok(vec![ipv4, ipv6]),
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(vec![ipv4]),
        Err(error) => Err(error),
    }
}

fn bind(transport: Transport, address: SocketAddr) -> io::Result<Socket> {
    let kind = match transport {
        Transport::Udp => Type::DGRAM,
        Transport::Tcp => Type::STREAM,
    };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if transport == Transport::Udp {
        socket.bind(&address.into())?;
        return Ok(socket);
    }
    // Connections of an earlier program that have just ended do not matter.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_reserved_unless_another_program_has_it() {
        for transport in [Transport::Udp, Transport::Tcp] {
            let any = (Ipv4Addr::LOCALHOST, 0).into();
            let other = bind(transport, any).unwrap();
            let port = other.local_addr().unwrap().as_socket().unwrap().port();
            let error = reserve(transport, port).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{transport}");
            drop(other);
            let reserved = reserve(transport, port).unwrap();
            assert!(reserve(transport, port).is_err(), "{transport}");
            drop(reserved);
            reserve(transport, port).unwrap();
        }
    }
}
