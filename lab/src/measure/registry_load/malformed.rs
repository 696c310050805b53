//! Malformed requests: calls with bodies, queries and methods of every wrong kind, and certificate signing requests with
//! changed bytes.

use super::super::RequestBudget;
use crate::{
    registry_connection::{RegistryConnection, RegistryConnector, Response, new_key_and_csr},
    standalone_registry::StandaloneRegistry,
};
use anyhow::Result;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    net::Ipv6Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};
use wire::registry::{Claimed, Problem};

/// Connections at the same time when requests are sent as fast as possible.
const CONNECTIONS: usize = 4;
/// Interval between two requests of the steady client.
const STEADY_INTERVAL: Duration = Duration::from_millis(10);
/// The steady client's address. It is in another network than the valid clients, which its failures must not slow
/// down.
const STEADY_CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 1);

/// Methods and paths, some of which exist.
const CALLS: [(&str, &str); 8] = [
    ("POST", "/v1/claims"),
    ("POST", "/v1/renewals"),
    ("PUT", "/v1/nodes/self"),
    ("GET", "/v1/bootstrap?count=-1"),
    ("GET", "/v1/network?after=x"),
    ("GET", "/v1/revocations?wait=99999999999999999999"),
    ("DELETE", "/v1/claims"),
    ("GET", "/v1/nothing/../../etc/passwd"),
];

/// Bodies that are no valid document of any call.
const BODIES: [&[u8]; 12] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"{\"version\":1}",
    b"{\"version\":\"1\",\"token\":[],\"csr\":{}}",
    b"{\"version\":99999999999999999999,\"token\":\"\",\"csr\":\"\"}",
    b"{\"version\":1,\"token\":\"x\",\"token\":\"y\",\"csr\":\"\"}",
    b"\xff\xfe{\"version\":1}",
    b"{\"version\":1,\"token\":\"\\u0000\",\"csr\":\"-----BEGIN CERTIFICATE REQUEST-----\"}",
    b"{\"version\":1,\"csr\":\"-----BEGIN CERTIFICATE REQUEST-----\\nAAAA\\n-----END CERTIFICATE REQUEST-----\\n\",\"token\":\"\"}",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// Responses that the registry should not have given.
#[derive(Default)]
pub(super) struct WrongResponses {
    pub(super) signed_wrongly: AtomicU64,
    pub(super) wrong_status: AtomicU64,
    pub(super) without_problem: AtomicU64,
}

/// A valid signing request with up to four characters changed.
fn change_characters(csr: &str) -> String {
    let mut bytes = csr.as_bytes().to_vec();
    for _ in 0..fastrand::usize(1..=4) {
        let position = fastrand::usize(..bytes.len());
        if let Some(byte) = bytes.get_mut(position) {
            *byte = *fastrand::choice(b"ABCDEFGHabcdefgh0123+/=- ").unwrap_or(&b'A');
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends one malformed request of a random kind.
fn send_one(connection: &mut RegistryConnection, token: &str, csr: &str) -> Result<Response> {
    match fastrand::u8(..10) {
        0..4 => connection.claim(token, &change_characters(csr)),
        4 => connection.claim(
            &"x".repeat(fastrand::usize(..200)),
            &"y".repeat(fastrand::usize(..12_000)),
        ),
        5 => {
            let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
                .take(fastrand::usize(..9_000))
                .collect();
            connection.request("POST", "/v1/claims", &noise)
        }
        _ => {
            let (method, path) = fastrand::choice(CALLS).unwrap_or_default();
            let body = fastrand::choice(BODIES).unwrap_or_default();
            connection.request(method, path, body)
        }
    }
}

/// Whether the response contains a certificate for this very key.
fn is_for_key(body: &str, key: &KeyPair) -> bool {
    let claimed: Option<Claimed> = serde_json::from_str(body).ok();
    let certificate = claimed
        .and_then(|claimed| CertificateDer::from_pem_slice(claimed.certificate.as_bytes()).ok());
    let public_key = key.der_bytes();
    certificate.is_some_and(|certificate| {
        certificate
            .windows(public_key.len())
            .any(|bytes| bytes == public_key)
    })
}

fn judge(wrong: &WrongResponses, (status, body): &Response, key: &KeyPair) {
    let counter = match status {
        // A changed character may leave the meaning of the request unchanged.
        200 if is_for_key(body, key) => return,
        200 => &wrong.signed_wrongly,
        400..=499 => {
            let problem: Option<Problem> = serde_json::from_str(body).ok();
            if problem.is_some_and(|problem| !problem.title.is_empty() && problem.status == *status)
            {
                return;
            }
            &wrong.without_problem
        }
        _ => &wrong.wrong_status,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Sends `count` malformed requests as fast as possible.
///
/// # Errors
/// Fails if the registry can no longer be reached.
pub(super) fn send_all(
    registry: &StandaloneRegistry,
    connector: &RegistryConnector,
    token: &str,
    count: u64,
) -> Result<WrongResponses> {
    let wrong = WrongResponses::default();
    let budget = RequestBudget::new(count);
    registry.run_clients(CONNECTIONS, |_| {
        let (key, csr) = new_key_and_csr()?;
        let mut connection = connector.connect(None)?;
        while budget.take_one() {
            match send_one(&mut connection, token, &csr) {
                Ok(response) => judge(&wrong, &response, &key),
                // The registry may close the connection of a client that sends too much.
                Err(_) => connection = connector.connect(None)?,
            }
        }
        Ok(())
    })?;
    Ok(wrong)
}

/// Sends about 100 malformed requests a second until `should_stop`.
///
/// # Errors
/// Fails if no signing request can be created.
pub(super) fn send_steadily(connector: &RegistryConnector, should_stop: &AtomicBool) -> Result<()> {
    let csr = new_key_and_csr()?.1;
    let mut connection = None;
    while !should_stop.load(Ordering::Relaxed) {
        match connection.as_mut() {
            None => connection = connector.connect(Some(STEADY_CLIENT)).ok(),
            Some(open) => {
                if send_one(open, "x", &csr).is_err() {
                    connection = None;
                }
            }
        }
        thread::sleep(STEADY_INTERVAL);
    }
    Ok(())
}
