//! Measures what guessing tokens brings: with the limits off how many wrong ones are taken, with them on how
//! many can be tried, and whether a good one still gets through.

use super::{seconds as rounded, tell};
use crate::standalone_registry::{Clients, Desk, request};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    net::Ipv6Addr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};
use wire::invitation::token_text;

/// Connections of one attacker; each is used for many guesses.
const LINES: usize = 8;

/// What `measure guess` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Guess {
    /// Wrong tokens with the limits off.
    pub guesses: u64,
    /// Of these, taken.
    pub accepted: u64,
    /// Of these, answered otherwise than 403.
    pub other_answers: u64,
    /// How long that took.
    pub seconds: f64,
    /// With the limits on: how long each attacker tried.
    pub limited_seconds: u64,
    /// Tries from one /64 a minute.
    pub one_network_tries_per_minute: u64,
    /// Of these, looked up; the others are told to wait.
    pub one_network_through_per_minute: u64,
    /// Tries from a thousand /64s a minute.
    pub thousand_networks_tries_per_minute: u64,
    /// Of these, looked up.
    pub thousand_networks_through_per_minute: u64,
    /// Good claims meanwhile, from networks of their own.
    pub good_claims: u64,
    /// Of these, refused.
    pub good_claims_refused: u64,
    /// The longest that a good claim took.
    pub good_claim_seconds_max: f64,
}

/// What an attacker was answered.
#[derive(Default)]
struct Tally {
    tries: AtomicU64,
    taken: AtomicU64,
    looked_up: AtomicU64,
    told_to_wait: AtomicU64,
}

impl Tally {
    fn count(&self, status: u16) {
        self.tries.fetch_add(1, Ordering::Relaxed);
        match status {
            200 => self.taken.fetch_add(1, Ordering::Relaxed),
            403 => self.looked_up.fetch_add(1, Ordering::Relaxed),
            429 => self.told_to_wait.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// Guesses `guesses` times without limits, then for `seconds` each from one network and from a thousand.
///
/// # Errors
/// Where the registry does not answer.
pub fn measure(guesses: u64, seconds: u64) -> Result<Guess> {
    let mut guess = Guess {
        guesses,
        limited_seconds: seconds,
        ..Guess::default()
    };
    if guesses > 0 {
        tell(format!("{guesses} wrong tokens with the limits off"));
        let desk = Desk::start(&[], &["--no-limits"])?;
        let start = Instant::now();
        let tally = unlimited(&desk, guesses)?;
        guess.seconds = rounded(start.elapsed());
        guess.accepted = read(&tally.taken);
        guess.other_answers = read(&tally.tries) - read(&tally.taken) - read(&tally.looked_up);
    }
    let minute = |count: u64| count * 60 / seconds.max(1);
    for networks in [1u16, 1_000] {
        tell(format!(
            "limits on, an attacker from {networks} networks, {seconds} s"
        ));
        let desk = Desk::start(&[], &[])?;
        let (tally, good) = limited(&desk, networks, Duration::from_secs(seconds))?;
        let (tries, through) = (minute(read(&tally.tries)), minute(read(&tally.looked_up)));
        if networks == 1 {
            (
                guess.one_network_tries_per_minute,
                guess.one_network_through_per_minute,
            ) = (tries, through);
        } else {
            guess.thousand_networks_tries_per_minute = tries;
            guess.thousand_networks_through_per_minute = through;
        }
        guess.accepted += read(&tally.taken);
        guess.good_claims += good.claims;
        guess.good_claims_refused += good.refused;
        guess.good_claim_seconds_max = guess.good_claim_seconds_max.max(rounded(good.slowest));
    }
    Ok(guess)
}

fn wrong() -> String {
    token_text(&fastrand::u128(..).to_be_bytes())
}

fn unlimited(desk: &Desk, guesses: u64) -> Result<Tally> {
    let (tally, clients) = (Tally::default(), desk.clients(None)?);
    let left = AtomicU64::new(guesses);
    thread::scope(|scope| {
        let guessing: Vec<_> = (0..LINES)
            .map(|_| {
                scope.spawn(|| {
                    desk.enter()?;
                    let csr = request()?.1;
                    let mut line = clients.connect(None)?;
                    let another = |left: u64| left.checked_sub(1);
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, another)
                        .is_ok()
                    {
                        tally.count(line.claim(&wrong(), &csr)?.0);
                    }
                    Ok::<(), anyhow::Error>(())
                })
            })
            .collect();
        guessing
            .into_iter()
            .try_for_each(|one| one.join().ok().context("a guess panicked")?)
    })?;
    Ok(tally)
}

/// Good claims, made while somebody guesses.
#[derive(Default)]
struct Good {
    claims: u64,
    refused: u64,
    slowest: Duration,
}

/// The `n`th network of an attacker, 2001:db8:1:N::/64; an address of it.
fn network(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 1)
}

fn limited(desk: &Desk, networks: u16, span: Duration) -> Result<(Tally, Good)> {
    let (tally, clients, token) = (Tally::default(), desk.clients(None)?, desk.token(10_000)?);
    let end = Instant::now() + span;
    let good = thread::scope(|scope| {
        let guessing: Vec<_> = (0..4u16)
            .map(|line| {
                let (tally, clients) = (&tally, &clients);
                scope.spawn(move || attack(desk, clients, tally, line, networks, end))
            })
            .collect();
        let good = scope.spawn(|| claims(desk, &clients, &token, end));
        guessing
            .into_iter()
            .try_for_each(|one| one.join().ok().context("a guess panicked")?)?;
        good.join().ok().context("a claim panicked")?
    })?;
    Ok((tally, good))
}

/// A quarter of an attack: from each of its networks in turn, as often as it can. A connection is used for a
/// few guesses, since a new one costs the attacker more than the registry's no.
fn attack(
    desk: &Desk,
    clients: &Clients,
    tally: &Tally,
    line: u16,
    networks: u16,
    end: Instant,
) -> Result<()> {
    desk.enter()?;
    let csr = request()?.1;
    let mut turn = u64::from(line);
    while Instant::now() < end {
        let from = network(u16::try_from(turn % u64::from(networks)).unwrap_or(0));
        turn += 4;
        let mut connection = clients.connect(Some(from))?;
        for _ in 0..10 {
            tally.count(connection.claim(&wrong(), &csr)?.0);
        }
    }
    Ok(())
}

/// One good claim a second, each from a network of its own.
fn claims(desk: &Desk, clients: &Clients, token: &str, end: Instant) -> Result<Good> {
    desk.enter()?;
    let mut good = Good::default();
    for number in 0.. {
        if Instant::now() >= end {
            break;
        }
        let csr = request()?.1;
        let from = Ipv6Addr::new(0x2001, 0xdb8, 2, number, 0, 0, 0, 1);
        let start = Instant::now();
        let (status, _) = clients.connect(Some(from))?.claim(token, &csr)?;
        good.slowest = good.slowest.max(start.elapsed());
        good.claims += 1;
        good.refused += u64::from(status != 200);
        thread::sleep(Duration::from_secs(1));
    }
    Ok(good)
}
