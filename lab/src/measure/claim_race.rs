//! Measures how many certificates one token gives to many who claim at the same moment, also from a registry
//! that is killed and started meanwhile.

use super::tell;
use crate::standalone_registry::{Desk, request};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// Who claims gives up after this.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `measure claim-race` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Race {
    /// Claims at once, each with a key of its own and the same token.
    pub claims: usize,
    /// Rounds, each with a token of its own; in every second one the registry is killed and started.
    pub rounds: usize,
    /// Most certificates that the registry recorded for one token.
    pub certificates: usize,
    /// Fewest.
    pub certificates_min: usize,
    /// Most good answers to the claims of one token.
    pub answers_max: usize,
    /// Good answers that the registry has no record of.
    pub unrecorded: usize,
}

/// Lets `claims` claims race, `rounds` times.
///
/// # Errors
/// Where the registry does not answer.
pub fn measure(claims: usize, rounds: usize) -> Result<Race> {
    let desk = Desk::start(&[], &["--no-limits"])?;
    let mut race = Race {
        claims,
        rounds,
        certificates_min: usize::MAX,
        ..Race::default()
    };
    for round in 0..rounds {
        let kill = round % 2 == 1;
        let before = serials(&desk)?;
        let answered = one(&desk, claims, kill)?;
        let after = serials(&desk)?;
        let recorded = after.difference(&before).count();
        race.certificates = race.certificates.max(recorded);
        race.certificates_min = race.certificates_min.min(recorded);
        race.answers_max = race.answers_max.max(answered);
        race.unrecorded += answered.saturating_sub(recorded);
        let how = if kill { ", killed meanwhile" } else { "" };
        tell(format!(
            "round {round}{how}: {recorded} certificates, {answered} good answers"
        ));
    }
    Ok(race)
}

/// Serial numbers of all certificates that the registry knows.
///
/// # Errors
/// Where it does not answer.
pub fn serials(desk: &Desk) -> Result<BTreeSet<String>> {
    let listing: serde_json::Value = serde_json::from_str(&desk.command("list", &["--json"])?)?;
    let nodes = listing
        .get("nodes")
        .and_then(serde_json::Value::as_array)
        .context("no list of nodes")?;
    let serial = |node: &serde_json::Value| {
        node.get("serial")
            .and_then(|serial| serial.as_str().map(String::from))
    };
    Ok(nodes.iter().filter_map(serial).collect())
}

/// One token, many claims; how many answers were good.
fn one(desk: &Desk, claims: usize, kill: bool) -> Result<usize> {
    let (token, clients) = (desk.token(1)?, desk.clients(None)?);
    let requests: Vec<String> = (0..claims)
        .map(|_| Ok(request()?.1))
        .collect::<Result<_>>()?;
    let barrier = Barrier::new(claims + 1);
    thread::scope(|scope| {
        let racing: Vec<_> = requests
            .iter()
            .map(|csr| {
                scope.spawn(|| {
                    desk.enter()?;
                    let start = Instant::now();
                    barrier.wait();
                    // Who was cut off comes again, as `warren join` does when it is called again.
                    while start.elapsed() < PATIENCE {
                        let asked = clients
                            .connect(None)
                            .and_then(|mut line| line.claim(&token, csr));
                        match asked {
                            Ok((200, _)) => return Ok(true),
                            Ok((403 | 409, _)) => return Ok(false),
                            Ok(_) | Err(_) => thread::sleep(Duration::from_millis(20)),
                        }
                    }
                    Ok::<bool, anyhow::Error>(false)
                })
            })
            .collect();
        barrier.wait();
        if kill {
            thread::sleep(Duration::from_micros(fastrand::u64(1_000..60_000)));
            desk.kill();
            desk.run_again()?;
        }
        let mut good = 0;
        for claim in racing {
            good += usize::from(claim.join().ok().context("a claim panicked")??);
        }
        Ok(good)
    })
}
