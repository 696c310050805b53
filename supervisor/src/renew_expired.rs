//! Renews a certificate that expired while the node was off, before anything else starts.
//!
//! The registry renews expired certificates within its grace. While it cannot be reached, the
//! renewal is retried, so that no operator has to intervene; only an explicit rejection is final.

use crate::{errors::StartError, identity::Identity};
use config::paths::Paths;
use membership::{
    certificate::{BadCertificate, Certificate},
    credentials::NodeCredentials,
    registry_api::{RegistryApiClient, RegistryApiError},
    renewal::{self, RenewalError},
};
use os::clock::wall;
use os::randomness::Randomness;
use std::time::Duration;
use wire::errors::Chain;
use wire::registry::Renewed;

/// The first wait after a try that failed, ± 50 %; it doubles.
const FIRST: Duration = Duration::from_secs(5);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// The registry knows the certificate no more: revoked, or over for longer than its grace.
const REFUSED: u16 = 403;

/// Seconds since 1970.
pub fn now_s() -> i64 {
    i64::try_from(wall().as_secs()).unwrap_or(i64::MAX)
}

/// Renews the certificate of `identity` and reads it again; returns at once if it has not expired.
/// `report` receives one line about the first try that failed.
///
/// # Errors
/// The registry does not renew it, or a file cannot be read or written.
pub async fn renew_if_expired(
    identity: Identity,
    registry: &str,
    member: &NodeCredentials,
    paths: &Paths,
    report: impl Fn(&str),
) -> Result<Identity, StartError> {
    if identity.expires_s > now_s() {
        return Ok(identity);
    }
    let registry = RegistryApiClient::with_credentials(registry, member)?;
    let random = Randomness::from_system();
    let (mut wait, mut is_reported) = (FIRST, false);
    loop {
        let answer = renewal::request(&registry, identity.request.clone()).await;
        let why = match answer {
            Ok(renewed) => match install(&identity, &renewed, paths) {
                Ok(()) => return Identity::read(paths),
                Err(error) => Chain(&error).to_string(),
            },
            Err(
                error @ RegistryApiError::Rejected {
                    status: REFUSED, ..
                },
            ) => {
                let why = format!(
                    "{}, and is not renewed any more ({error}): join again",
                    describe_expiry(&identity)
                );
                return Err(StartError::Identity {
                    path: paths.certificate(),
                    why,
                });
            }
            Err(error) => Chain(&error).to_string(),
        };
        if !is_reported {
            let line = format!(
                "{}; it is renewed as soon as the registry does that: {why}",
                describe_expiry(&identity)
            );
            tracing::warn!("{line}");
            report(&line);
            is_reported = true;
        }
        tokio::time::sleep(random.around(wait)).await;
        wait = (wait * 2).min(LONGEST);
    }
}

fn describe_expiry(identity: &Identity) -> String {
    format!("the certificate expired on {}", identity.expires)
}

fn install(identity: &Identity, renewed: &Renewed, paths: &Paths) -> Result<(), RenewalError> {
    let path = paths.certificate();
    let (_, old) = Certificate::read_file(&path).ok_or(BadCertificate::Malformed)?;
    let fresh = renewal::install(renewed, &old, &identity.cas, &path)?;
    tracing::info!(serial = fresh.serial, "certificate renewed after its end");
    Ok(())
}
