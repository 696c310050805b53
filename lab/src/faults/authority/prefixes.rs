//! Random claims, revocations, expiries and deaths of a registry with few prefixes, compared with a model.

use super::matrix::{GRACE_S, LIFE_S, START_S, revoke, start_registry};
use crate::{
    faults::{Figure, Outcome},
    progress::progress,
    registry_connection::{RegistryConnection, new_key_and_csr},
    standalone_registry::StandaloneRegistry,
};
use anyhow::{Context, Result, anyhow, bail};
use policies::names::Prefix;
use std::ops::Range;
use wire::{
    invitation::{Invitation, token_text},
    registry::Claimed,
};

/// Operations on the registry.
const OPERATIONS: usize = 6_000;
/// The usual length of a prefix, in bits; number 0 of this length is given to nobody.
const USUAL_LENGTH: u8 = 6;
/// The length of the smallest prefixes, in bits.
const SMALLEST: u8 = 8;
/// Longest step of the clock in seconds.
const MAX_STEP_S: u64 = 3 * 86_400;
/// The status of a claim for which there is no prefix.
const NO_PREFIX_LEFT: u16 = 507;

/// Until when each of the smallest prefixes is somebody's, in seconds since 1970.
struct Model {
    owned_until_s: [u64; 1 << SMALLEST],
    now_s: u64,
}

/// The smallest prefixes within a prefix.
fn parts(prefix: Prefix) -> Result<Range<usize>> {
    let bits = SMALLEST.checked_sub(prefix.length());
    let shift = bits.context("the registry gave a prefix that is too small")?;
    let first = usize::try_from(prefix.number() << shift)?;
    Ok(first..first + (1 << shift))
}

impl Model {
    fn new() -> Result<Self> {
        let mut model = Self {
            owned_until_s: [0; 1 << SMALLEST],
            now_s: START_S,
        };
        let reserved = Prefix::new(0, USUAL_LENGTH).context("no such prefix")?;
        model.own(reserved, u64::MAX)?;
        Ok(model)
    }

    fn is_free(&self, prefix: Prefix) -> Result<bool> {
        let parts = self.owned_until_s.get(parts(prefix)?);
        let parts = parts.context("the registry gave a prefix outside of the network")?;
        Ok(parts.iter().all(|until_s| *until_s <= self.now_s))
    }

    fn own(&mut self, prefix: Prefix, until_s: u64) -> Result<()> {
        let parts = self.owned_until_s.get_mut(parts(prefix)?);
        parts
            .context("the registry gave a prefix outside of the network")?
            .fill(until_s);
        Ok(())
    }

    fn has_free(&self, length: u8) -> Result<bool> {
        for number in 0..1 << length {
            if self.is_free(Prefix::new(number, length).context("no such prefix")?)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(super) fn run() -> Result<Outcome> {
    progress("prefixes are given out and come back");
    let registry = start_registry(&["--prefix-length", &USUAL_LENGTH.to_string()])?;
    let tokens = (USUAL_LENGTH..=SMALLEST).map(|length| Ok((length, token(&registry, length)?)));
    let tokens: Vec<_> = tokens.collect::<Result<_>>()?;
    let (mut model, mut connection) = (Model::new()?, connect(&registry)?);
    let (mut two_owners, mut lost, mut claims, mut given) = (0, 0, 0, Vec::new());
    for _ in 0..OPERATIONS {
        match fastrand::u8(..) {
            0..200 => {
                let (length, token) = fastrand::choice(&tokens).context("there is no token")?;
                claims += 1;
                match claim(&mut connection, token)? {
                    Some(prefix) => {
                        two_owners += u64::from(!model.is_free(prefix)?);
                        model.own(prefix, model.now_s + LIFE_S + GRACE_S)?;
                        given.push(prefix);
                    }
                    None => lost += u64::from(model.has_free(*length)?),
                }
            }
            200..225 if !given.is_empty() => {
                let revoked = given.swap_remove(fastrand::usize(..given.len()));
                // A certificate that has expired meanwhile cannot be revoked.
                revoke(&registry, revoked)?;
            }
            200..254 => {
                model.now_s += fastrand::u64(1..MAX_STEP_S);
                registry.set_clock(model.now_s)?;
            }
            _ => {
                registry.kill();
                registry.start_again()?;
                connection = connect(&registry)?;
            }
        }
    }
    model.now_s += LIFE_S + GRACE_S;
    registry.set_clock(model.now_s)?;
    let usual = tokens
        .first()
        .map(|(_, token)| token)
        .context("there is no token")?;
    let mut left: u64 = (1 << USUAL_LENGTH) - 1;
    while left > 0 && claim(&mut connection, usual)?.is_some() {
        left -= 1;
    }
    progress(format!(
        "{claims} claims, of which {} were granted",
        given.len()
    ));
    Ok(Outcome {
        id: "prefixes",
        fault: "random claims for prefixes of three lengths, revocations, expiries, and SIGKILL of the registry",
        tries: OPERATIONS,
        figures: vec![
            Figure::count("prefixes with two owners", two_owners, 0),
            Figure::count("rejected though a prefix was free", lost, 0),
            Figure::count("prefixes lost in the end", left, 0),
        ],
    })
}

fn connect(registry: &StandaloneRegistry) -> Result<RegistryConnection> {
    let connector = registry.connector(None)?;
    registry.run_inside(|| connector.connect(None))
}

/// Creates an invitation for all claims of prefixes of this length, and returns its token.
fn token(registry: &StandaloneRegistry, length: u8) -> Result<String> {
    let (uses, length) = (OPERATIONS.to_string(), length.to_string());
    let options = [
        "--uses",
        &uses,
        "--prefix-length",
        &length,
        "--ttl",
        "3650days",
    ];
    let line = registry.command("invite", &options)?;
    let invitation: Invitation = line.trim().parse().map_err(|error| anyhow!("{error}"))?;
    Ok(token_text(&invitation.token))
}

/// Claims a prefix with a new key; returns `None` if none is left.
fn claim(connection: &mut RegistryConnection, token: &str) -> Result<Option<Prefix>> {
    match connection.claim(token, &new_key_and_csr()?.1)? {
        (200, body) => Ok(Some(serde_json::from_str::<Claimed>(&body)?.prefix)),
        (NO_PREFIX_LEFT, _) => Ok(None),
        (status, body) => bail!("a claim is rejected with {status}: {body}"),
    }
}
