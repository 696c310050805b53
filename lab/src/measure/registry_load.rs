//! Measures how many good claims and renewals a second a registry answers, all on its disk, among slow
//! connections and odd requests; and what odd requests leave behind.
//!
//! The clients run on the same processors as the registry, and take about as much of them.

mod malformed;
mod slow;

use super::{seconds as rounded, tell};
use crate::standalone_registry::{Clients, Desk, csr, request};
use anyhow::{Context, Result};
use rcgen::KeyPair;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use wire::registry::{Claimed, Renewal, VERSION};

/// Good clients at the same time.
const LINES: usize = 32;
/// Life of a certificate: so long that all claims are made in its first two thirds.
const LIFE_S: u64 = 90;
/// Most claims a second that requests are prepared for.
const MOST_PER_SECOND: usize = 2_500;
/// Clock ticks a second in `/proc`.
const TICKS: f64 = 100.0;

/// What `measure registry-load` prints. Processor seconds are those of the registry alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Load {
    /// Connections that send a byte twice a second.
    pub slow: usize,
    /// Claims, each client keeping its connection.
    pub claims: Phase,
    /// Claims, each with a new connection.
    pub fresh_claims: Phase,
    /// Renewals, each with a new connection and its own certificate.
    pub renewals: Phase,
    /// Odd requests after that.
    pub odd: u64,
    /// How long they took.
    pub odd_seconds: f64,
    /// Of them, answered with a certificate for a key that nobody proved to have.
    pub odd_signed_wrongly: u64,
    /// Of them, answered with 2xx though they made no sense, or 5xx.
    pub odd_wrong_status: u64,
    /// Of them, answered with 4xx that is no problem document.
    pub odd_without_problem: u64,
    /// Memory of the registry before them.
    pub rss_kib_before: u64,
    /// And after them.
    pub rss_kib_after: u64,
    /// And after them again.
    pub rss_kib_after_again: u64,
}

/// One kind of good requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Phase {
    /// Good answers.
    pub good: usize,
    /// Good ones that were refused, or got no answer.
    pub refused: usize,
    /// Good answers a second.
    pub per_second: f64,
    /// 50 of 100 were faster.
    pub p50_ms: f64,
    /// 99 of 100 were faster.
    pub p99_ms: f64,
    /// Processor time of each thread of the registry for each good answer, microseconds.
    pub cpu_us: BTreeMap<String, f64>,
}

/// Puts the load on a registry.
///
/// # Errors
/// Where it does not answer.
pub fn measure(slow: usize, odd: u64, seconds: u64) -> Result<Load> {
    let life = format!("{LIFE_S}s");
    let desk = Desk::start(&["--prefix-length", "24", "--certificate-life", &life], &[])?;
    let span = Duration::from_secs(seconds.clamp(1, 25));
    let tokens: Vec<String> = (0..20).map(|_| desk.token(10_000)).collect::<Result<_>>()?;
    let count = MOST_PER_SECOND * usize::try_from(span.as_secs())?;
    tell(format!("preparing {count} requests"));
    let requests = prepared(count)?;
    let mut load = Load {
        slow,
        odd,
        ..Load::default()
    };
    let over = AtomicBool::new(false);
    let clients = desk.clients(None)?;
    let members = Mutex::new(Vec::new());
    thread::scope(|scope| -> Result<()> {
        let dribbling = scope.spawn(|| slow::dribble(&desk, &clients, slow, &over));
        let hostile = scope.spawn(|| malformed::steadily(&desk, &clients, &over));
        thread::sleep(Duration::from_secs(2));
        let outcome = phases(
            &desk, &clients, &tokens, &requests, span, &members, &mut load,
        );
        over.store(true, Ordering::Relaxed);
        dribbling.join().ok().context("a slow client panicked")??;
        hostile.join().ok().context("a hostile client panicked")??;
        outcome
    })?;
    load.rss_kib_before = rss_kib(&desk)?;
    tell(format!("{odd} odd requests"));
    let start = Instant::now();
    let tally = malformed::all(
        &desk,
        &clients,
        tokens.last().map_or("", String::as_str),
        odd,
    )?;
    load.odd_seconds = rounded(start.elapsed());
    load.odd_signed_wrongly = tally.signed_wrongly.load(Ordering::Relaxed);
    load.odd_wrong_status = tally.wrong_status.load(Ordering::Relaxed);
    load.odd_without_problem = tally.without_problem.load(Ordering::Relaxed);
    load.rss_kib_after = rss_kib(&desk)?;
    malformed::all(
        &desk,
        &clients,
        tokens.last().map_or("", String::as_str),
        odd,
    )?;
    load.rss_kib_after_again = rss_kib(&desk)?;
    Ok(load)
}

type Member = (Claimed, String);

