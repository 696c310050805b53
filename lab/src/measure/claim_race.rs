//! Measures how many certificates a single-use token yields if many clients claim with it at the same moment, also from
//! a registry that is killed and started again meanwhile.

use crate::{
    progress::progress,
    registry_connection::{RegistryConnector, new_key_and_csr},
    standalone_registry::StandaloneRegistry,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// A client without an answer gives up after this time.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before a client whose connection broke claims again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Range of the time after which the registry is killed, in microseconds.
const KILL_AFTER_US: std::ops::Range<u64> = 1_000..60_000;

/// The output of `measure claim-race`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClaimRace {
    /// Claims at the same time, each with a key of its own and all with the same token.
    pub claims: usize,
    /// Rounds, each with a new token. In every second round the registry is killed and started again.
    pub rounds: usize,
    /// The most certificates that the registry recorded for one token.
    pub certificates_max: usize,
    /// The fewest certificates that the registry recorded for one token.
    pub certificates_min: usize,
    /// The most claims with one token that were accepted.
    pub accepted_claims_max: usize,
    /// Accepted claims of which the registry has no record.
    pub unrecorded: usize,
}

/// Lets `claims` clients race, `rounds` times.
///
/// # Errors
/// Fails if the registry does not answer.
pub fn measure(claims: usize, rounds: usize) -> Result<ClaimRace> {
    let registry = StandaloneRegistry::start(&[], &["--no-limits"])?;
    let mut race = ClaimRace {
        claims,
        rounds,
        certificates_min: usize::MAX,
        ..ClaimRace::default()
    };
    for round in 0..rounds {
        let should_kill = round % 2 == 1;
        let before = serials(&registry)?;
        let accepted = race_once(&registry, claims, should_kill)?;
        let recorded = serials(&registry)?.difference(&before).count();
        race.certificates_max = race.certificates_max.max(recorded);
        race.certificates_min = race.certificates_min.min(recorded);
        race.accepted_claims_max = race.accepted_claims_max.max(accepted);
        race.unrecorded += accepted.saturating_sub(recorded);
        let kill = if should_kill {
            ", registry killed meanwhile"
        } else {
            ""
        };
        progress(format!(
            "round {round}{kill}: {recorded} certificates, {accepted} accepted claims"
        ));
    }
    Ok(race)
}

/// Serial numbers of all certificates that the registry knows.
fn serials(registry: &StandaloneRegistry) -> Result<BTreeSet<String>> {
    let nodes = registry.list_nodes()?;
    Ok(nodes.into_iter().map(|node| node.serial).collect())
}

/// Lets `claims` clients claim with one new token, and returns how many claims were accepted.
fn race_once(registry: &StandaloneRegistry, claims: usize, should_kill: bool) -> Result<usize> {
    let token = registry.create_token(1)?;
    let connector = registry.connector(None)?;
    let csrs: Vec<String> = (0..claims)
        .map(|_| Ok(new_key_and_csr()?.1))
        .collect::<Result<_>>()?;
    let barrier = Barrier::new(claims + 1);
    thread::scope(|scope| {
        let racing = scope.spawn(|| {
            registry.run_clients(claims, |client| {
                let csr = csrs.get(client).map_or("", String::as_str);
                barrier.wait();
                Ok(claim_until_answered(&connector, &token, csr))
            })
        });
        barrier.wait();
        if should_kill {
            thread::sleep(Duration::from_micros(fastrand::u64(KILL_AFTER_US)));
            registry.kill();
            registry.start_again()?;
        }
        let accepted = racing.join().ok().context("the clients panicked")??;
        Ok(accepted
            .into_iter()
            .filter(|is_accepted| *is_accepted)
            .count())
    })
}

/// Claims until the registry accepts or rejects; returns whether it accepted.
///
/// A client whose connection broke claims again, as `warren join` does if it is called again.
fn claim_until_answered(connector: &RegistryConnector, token: &str, csr: &str) -> bool {
    let start = Instant::now();
    while start.elapsed() < CLAIM_TIMEOUT {
        let response = connector
            .connect(None)
            .and_then(|mut connection| connection.claim(token, csr));
        match response {
            Ok((200, _)) => return true,
            Ok((403 | 409, _)) => return false,
            Ok(_) | Err(_) => thread::sleep(RETRY_PAUSE),
        }
    }
    false
}
