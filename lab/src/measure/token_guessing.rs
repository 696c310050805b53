//! Measures what guessing tokens achieves: without rate limits, how many wrong tokens are accepted; with them, how many
//! guesses are possible, and whether a valid claim still succeeds.

use super::RequestBudget;
use crate::{
    progress::{progress, seconds as rounded_seconds},
    registry_connection::{RegistryConnector, new_key_and_csr},
    standalone_registry::StandaloneRegistry,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    net::Ipv6Addr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};
use wire::invitation::token_text;

/// Connections at the same time without limits; each serves many guesses.
const UNLIMITED_CONNECTIONS: usize = 8;
/// Threads of an attacker with limits.
const ATTACKER_THREADS: u16 = 4;
/// Guesses per connection with limits: a new connection costs the attacker more than the registry's rejection.
const GUESSES_PER_CONNECTION: usize = 10;
/// Pause between two valid claims.
const VALID_CLAIM_PAUSE: Duration = Duration::from_secs(1);

/// The output of `measure token-guessing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TokenGuessing {
    /// Wrong tokens that were sent without limits.
    pub guesses: u64,
    /// Wrong tokens that were accepted, with and without limits.
    pub accepted: u64,
    /// Wrong tokens that were answered with neither 200 nor 403, without limits.
    pub other_answers: u64,
    /// Time that the guesses without limits took.
    pub seconds: f64,
    /// Time that each attacker guessed with limits.
    pub limited_seconds: u64,
    /// Guesses per minute from one /64.
    pub one_network_guesses_per_minute: u64,
    /// Guesses of these that were looked up; the others got the answer to wait.
    pub one_network_lookups_per_minute: u64,
    /// Guesses per minute from a thousand /64s.
    pub thousand_networks_guesses_per_minute: u64,
    /// Guesses of these that were looked up.
    pub thousand_networks_lookups_per_minute: u64,
    /// Valid claims meanwhile, each from a network of its own.
    pub valid_claims: u64,
    /// Valid claims that were rejected.
    pub valid_claims_rejected: u64,
    /// The longest time that a valid claim took.
    pub valid_claim_seconds_max: f64,
}

/// Counts of the answers to an attacker's guesses.
#[derive(Default)]
struct GuessCounts {
    guesses: AtomicU64,
    accepted: AtomicU64,
    /// The registry looked the token up and rejected it.
    looked_up: AtomicU64,
}

