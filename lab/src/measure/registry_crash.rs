//! Measures what a registry loses if it is killed at random moments while it issues certificates.

use crate::{
    progress::{progress, seconds as rounded_seconds},
    registry_connection::{RegistryConnector, new_key_and_csr},
    standalone_registry::StandaloneRegistry,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use wire::registry::Claimed;

/// Clients at the same time.
const CLIENTS: usize = 8;
/// Uses of each token.
const TOKEN_USES: u32 = 10_000;
/// Certificates that are expected of each token; fewer than its uses, since claims may be repeated.
const CERTIFICATES_PER_TOKEN: usize = 5_000;
/// Range of the time between a start and the next kill, in milliseconds.
const KILL_AFTER_MS: std::ops::Range<u64> = 50..800;
/// Pause before a client whose connection failed connects again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);
/// Kills between two lines of progress.
const KILLS_PER_PROGRESS_LINE: usize = 20;

/// The output of `measure registry-crash`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CrashLosses {
    /// Certificates that clients received.
    pub issued: usize,
    /// The number of times the registry got SIGKILL.
    pub kills: usize,
    /// Time that all claims took.
    pub seconds: f64,
    /// Certificates that clients received and that the registry does not know.
    pub unrecorded: usize,
    /// Certificates that the registry knows and that no client received, because the kill came before the response.
    pub unanswered: usize,
    /// Serial numbers that the registry has more than once.
    pub duplicate_serials: usize,
    /// Prefixes that more than one node has.
    pub duplicate_prefixes: usize,
    /// Claims with a valid token that were rejected.
    pub rejected: usize,
}

/// The results of all claims so far.
#[derive(Default)]
struct Claims {
    received: Mutex<Vec<Claimed>>,
    rejected: AtomicUsize,
    should_stop: AtomicBool,
}

impl Claims {
    fn received(&self) -> MutexGuard<'_, Vec<Claimed>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets clients claim at least that many certificates, and kills the registry meanwhile.
///
/// # Errors
/// Fails if the registry cannot be started again.
pub fn measure(certificates: usize) -> Result<CrashLosses> {
    let registry = StandaloneRegistry::start(&["--prefix-length", "24"], &["--no-limits"])?;
    let tokens: Vec<String> = (0..certificates.div_ceil(CERTIFICATES_PER_TOKEN))
        .map(|_| registry.create_token(TOKEN_USES))
        .collect::<Result<_>>()?;
    let connector = registry.connector(None)?;
    let claims = Claims::default();
    let start = Instant::now();
    let kills = thread::scope(|scope| {
        let clients = scope.spawn(|| {
            registry.run_clients(CLIENTS, |client| {
                let token = tokens.get(client % tokens.len().max(1));
                claim_until_stopped(&connector, token.map_or("", String::as_str), &claims)
            })
        });
        let outcome = kill_repeatedly(&registry, certificates, &claims);
        claims.should_stop.store(true, Ordering::Relaxed);
        clients.join().ok().context("the clients panicked")??;
        outcome
    })?;
    let mut losses = CrashLosses {
        issued: claims.received().len(),
        kills,
        seconds: rounded_seconds(start.elapsed()),
        rejected: claims.rejected.load(Ordering::Relaxed),
        ..CrashLosses::default()
    };
    compare_with_registry(&registry, &claims.received(), &mut losses)?;
    Ok(losses)
}

/// Kills the registry and starts it again until clients have received that many certificates. Returns the number of
/// kills.
fn kill_repeatedly(
    registry: &StandaloneRegistry,
    certificates: usize,
    claims: &Claims,
) -> Result<usize> {
    let mut kills = 0;
    while claims.received().len() < certificates {
        thread::sleep(Duration::from_millis(fastrand::u64(KILL_AFTER_MS)));
        registry.kill();
        kills += 1;
        registry.start_again()?;
        if kills % KILLS_PER_PROGRESS_LINE == 0 {
            let received = claims.received().len();
            progress(format!("{received} certificates issued, {kills} kills"));
        }
    }
    Ok(kills)
}

/// Claims one certificate after the other, and opens a new connection only if the last one broke.
fn claim_until_stopped(connector: &RegistryConnector, token: &str, claims: &Claims) -> Result<()> {
    let mut connection = None;
    while !claims.should_stop.load(Ordering::Relaxed) {
        let csr = new_key_and_csr()?.1;
        let Some(open) = connection.as_mut() else {
            connection = connector.connect(None).ok();
            if connection.is_none() {
                thread::sleep(RECONNECT_PAUSE);
            }
            continue;
        };
        match open.claim(token, &csr) {
            Ok((200, body)) => {
                let claimed = serde_json::from_str(&body)?;
                claims.received().push(claimed);
            }
            Ok(_) => {
                claims.rejected.fetch_add(1, Ordering::Relaxed);
                connection = None;
            }
            Err(_) => connection = None,
        }
    }
    Ok(())
}

/// Compares what the clients received with what the registry knows.
fn compare_with_registry(
    registry: &StandaloneRegistry,
    received: &[Claimed],
    losses: &mut CrashLosses,
) -> Result<()> {
    let known = registry.list_nodes()?;
    let serials = count_each(known.iter().map(|node| node.serial.clone()));
    let prefixes = count_each(known.iter().map(|node| node.prefix.clone()));
    for claimed in received {
        let serial = wire::signed::serial_of_pem(&claimed.certificate)
            .context("the registry issued something that is no certificate")?;
        losses.unrecorded += usize::from(!serials.contains_key(&serial));
    }
    let received_prefixes = count_each(received.iter().map(|claimed| claimed.prefix.to_string()));
    losses.duplicate_serials = duplicates(&serials);
    losses.duplicate_prefixes = duplicates(&prefixes) + duplicates(&received_prefixes);
    losses.unanswered = (known.len() + losses.unrecorded).saturating_sub(received.len());
    Ok(())
}

/// Counts how often each name occurs.
fn count_each(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// The number of names that occur more than once.
fn duplicates(counts: &BTreeMap<String, usize>) -> usize {
    counts.values().filter(|count| **count > 1).count()
}
