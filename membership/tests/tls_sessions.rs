//! Tests that the TLS sessions which nodes keep for resumption are bounded, with handshakes in memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use membership::credentials::{MAX_SERVER_SESSIONS, MAX_SERVERS_REMEMBERED, NodeCredentials};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection,
    pki_types::ServerName,
};
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

/// The address of a node, by its number.
fn address(number: usize) -> IpAddr {
    let number = u16::try_from(number).unwrap();
    Ipv6Addr::new(0xfd12, 0x3456, 0x789a, number, 0, 0, 0, 1).into()
}

/// The credentials of a node that has these numbers' addresses.
fn credentials(numbers: impl Iterator<Item = usize>) -> NodeCredentials {
    let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "7/16");
    params.subject_alt_names = numbers.map(address).map(SanType::IpAddress).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    NodeCredentials::from_pem(
        ca.pem().as_bytes(),
        certificate.pem().as_bytes(),
        key.serialize_pem().as_bytes(),
    )
    .unwrap()
}

fn server(credentials: &NodeCredentials) -> Arc<ServerConfig> {
    Arc::new(credentials.server_config().unwrap())
}

fn client(credentials: &NodeCredentials) -> Arc<ClientConfig> {
    Arc::new(credentials.peer_client_config().unwrap())
}

/// Connects to the node with this number, and returns whether an earlier session was resumed.
fn resumes(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, number: usize) -> bool {
    let name = ServerName::IpAddress(address(number).into());
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.handshake_kind(), server.handshake_kind());
    client.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[test]
fn a_server_forgets_its_oldest_session_once_it_has_the_most_that_it_keeps() {
    let node = credentials(0..1);
    let server = server(&node);
    let clients: Vec<_> = (0..=MAX_SERVER_SESSIONS).map(|_| client(&node)).collect();
    for client in &clients {
        assert!(!resumes(client, &server, 0));
    }
    assert!(!resumes(clients.first().unwrap(), &server, 0));
    assert!(resumes(clients.last().unwrap(), &server, 0));
}

#[test]
fn the_sessions_that_a_server_keeps_do_not_grow_with_the_connections_of_one_caller() {
    let node = credentials(0..1);
    let (server, early, frequent) = (server(&node), client(&node), client(&node));
    assert!(!resumes(&early, &server, 0));
    assert!(!resumes(&frequent, &server, 0));
    for _ in 0..4 * MAX_SERVER_SESSIONS {
        assert!(resumes(&frequent, &server, 0));
    }
    assert!(resumes(&early, &server, 0));
}

#[test]
fn a_client_forgets_the_first_server_once_it_has_sessions_of_the_most_that_it_remembers() {
    let node = credentials(0..MAX_SERVERS_REMEMBERED + 1);
    let (server, client) = (server(&node), client(&node));
    for number in 0..=MAX_SERVERS_REMEMBERED {
        assert!(!resumes(&client, &server, number));
    }
    assert!(resumes(&client, &server, MAX_SERVERS_REMEMBERED));
    assert!(!resumes(&client, &server, 0));
}
