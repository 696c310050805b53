//! Measures how many valid claims and renewals a second a registry answers, all stored on its disk, among slow
//! connections and malformed requests; and what malformed requests leave behind.
//!
//! The clients run on the same processors as the registry, and use about as much processor time.

mod malformed;
mod phase;
mod slow;

use crate::{
    proc_files::resident_kib,
    progress::{progress, seconds as rounded_seconds},
    registry_connection::{RegistryConnector, csr_for, new_key_and_csr},
    standalone_registry::StandaloneRegistry,
};
use anyhow::{Context, Result};
use phase::{Phase, measure_phase};
use rcgen::KeyPair;
use serde::Serialize;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use wire::registry::{Claimed, Renewal, VERSION};

/// Lifetime of a certificate in seconds: so long that all claims are made in its first two thirds.
const CERTIFICATE_LIFE_SECONDS: u64 = 90;
/// Claims per second for which signing requests are prepared.
const MAX_CLAIMS_PER_SECOND: usize = 2_500;
/// The shortest and the longest phase in seconds; with longer ones, certificates would expire.
const PHASE_SECONDS: (u64, u64) = (1, 25);
/// Tokens that are created.
const TOKENS: usize = 20;
/// Uses of each token.
const TOKEN_USES: u32 = 10_000;
/// Claims that are made with each token.
const CLAIMS_PER_TOKEN: usize = 9_000;
/// Time for the slow and the malformed clients to get started.
const WARM_UP: Duration = Duration::from_secs(2);
/// Time after the last third of a certificate's lifetime has started before it is renewed.
const RENEWAL_MARGIN: Duration = Duration::from_secs(2);

/// The output of `measure registry-load`. Processor time is that of the registry alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RegistryLoad {
    /// Connections that send one byte twice a second.
    pub slow_connections: usize,
    /// Claims on connections that each client keeps.
    pub claims: Phase,
    /// Claims on a new connection each.
    pub claims_on_new_connections: Phase,
    /// Renewals, each on a new connection and with the node's own certificate.
    pub renewals: Phase,
    /// Malformed requests after these phases.
    pub malformed_requests: u64,
    /// Time that the malformed requests took.
    pub malformed_seconds: f64,
    /// Malformed requests that got a certificate for a key that nobody proved to own.
    pub malformed_signed_wrongly: u64,
    /// Malformed requests that got a 2xx although they made no sense, or a 5xx.
    pub malformed_wrong_status: u64,
    /// Malformed requests that got a 4xx without a problem document.
    pub malformed_without_problem: u64,
    /// Memory of the registry before the malformed requests.
    pub rss_kib_before: u64,
    /// Memory of the registry after the malformed requests.
    pub rss_kib_after: u64,
    /// Memory of the registry after the same number of malformed requests again.
    pub rss_kib_after_again: u64,
}

/// A node that has claimed a certificate, and its key in PEM.
type Member = (Claimed, String);

/// Puts the load on a registry.
///
/// # Errors
/// Fails if the registry does not answer.
pub fn measure(
    slow_connections: usize,
    malformed_requests: u64,
    seconds: u64,
) -> Result<RegistryLoad> {
    let life = format!("{CERTIFICATE_LIFE_SECONDS}s");
    let init_options = ["--prefix-length", "24", "--certificate-life", &life];
    let registry = StandaloneRegistry::start(&init_options, &[])?;
    let span = Duration::from_secs(seconds.clamp(PHASE_SECONDS.0, PHASE_SECONDS.1));
    let mut load = RegistryLoad {
        slow_connections,
        malformed_requests,
        ..RegistryLoad::default()
    };
    let mut valid_clients = ValidClients::prepare(&registry, span)?;
    let connector = &registry.connector(None)?;
    let should_stop = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let slow = scope.spawn(|| {
            registry.run_clients(1, |_| {
                slow::keep_slow_connections(connector, slow_connections, &should_stop);
                Ok(())
            })
        });
        let malformed = scope.spawn(|| {
            registry.run_clients(1, |_| malformed::send_steadily(connector, &should_stop))
        });
        thread::sleep(WARM_UP);
        let outcome = valid_clients.measure_phases(&mut load);
        should_stop.store(true, Ordering::Relaxed);
        slow.join().ok().context("the slow clients panicked")??;
        malformed
            .join()
            .ok()
            .context("the malformed client panicked")??;
        outcome
    })?;
    let token = valid_clients.last_token();
    measure_malformed(&registry, connector, token, &mut load)?;
    Ok(load)
}

