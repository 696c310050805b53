//! Attacks on a registry, and its death: tokens that are guessed or claimed at the same time, malformed requests, SIGKILL.

use super::{Figure, Outcome};
use crate::{
    measure::{claim_race, registry_crash, registry_load, token_guessing},
    progress::progress,
};
use anyhow::Result;
use std::time::Duration;

/// Claims with one token at the same time, and how often.
const RACE: (usize, usize) = (50, 4);
/// Guesses without limits, and the seconds for which attackers guess with limits.
const GUESSES: (u64, u64) = (20_000, 60);
/// Promised longest time of a valid claim meanwhile.
const CLAIM_TIME: Duration = Duration::from_secs(5);
/// Guesses of one network that are looked up in a minute.
const MAX_LOOKUPS: u64 = 10;
/// Certificates that are issued while the registry is killed.
const ISSUES: usize = 1_000;
/// Slow connections, malformed requests, and seconds of each phase of valid ones.
const LOAD: (usize, u64, u64) = (100, 10_000, 3);

pub(super) fn run() -> Result<Vec<Outcome>> {
    Ok(vec![race()?, guess()?, crash()?, load()?])
}

fn race() -> Result<Outcome> {
    progress("clients claim with one token at the same time");
    let (claims, rounds) = RACE;
    let found = claim_race::measure(claims, rounds)?;
    Ok(Outcome {
        id: "claim-race",
        fault: "50 clients claim with the same token at once; in every second round the registry is killed meanwhile",
        tries: rounds,
        figures: vec![
            Figure::count(
                "certificates of one token",
                u64::try_from(found.certificates_max)?,
                1,
            ),
            Figure::count(
                "claims without a record",
                u64::try_from(found.unrecorded)?,
                0,
            ),
        ],
    })
}

fn guess() -> Result<Outcome> {
    progress("tokens are guessed");
    let (guesses, seconds) = GUESSES;
    let found = token_guessing::measure(guesses, seconds)?;
    let slowest = Duration::from_secs_f64(found.valid_claim_seconds_max);
    Ok(Outcome {
        id: "token-guessing",
        fault: "tokens are guessed without limits, and then with them from one network and from a thousand",
        tries: usize::try_from(guesses)?,
        figures: vec![
            Figure::count("accepted guesses", found.accepted, 0),
            Figure::count(
                "guesses of one network that are looked up in a minute",
                found.one_network_lookups_per_minute,
                MAX_LOOKUPS,
            ),
            Figure::count("rejected valid claims", found.valid_claims_rejected, 0),
            Figure::time("slowest valid claim", Some(slowest), CLAIM_TIME),
        ],
    })
}

fn crash() -> Result<Outcome> {
    progress("the registry is killed while it issues certificates");
    let found = registry_crash::measure(ISSUES)?;
    let doubled = found.duplicate_serials + found.duplicate_prefixes;
    Ok(Outcome {
        id: "registry-crash",
        fault: "SIGKILL of a registry while it issues certificates",
        tries: found.kills,
        figures: vec![
            Figure::count(
                "issued and not recorded",
                u64::try_from(found.unrecorded)?,
                0,
            ),
            Figure::count("serials and prefixes twice", u64::try_from(doubled)?, 0),
            Figure::count("rejected valid claims", u64::try_from(found.rejected)?, 0),
        ],
    })
}

fn load() -> Result<Outcome> {
    progress("slow connections and malformed requests");
    let (slow, malformed, seconds) = LOAD;
    let found = registry_load::measure(slow, malformed, seconds)?;
    Ok(Outcome {
        id: "malformed-requests",
        fault: "malformed requests to a registry, to which 100 clients send one byte twice a second",
        tries: usize::try_from(malformed)?,
        figures: vec![
            Figure::count("signed wrongly", found.malformed_signed_wrongly, 0),
            Figure::count("wrong status", found.malformed_wrong_status, 0),
            Figure::count(
                "answers without a problem document",
                found.malformed_without_problem,
                0,
            ),
        ],
    })
}