fn phases(
    desk: &Desk,
    clients: &Clients,
    tokens: &[String],
    requests: &[(KeyPair, String)],
    span: Duration,
    members: &Mutex<Vec<Member>>,
    load: &mut Load,
) -> Result<()> {
    let begin = Instant::now();
    let (kept, fresh) = requests.split_at(requests.len() * 2 / 3);
    let claim = |requests: &'static str| tell(requests);
    claim("claims on kept connections");
    let token = |number: usize| tokens.get(number / 9_000).map_or("", String::as_str);
    load.claims = phase(
        desk,
        span,
        kept,
        || None,
        |line, number, (key, csr)| {
            let connection = match line {
                Some(connection) => connection,
                None => line.insert(clients.connect(None)?),
            };
            let (status, body) = connection.claim(token(number), csr)?;
            keep(members, status, &body, key)?;
            Ok(status == 200)
        },
    )?;
    claim("claims on new connections");
    load.fresh_claims = phase(
        desk,
        span,
        fresh,
        || (),
        |_, number, (key, csr)| {
            let number = number + 9_000 * (tokens.len() / 2);
            let (status, body) = clients.connect(None)?.claim(token(number), csr)?;
            keep(members, status, &body, key)?;
            Ok(status == 200)
        },
    )?;
    let members = std::mem::take(&mut *members.lock().unwrap_or_else(PoisonError::into_inner));
    let third = Duration::from_secs(LIFE_S * 2 / 3 + 2);
    tell(format!(
        "{} members wait for the last third of their certificates",
        members.len()
    ));
    // Those of the first phase are over soonest; all claims were made by now.
    thread::sleep((third + span).saturating_sub(begin.elapsed()));
    claim("renewals");
    load.renewals = phase(
        desk,
        span,
        &members,
        || (),
        |_, _, (claimed, key)| {
            let key = KeyPair::from_pem(key)?;
            let clients = desk.clients(Some((&claimed.certificate, &key)))?;
            let renewal = Renewal {
                version: VERSION,
                csr: csr(&key)?,
            };
            let body = serde_json::to_vec(&renewal)?;
            let (status, _) = clients.connect(None)?.call("POST", "/v1/renewals", &body)?;
            Ok(status == 200)
        },
    )?;
    Ok(())
}

fn keep(members: &Mutex<Vec<Member>>, status: u16, body: &str, key: &KeyPair) -> Result<()> {
    if status == 200 {
        let member = (serde_json::from_str(body)?, key.serialize_pem());
        members
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(member);
    }
    Ok(())
}

fn prepared(count: usize) -> Result<Vec<(KeyPair, String)>> {
    (0..count).map(|_| request()).collect()
}

/// Does one request of `items` after the other on [`LINES`] threads, for `span` or until there are no more.
fn phase<T: Sync, L>(
    desk: &Desk,
    span: Duration,
    items: &[T],
    line: impl Fn() -> L + Sync,
    ask: impl Fn(&mut L, usize, &T) -> Result<bool> + Sync,
) -> Result<Phase> {
    let (next, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (cpu_before, start) = (cpu(desk)?, Instant::now());
    let times = thread::scope(|scope| {
        let lines: Vec<_> = (0..LINES)
            .map(|_| {
                scope.spawn(|| -> Result<Vec<Duration>> {
                    desk.enter()?;
                    let (mut line, mut times) = (line(), Vec::new());
                    while start.elapsed() < span {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(number) else { break };
                        let begin = Instant::now();
                        match ask(&mut line, number, item) {
                            Ok(true) => times.push(begin.elapsed()),
                            Ok(false) | Err(_) => {
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut times = Vec::new();
        for line in lines {
            times.extend(line.join().ok().context("a client panicked")??);
        }
        Ok::<_, anyhow::Error>(times)
    })?;
    let (took, cpu_after) = (start.elapsed(), cpu(desk)?);
    Ok(summed_up(
        times,
        refused.into_inner(),
        took,
        &cpu_before,
        &cpu_after,
    ))
}

fn summed_up(
    mut times: Vec<Duration>,
    refused: usize,
    took: Duration,
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
) -> Phase {
    times.sort_unstable();
    let good = times.len();
    let at = |percent: usize| {
        times
            .get(good.saturating_sub(1) * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    let ms = |span: Duration| (span.as_secs_f64() * 100_000.0).round() / 100.0;
    let count = f64::from(u32::try_from(good).unwrap_or(u32::MAX)).max(1.0);
    let spent = |(name, seconds): (&String, &f64)| {
        let seconds = seconds - before.get(name).copied().unwrap_or_default();
        (name.clone(), (seconds * 1e6 / count).round())
    };
    Phase {
        good,
        refused,
        per_second: (count / took.as_secs_f64()).round(),
        p50_ms: ms(at(50)),
        p99_ms: ms(at(99)),
        cpu_us: after
            .iter()
            .map(spent)
            .filter(|(_, spent)| *spent >= 1.0)
            .collect(),
    }
}

/// Processor seconds of the registry's threads, by their names.
fn cpu(desk: &Desk) -> Result<BTreeMap<String, f64>> {
    let mut all = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{}/task", desk.pid()?))? {
        let text = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        let Some((head, tail)) = text.rsplit_once(')') else {
            continue;
        };
        let name = head.split_once('(').map_or("", |(_, name)| name).to_owned();
        let ticks = tail
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok());
        *all.entry(name).or_default() += ticks.sum::<f64>() / TICKS;
    }
    Ok(all)
}

fn rss_kib(desk: &Desk) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", desk.pid()?))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
