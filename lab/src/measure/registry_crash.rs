//! Measures what a registry forgets that is killed at random moments while it issues certificates.

use super::{seconds as rounded, tell};
use crate::standalone_registry::{Clients, Desk, request};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use wire::registry::Claimed;

/// Claims at the same time.
const LINES: usize = 8;

/// What `measure registry-crash` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Crash {
    /// Certificates that nodes got.
    pub issued: usize,
    /// SIGKILLs.
    pub kills: usize,
    /// How long it took.
    pub seconds: f64,
    /// Certificates that nodes got, and the registry does not know.
    pub unrecorded: usize,
    /// Certificates that the registry knows, and nobody got: their answers were cut off.
    pub unanswered: usize,
    /// Serial numbers that are there twice.
    pub serials_twice: usize,
    /// Prefixes that two nodes have.
    pub live_prefixes_twice: usize,
    /// Claims with a good token that were refused.
    pub refused: usize,
}

/// Issues at least `issues` certificates, and kills the registry meanwhile.
///
/// # Errors
/// Where it cannot be started again.
pub fn measure(issues: usize) -> Result<Crash> {
    let desk = Desk::start(&["--prefix-length", "24"], &["--no-limits"])?;
    let tokens: Vec<String> = (0..issues.div_ceil(5_000))
        .map(|_| desk.token(10_000))
        .collect::<Result<_>>()?;
    let (got, refused) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    let (over, clients, start) = (AtomicBool::new(false), desk.clients(None)?, Instant::now());
    let done = || got.lock().unwrap_or_else(PoisonError::into_inner).len() >= issues;
    let kills = thread::scope(|scope| {
        let lines: Vec<_> = (0..LINES)
            .map(|line| {
                let token = tokens
                    .get(line % tokens.len().max(1))
                    .map_or("", String::as_str);
                let (desk, clients, got, refused, over) = (&desk, &clients, &got, &refused, &over);
                scope.spawn(move || claims(desk, clients, token, got, refused, over))
            })
            .collect();
        let mut kills = 0;
        let mut killing = || -> Result<()> {
            while !done() {
                thread::sleep(Duration::from_millis(fastrand::u64(50..800)));
                desk.kill();
                kills += 1;
                desk.run_again()?;
                if kills % 20 == 0 {
                    let so_far = got.lock().unwrap_or_else(PoisonError::into_inner).len();
                    tell(format!("{so_far} issued, killed {kills} times"));
                }
            }
            Ok(())
        };
        let outcome = killing();
        over.store(true, Ordering::Relaxed);
        for line in lines {
            line.join().ok().context("a claim panicked")??;
        }
        outcome.map(|()| kills)
    })?;
    let got = got.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut crash = Crash {
        issued: got.len(),
        kills,
        seconds: rounded(start.elapsed()),
        ..Crash::default()
    };
    crash.refused = refused.load(Ordering::Relaxed);
    compare(&desk, &got, &mut crash)?;
    Ok(crash)
}

/// Claims one certificate after the other, on one connection as long as it lasts.
fn claims(
    desk: &Desk,
    clients: &Clients,
    token: &str,
    got: &Mutex<Vec<Claimed>>,
    refused: &AtomicUsize,
    over: &AtomicBool,
) -> Result<()> {
    desk.enter()?;
    let mut line = None;
    while !over.load(Ordering::Relaxed) {
        let csr = request()?.1;
        let Some(connection) = line.as_mut() else {
            line = clients.connect(None).ok();
            if line.is_none() {
                thread::sleep(Duration::from_millis(10));
            }
            continue;
        };
        match connection.claim(token, &csr) {
            Ok((200, body)) => {
                got.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(serde_json::from_str(&body)?);
            }
            Ok(_) => {
                refused.fetch_add(1, Ordering::Relaxed);
                line = None;
            }
            Err(_) => line = None,
        }
    }
    Ok(())
}

/// What the nodes have against what the registry knows.
fn compare(desk: &Desk, got: &[Claimed], crash: &mut Crash) -> Result<()> {
    let listing: serde_json::Value = serde_json::from_str(&desk.command("list", &["--json"])?)?;
    let nodes = listing
        .get("nodes")
        .and_then(serde_json::Value::as_array)
        .context("no list of nodes")?;
    let text = |node: &serde_json::Value, key: &str| Some(node.get(key)?.as_str()?.to_owned());
    let known: Vec<(String, String)> = nodes
        .iter()
        .filter_map(|node| Some((text(node, "serial")?, text(node, "prefix")?)))
        .collect();
    let mut serials: BTreeMap<&str, usize> = BTreeMap::new();
    let mut prefixes: BTreeMap<&str, usize> = BTreeMap::new();
    for (serial, prefix) in &known {
        *serials.entry(serial).or_default() += 1;
        *prefixes.entry(prefix).or_default() += 1;
    }
    let twice =
        |counts: &BTreeMap<&str, usize>| counts.values().filter(|count| **count > 1).count();
    (crash.serials_twice, crash.live_prefixes_twice) = (twice(&serials), twice(&prefixes));
    let mut theirs: BTreeMap<String, usize> = BTreeMap::new();
    for claimed in got {
        let serial = wire::signed::serial_of_pem(&claimed.certificate).context("no certificate")?;
        crash.unrecorded += usize::from(!serials.contains_key(serial.as_str()));
        *theirs.entry(claimed.prefix.to_string()).or_default() += 1;
    }
    crash.live_prefixes_twice += theirs.values().filter(|count| **count > 1).count();
    crash.unanswered = (known.len() + crash.unrecorded).saturating_sub(got.len());
    Ok(())
}
