//! Renews a certificate that expired while the node was off, before anything else is started.
//!
//! The registry renews expired certificates during a grace period. While it cannot be reached, the
//! renewal is retried, so that no operator has to intervene; only an explicit rejection is final.

use crate::{errors::StartError, identity::NodeIdentity};
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

/// Mean delay before the first retry; it doubles with each retry, and the actual delay is 0.5 to 1.5 times as long.
pub(crate) const FIRST_RETRY_DELAY: Duration = Duration::from_secs(5);
/// Maximum of the mean delay before a retry.
pub(crate) const MAX_RETRY_DELAY: Duration = Duration::from_secs(300);
/// HTTP status by which the registry rejects a renewal: the certificate is revoked, or its grace period is over.
pub(crate) const REJECTED_STATUS: u16 = 403;

/// Returns the seconds since 1970.
pub fn now_s() -> i64 {
    i64::try_from(wall().as_secs()).unwrap_or(i64::MAX)
}

/// Renews the certificate of `identity` and reads it again; returns at once if it has not expired.
/// `report` receives one line when the first attempt has failed.
///
/// # Errors
/// The registry rejects the renewal, or a file cannot be read or written.
pub async fn renew_if_expired(
    identity: NodeIdentity,
    registry: &str,
    credentials: &NodeCredentials,
    paths: &Paths,
    report: impl Fn(&str),
) -> Result<NodeIdentity, StartError> {
    if identity.expires_s > now_s() {
        return Ok(identity);
    }
    let registry = RegistryApiClient::with_credentials(registry, credentials)?;
    let random = Randomness::from_system();
    let (mut delay, mut is_reported) = (FIRST_RETRY_DELAY, false);
    loop {
        let answer = renewal::request(&registry, identity.request.clone()).await;
        let why = match answer {
            Ok(renewed) => match install(&identity, &renewed, paths) {
                Ok(()) => return NodeIdentity::read(paths),
                Err(error) => Chain(&error).to_string(),
            },
            Err(
                error @ RegistryApiError::Rejected {
                    status: REJECTED_STATUS,
                    ..
                },
            ) => {
                let why = format!(
                    "{}, and is not renewed any more ({error}): join again with an invitation: warren join --replace -",
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
        tokio::time::sleep(random.around(delay)).await;
        delay = (delay * 2).min(MAX_RETRY_DELAY);
    }
}

fn describe_expiry(identity: &NodeIdentity) -> String {
    format!("the certificate expired on {}", identity.expires)
}

fn install(identity: &NodeIdentity, renewed: &Renewed, paths: &Paths) -> Result<(), RenewalError> {
    let path = paths.certificate();
    let (_, old) = Certificate::read_file(&path).ok_or(BadCertificate::Malformed)?;
    let new = renewal::install(renewed, &old, &identity.cas, &path)?;
    tracing::info!(serial = new.serial, "expired certificate renewed");
    Ok(())
}
