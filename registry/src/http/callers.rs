//! Attaches the caller to each connection, before the first request on it.

use super::{
    admin::Operator, api::Caller, connection_limit::ConnectionLimit, trusted_proxies::Clients,
};
use crate::service::{ShownCertificate, limits::SourceNetwork};
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{
    dev::Extensions,
    rt::net::{TcpStream, UnixStream},
};
use nix::sys::socket::{Shutdown, shutdown};
use std::{any::Any, os::fd::AsRawFd};

/// Reads the serial number and the key of a certificate (DER).
fn read_shown(certificate: &[u8]) -> Option<ShownCertificate> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let key = crate::pki::request::sha256(certificate.public_key().raw);
    Some(ShownCertificate {
        serial: wire::signed::hex(certificate.raw_serial()),
        key,
    })
}

/// Where connections come from, and where their number is limited.
#[derive(Clone)]
pub(super) enum Callers {
    /// They come from the clients themselves, and are limited here.
    Direct(ConnectionLimit),
    /// They come from the relay for proxies, which limits them.
    Relayed(Clients),
}

/// Attaches the caller to a connection. If its network has too many connections, or if it bypasses the relay for proxies, the
/// connection is closed, and no caller is attached.
pub(super) fn attach_caller(callers: &Callers, connection: &dyn Any, data: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<TlsStream<TcpStream>>() {
        let (tcp, session) = stream.get_ref();
        let Ok(peer) = tcp.peer_addr() else {
            return;
        };
        let address = match callers {
            Callers::Direct(limit) => {
                let permit = limit.take(SourceNetwork::from(peer.ip()));
                permit.map(|permit| {
                    data.insert(permit);
                    peer.ip()
                })
            }
            Callers::Relayed(clients) => clients.client_of(peer),
        };
        let Some(address) = address else {
            tracing::debug!(from = %peer, "connection closed: its network has too many, or it bypasses the relay");
            // This fails only if the caller has closed the connection itself.
            let _ = shutdown(tcp.as_raw_fd(), Shutdown::Both);
            return;
        };
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let shown = certificate.and_then(|certificate| read_shown(certificate));
        data.insert(Caller { address, shown });
    }
}

/// Marks a connection of the Unix socket whose peer is root or the registry's user.
pub(super) fn attach_operator(connection: &dyn Any, data: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<UnixStream>() {
        let own = nix::unistd::geteuid().as_raw();
        match stream.peer_cred() {
            Ok(other) if other.uid() == 0 || other.uid() == own => {
                data.insert(Operator { uid: other.uid() });
            }
            Ok(other) => {
                tracing::warn!(
                    uid = other.uid(),
                    "the operator's socket is for root and the registry's user: calls of another user are rejected"
                )
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the user who connected to the operator's socket is unknown; calls are rejected"
                )
            }
        }
    }
}