impl GuessCounts {
    fn count(&self, status: u16) {
        increment(&self.guesses);
        match status {
            200 => increment(&self.accepted),
            403 => increment(&self.looked_up),
            // The answer 429 asks the attacker to wait.
            _ => {}
        }
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Sends `guesses` wrong tokens without limits, and then guesses for `seconds` each from one network and from a
/// thousand.
///
/// # Errors
/// Fails if the registry does not answer.
pub fn measure(guesses: u64, seconds: u64) -> Result<TokenGuessing> {
    let mut result = TokenGuessing {
        guesses,
        limited_seconds: seconds,
        ..TokenGuessing::default()
    };
    if guesses > 0 {
        progress(format!("{guesses} wrong tokens without limits"));
        let (counts, span) = guess_without_limits(guesses)?;
        result.seconds = rounded_seconds(span);
        result.accepted = read(&counts.accepted);
        result.other_answers = guesses - read(&counts.accepted) - read(&counts.looked_up);
    }
    for networks in [1u16, 1_000] {
        progress(format!(
            "with limits, an attacker from {networks} networks for {seconds} s"
        ));
        let (counts, valid) = guess_with_limits(networks, Duration::from_secs(seconds))?;
        let per_minute = |count: &AtomicU64| read(count) * 60 / seconds.max(1);
        let (guesses, lookups) = (per_minute(&counts.guesses), per_minute(&counts.looked_up));
        if networks == 1 {
            result.one_network_guesses_per_minute = guesses;
            result.one_network_lookups_per_minute = lookups;
        } else {
            result.thousand_networks_guesses_per_minute = guesses;
            result.thousand_networks_lookups_per_minute = lookups;
        }
        result.accepted += read(&counts.accepted);
        result.valid_claims += valid.claims;
        result.valid_claims_rejected += valid.rejected;
        let slowest = rounded_seconds(valid.slowest);
        result.valid_claim_seconds_max = result.valid_claim_seconds_max.max(slowest);
    }
    Ok(result)
}

fn random_token() -> String {
    token_text(&fastrand::u128(..).to_be_bytes())
}

/// Returns also the time that the guesses took.
fn guess_without_limits(guesses: u64) -> Result<(GuessCounts, Duration)> {
    let registry = StandaloneRegistry::start(&[], &["--no-limits"])?;
    let connector = registry.connector(None)?;
    let counts = GuessCounts::default();
    let budget = RequestBudget::new(guesses);
    let start = Instant::now();
    registry.run_clients(UNLIMITED_CONNECTIONS, |_| {
        let csr = new_key_and_csr()?.1;
        let mut connection = connector.connect(None)?;
        while budget.take_one() {
            counts.count(connection.claim(&random_token(), &csr)?.0);
        }
        Ok(())
    })?;
    Ok((counts, start.elapsed()))
}

/// Valid claims that were made while an attacker guessed.
#[derive(Default)]
struct ValidClaims {
    claims: u64,
    rejected: u64,
    slowest: Duration,
}

fn guess_with_limits(networks: u16, span: Duration) -> Result<(GuessCounts, ValidClaims)> {
    let registry = StandaloneRegistry::start(&[], &[])?;
    let connector = registry.connector(None)?;
    let token = registry.create_token(10_000)?;
    let counts = GuessCounts::default();
    let end = Instant::now() + span;
    let valid = thread::scope(|scope| {
        let valid = scope
            .spawn(|| registry.run_clients(1, |_| claim_once_a_second(&connector, &token, end)));
        registry.run_clients(usize::from(ATTACKER_THREADS), |thread| {
            attack(&connector, &counts, thread, networks, end)
        })?;
        valid.join().ok().context("the valid client panicked")?
    })?;
    let valid = valid.into_iter().next().unwrap_or_default();
    Ok((counts, valid))
}

/// An address in network number `n` of the attacker, 2001:db8:1:N::/64.
fn attacker_address(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 1)
}

/// One thread of an attack, which cycles through every fourth network as fast as it can.
fn attack(
    connector: &RegistryConnector,
    counts: &GuessCounts,
    thread: usize,
    networks: u16,
    end: Instant,
) -> Result<()> {
    let csr = new_key_and_csr()?.1;
    let mut round = u64::try_from(thread)?;
    while Instant::now() < end {
        let network = u16::try_from(round % u64::from(networks)).unwrap_or(0);
        round += u64::from(ATTACKER_THREADS);
        let mut connection = connector.connect(Some(attacker_address(network)))?;
        for _ in 0..GUESSES_PER_CONNECTION {
            counts.count(connection.claim(&random_token(), &csr)?.0);
        }
    }
    Ok(())
}

/// Makes one valid claim a second, each from a network of its own.
fn claim_once_a_second(
    connector: &RegistryConnector,
    token: &str,
    end: Instant,
) -> Result<ValidClaims> {
    let mut valid = ValidClaims::default();
    for number in 0.. {
        if Instant::now() >= end {
            break;
        }
        let csr = new_key_and_csr()?.1;
        let from = Ipv6Addr::new(0x2001, 0xdb8, 2, number, 0, 0, 0, 1);
        let start = Instant::now();
        let (status, _) = connector.connect(Some(from))?.claim(token, &csr)?;
        valid.slowest = valid.slowest.max(start.elapsed());
        valid.claims += 1;
        valid.rejected += u64::from(status != 200);
        thread::sleep(VALID_CLAIM_PAUSE);
    }
    Ok(valid)
}
