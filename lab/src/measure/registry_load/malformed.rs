//! Requests that make no sense: each call with bodies, queries and methods of every wrong kind, and certificate
//! requests with bytes changed.

use crate::standalone_registry::{Clients, Connection, Desk, request};
use anyhow::{Context, Result};
use rcgen::PublicKeyData;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};
use wire::registry::{Claimed, Problem};

/// Connections at once.
const LINES: u64 = 4;

/// Where the steady attacker comes from.
const ELSEWHERE: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 1);

/// Which calls there are.
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

/// Bodies that are no document of any call.
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

/// What came of them.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) signed_wrongly: AtomicU64,
    pub(super) wrong_status: AtomicU64,
    pub(super) without_problem: AtomicU64,
}

/// A good request with up to four characters changed.
fn changed(csr: &str) -> String {
    let mut bytes = csr.as_bytes().to_vec();
    for _ in 0..fastrand::usize(1..=4) {
        let at = fastrand::usize(..bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte = *fastrand::choice(b"ABCDEFGHabcdefgh0123+/=- ").unwrap_or(&b'A');
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One odd request on a connection; what it was answered.
fn one(line: &mut Connection, token: &str, csr: &str) -> Result<(u16, String)> {
    match fastrand::u8(..10) {
        0..4 => line.claim(token, &changed(csr)),
        4 => line.claim(
            &"x".repeat(fastrand::usize(..200)),
            &"y".repeat(fastrand::usize(..12_000)),
        ),
        5 => {
            let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
                .take(fastrand::usize(..9_000))
                .collect();
            line.call("POST", "/v1/claims", &noise)
        }
        _ => {
            let (method, call) = CALLS
                .get(fastrand::usize(..CALLS.len()))
                .copied()
                .unwrap_or_default();
            line.call(
                method,
                call,
                BODIES
                    .get(fastrand::usize(..BODIES.len()))
                    .copied()
                    .unwrap_or_default(),
            )
        }
    }
}

/// Whether a certificate is for this very key.
fn is_for(body: &str, key: &rcgen::KeyPair) -> bool {
    let claimed: Option<Claimed> = serde_json::from_str(body).ok();
    let der = claimed
        .and_then(|claimed| CertificateDer::from_pem_slice(claimed.certificate.as_bytes()).ok());
    let point = key.der_bytes();
    der.is_some_and(|der| der.windows(point.len()).any(|part| part == point))
}

fn judge(tally: &Tally, (status, body): &(u16, String), key: &rcgen::KeyPair) {
    match status {
        // A changed character may leave the request what it was.
        200 if is_for(body, key) => {}
        200 => {
            tally.signed_wrongly.fetch_add(1, Ordering::Relaxed);
        }
        400..=499 => {
            let problem: Option<Problem> = serde_json::from_str(body).ok();
            if problem.is_none_or(|problem| problem.title.is_empty() || problem.status != *status) {
                tally.without_problem.fetch_add(1, Ordering::Relaxed);
            }
        }
        _ => {
            tally.wrong_status.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends `count` odd requests as fast as it can.
///
/// # Errors
/// Where the registry cannot be reached any more.
pub(super) fn all(desk: &Desk, clients: &Clients, token: &str, count: u64) -> Result<Tally> {
    let (tally, left) = (Tally::default(), AtomicU64::new(count));
    thread::scope(|scope| {
        let lines: Vec<_> = (0..LINES)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    desk.enter()?;
                    let (key, csr) = request()?;
                    let mut line = clients.connect(None)?;
                    let another = |left: u64| left.checked_sub(1);
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, another)
                        .is_ok()
                    {
                        match one(&mut line, token, &csr) {
                            Ok(answer) => judge(&tally, &answer, &key),
                            // It may hang up on who sends too much.
                            Err(_) => line = clients.connect(None)?,
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        lines
            .into_iter()
            .try_for_each(|line| line.join().ok().context("a hostile client panicked")?)
    })?;
    Ok(tally)
}

/// Sends about 100 odd requests a second until `over`.
///
/// # Errors
/// Where the registry's namespace cannot be entered.
pub(super) fn steadily(desk: &Desk, clients: &Clients, over: &AtomicBool) -> Result<()> {
    desk.enter()?;
    let csr = request()?.1;
    let mut line = None;
    while !over.load(Ordering::Relaxed) {
        match line.as_mut() {
            // From elsewhere than the good ones, whom its failures must not slow down.
            None => line = clients.connect(Some(ELSEWHERE)).ok(),
            Some(connection) => {
                if one(connection, "x", &csr).is_err() {
                    line = None;
                }
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