fn measure_malformed(
    registry: &StandaloneRegistry,
    connector: &RegistryConnector,
    token: &str,
    load: &mut RegistryLoad,
) -> Result<()> {
    let requests = load.malformed_requests;
    load.rss_kib_before = resident_kib(registry.pid()?)?;
    progress(format!("{requests} malformed requests"));
    let start = Instant::now();
    let counts = malformed::send_all(registry, connector, token, requests)?;
    load.malformed_seconds = rounded_seconds(start.elapsed());
    load.malformed_signed_wrongly = counts.signed_wrongly.into_inner();
    load.malformed_wrong_status = counts.wrong_status.into_inner();
    load.malformed_without_problem = counts.without_problem.into_inner();
    load.rss_kib_after = resident_kib(registry.pid()?)?;
    malformed::send_all(registry, connector, token, requests)?;
    load.rss_kib_after_again = resident_kib(registry.pid()?)?;
    Ok(())
}

/// The clients whose requests are valid: they claim certificates, and later renew them.
struct ValidClients<'a> {
    registry: &'a StandaloneRegistry,
    connector: RegistryConnector,
    tokens: Vec<String>,
    /// Keys and signing requests, so that the phases need not create them.
    requests: Vec<(KeyPair, String)>,
    /// Length of each phase.
    span: Duration,
    members: Mutex<Vec<Member>>,
}

impl<'a> ValidClients<'a> {
    fn prepare(registry: &'a StandaloneRegistry, span: Duration) -> Result<Self> {
        let count = MAX_CLAIMS_PER_SECOND * usize::try_from(span.as_secs())?;
        progress(format!("preparing {count} signing requests"));
        let tokens = (0..TOKENS).map(|_| registry.create_token(TOKEN_USES));
        let requests = (0..count).map(|_| new_key_and_csr());
        Ok(Self {
            registry,
            connector: registry.connector(None)?,
            tokens: tokens.collect::<Result<_>>()?,
            requests: requests.collect::<Result<_>>()?,
            span,
            members: Mutex::default(),
        })
    }

    fn last_token(&self) -> &str {
        self.tokens.last().map_or("", String::as_str)
    }

    /// The token of the claim with this number.
    fn token(&self, number: usize) -> &str {
        let token = self.tokens.get(number / CLAIMS_PER_TOKEN);
        token.map_or("", String::as_str)
    }

    fn measure_phases(&mut self, load: &mut RegistryLoad) -> Result<()> {
        let start = Instant::now();
        let (kept, new) = self.requests.split_at(self.requests.len() * 2 / 3);
        progress("claims on kept connections");
        load.claims = self.claim_on_kept_connections(kept)?;
        progress("claims on new connections");
        load.claims_on_new_connections = self.claim_on_new_connections(new)?;
        let members = self.members.get_mut();
        let members = std::mem::take(members.unwrap_or_else(PoisonError::into_inner));
        progress(format!(
            "{} members wait for the last third of their certificates' lifetime",
            members.len()
        ));
        // All claims have been made by now. The certificates of the first phase expire first.
        let last_third = Duration::from_secs(CERTIFICATE_LIFE_SECONDS * 2 / 3) + RENEWAL_MARGIN;
        thread::sleep((last_third + self.span).saturating_sub(start.elapsed()));
        progress("renewals");
        load.renewals = self.renew(&members)?;
        Ok(())
    }

    fn claim_on_kept_connections(&self, requests: &[(KeyPair, String)]) -> Result<Phase> {
        measure_phase(
            self.registry,
            self.span,
            requests,
            || None,
            |kept, number, (key, csr)| {
                let connection = match kept {
                    Some(connection) => connection,
                    None => kept.insert(self.connector.connect(None)?),
                };
                let (status, body) = connection.claim(self.token(number), csr)?;
                self.add_member(status, &body, key)
            },
        )
    }

    fn claim_on_new_connections(&self, requests: &[(KeyPair, String)]) -> Result<Phase> {
        // The second half of the tokens has not been used by the phase before.
        let first_number = CLAIMS_PER_TOKEN * (self.tokens.len() / 2);
        measure_phase(
            self.registry,
            self.span,
            requests,
            || (),
            |(), number, (key, csr)| {
                let token = self.token(first_number + number);
                let (status, body) = self.connector.connect(None)?.claim(token, csr)?;
                self.add_member(status, &body, key)
            },
        )
    }

    fn renew(&self, members: &[Member]) -> Result<Phase> {
        measure_phase(
            self.registry,
            self.span,
            members,
            || (),
            |(), _, (claimed, key)| {
                let key = KeyPair::from_pem(key)?;
                let identity = Some((claimed.certificate.as_str(), &key));
                let mut connection = self.registry.connector(identity)?.connect(None)?;
                let renewal = Renewal {
                    version: VERSION,
                    csr: csr_for(&key)?,
                };
                let body = serde_json::to_vec(&renewal)?;
                let (status, _) = connection.request("POST", "/v1/renewals", &body)?;
                Ok(status == 200)
            },
        )
    }

    /// Stores an accepted claim; returns whether it was accepted.
    fn add_member(&self, status: u16, body: &str, key: &KeyPair) -> Result<bool> {
        if status != 200 {
            return Ok(false);
        }
        let member = (serde_json::from_str(body)?, key.serialize_pem());
        self.members
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(member);
        Ok(true)
    }
}
